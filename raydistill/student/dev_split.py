"""The dev split in a fit: features and labels of its pairs, and a student's figures on them.

Labels are judged, or the teachers' soft labels. Figures have the keys of `METRICS`; the rank
correlation with soft labels is called "agreement".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.evaluation.metrics.pair_metrics import log_loss, ranking, ranking_name
from raydistill.evaluation.metrics.thresholds import best_threshold
from raydistill.evaluation.scoreboard.scoreboard import Measurements
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import split_shards
from raydistill.serving.feature_spec import Features
from raydistill.student.batches import Loader
from raydistill.teachers.judged_logits import read_groups, split_targets

# The better end of each metric, by its name in files.
BEST: dict[str, str] = {**{key: one.best for key, one in METRICS.items()}, "agreement": "max"}
Labels = NDArray[np.float32]


@dataclass(frozen=True)
class DevSplit:
    """B pairs of the dev split; `groups_B` numbers the queries."""

    features: Features
    labels_B: Labels
    groups_B: NDArray[np.int64]
    relevant_at: float | None  # None: soft labels

    def figures(
        self, logits_B: Labels, *, temperature: float, keys: Sequence[str] = ()
    ) -> dict[str, float]:
        """AUC, or agreement with the teachers; log loss; and what `keys` names.

        The student's score is sigmoid(temperature x logit): a probability at temperature 1. A
        student with a NaN logit has diverged: its figures are NaN.
        """
        name = ranking_name(self.relevant_at)
        if np.isnan(logits_B).any():
            return dict.fromkeys((name, "log_loss", *keys), float("nan"))
        scores_B = torch.from_numpy(logits_B).double().mul(temperature).sigmoid().numpy()
        found = {
            name: ranking(logits_B, self.labels_B, relevant_at=self.relevant_at),
            "log_loss": log_loss(scores_B, self.labels_B) if len(self.labels_B) else float("nan"),
        }
        others = [key for key in dict.fromkeys(keys) if key not in found]
        if others and len(self.labels_B):
            found |= figures_of(
                scores_B.astype(np.float32), self.labels_B, self.groups_B,
                relevant_at=self.relevant_at, keys=others,
            )  # fmt: skip
            _check_known(found, others)
        return {**dict.fromkeys(others, float("nan")), **found}


def figures_of(
    scores_B: Labels,
    labels_B: Labels,
    groups_B: NDArray[np.int64],
    *,
    relevant_at: float | None,
    keys: Sequence[str] = tuple(METRICS),
    threshold: float | None = None,
) -> dict[str, float]:
    """Metrics of scores in 0..1; without a `threshold` that of the highest accuracy is used."""
    if threshold is None:
        threshold = best_threshold(scores_B, labels_B, relevant_at=relevant_at)
    scored = ScoredPairs(
        labels_B, groups_B, relevant_at, {"student": scores_B}, {"student": threshold}
    )
    found = Measurements(scored, draws=Draws(resamples=0), keys=keys)
    return dict(found.alone("student").value)


def _check_known(found: Mapping[str, float], keys: Sequence[str]) -> None:
    """Raise UserError for a metric that the dev split has no value of."""
    unknown = [key for key in keys if np.isnan(found[key])]
    if unknown:
        raise UserError(
            f"the dev split has no {METRICS[unknown[0]].name} ({unknown[0]}): no query has both "
            'relevant and other pairs; give train.metric and tune.metric "auc", or more judged '
            "pairs a query"
        )


def is_better(one: Mapping[str, float], other: Mapping[str, float], *, metric: str) -> bool:
    """Whether figures are better than those before; NaN is worse than a number, not than NaN."""
    sign, before = 1 if BEST[metric] == "max" else -1, other.get(metric, float("nan"))
    return bool(np.isnan(before)) or sign * one[metric] > sign * before


def shown_metric(metric: str, *, relevant_at: float | None) -> str:
    """The name of a metric on dev in log lines."""
    if metric == "agreement":
        return "agreement with the teachers on dev"
    name = f"dev {METRICS[metric].name}"
    return name if relevant_at is not None else f"{name} against the teachers"


def dev_split(run: Run, loader: Loader) -> DevSplit:
    """The dev split, without pairs that no teacher has a logit for.

    Raises:
        UserError: no teacher has a logit of any of its pairs.
    """
    targets = split_targets(run, "dev")
    dev = Loader(run.split("dev"), targets, spec=loader.spec, lexicon=loader.lexicon)
    features, labels_B = dev.read_all(split_shards(run, "dev"))
    groups_B, relevant_at = read_groups(run, "dev"), run.config.relevant_at("dev")
    rows = np.flatnonzero(~np.isnan(labels_B))
    if len(labels_B) and not len(rows):
        raise UserError(
            f"no teacher has a logit of a pair in {run.split('dev')}: there is nothing to compare "
            "the student with; have those pairs scored too"
        )
    if len(rows) < len(labels_B):
        features, labels_B, groups_B = features.take(rows), labels_B[rows], groups_B[rows]
    return DevSplit(features, labels_B, groups_B, relevant_at)
