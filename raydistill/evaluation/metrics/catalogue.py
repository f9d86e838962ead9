"""The metrics that reports, searches and training know by a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric: its name in tables, which end is better, and what it is a mean of.

    `of`: "pairs" if all pairs are ranked or counted together, "queries" if the pairs of one query
    are compared with each other alone. `chance`: the value of scores that say nothing; None where
    it depends on the labels. `has_retention`: student / teacher (loss: teacher / student) says how
    much is kept. `has_interval`: the percentiles of resamples hold the truth as often as they say.
    """

    key: str
    name: str
    best: Literal["max", "min"] = "max"
    of: Literal["pairs", "queries"] = "pairs"
    chance: float | None = None
    has_retention: bool = True
    has_interval: bool = True

    def to_dict(self) -> dict[str, str | float | None]:
        """A column of metrics.json."""
        return {name: getattr(self, name) for name in ("key", "name", "best", "of", "chance")}


_ALL = (
    Metric("auc", "AUC", chance=0.5),
    Metric("pr_auc", "PR-AUC"),
    Metric("accuracy", "accuracy"),
    Metric("log_loss", "log loss", best="min"),
    # A ratio of two errors near 0 says nothing. Noise in a bin only adds to it, so resamples are
    # above the value: of 300 shops of 200 queries whose error is 0.01, no interval held that.
    Metric("ece", "calibration error", best="min", has_retention=False, has_interval=False),
    Metric("spearman", "Spearman"),
    Metric("ndcg_5", "nDCG@5", of="queries"),
    Metric("ndcg_10", "nDCG@10", of="queries"),
    Metric("mrr_10", "MRR@10", of="queries"),
    Metric("precision_1", "P@1", of="queries"),
    Metric("precision_5", "P@5", of="queries"),
    Metric("query_auc", "AUC per query", of="queries", chance=0.5),
    Metric("pairwise", "pairwise agreement", of="queries", chance=0.5),
)
METRICS: dict[str, Metric] = {metric.key: metric for metric in _ALL}
ABOVE_CHANCE = "auc_above_chance"  # the retention of AUC - 0.5, beside those of METRICS
