"""A few metrics of one scorer at once: what train, tune and export write beside a student."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.evaluation.metrics.pair_metrics import (
    DECIDES_AT,
    accuracy,
    auc,
    calibration_error,
    log_loss,
    rank_correlation,
)
from raydistill.evaluation.metrics.query_metrics import ndcg
from raydistill.evaluation.metrics.resampling import LabeledPairs, RankedPairs, exact_values


def metric_values(
    scores_B: NDArray[np.float32],
    labels_B: NDArray[np.float32],
    groups_B: NDArray[np.int64],
    *,
    relevant_at: float | None,
    threshold: float | None = None,
    keys: Collection[str] = tuple(METRICS),
) -> dict[str, float | None]:
    """Metrics of `METRICS` by key; None where the pairs have none (one class, no threshold).

    `relevant_at` None: the labels are the teachers' soft labels, and a metric is agreement.

    Raises:
        ValueError: a key is not in METRICS.
    """
    if unknown := set(keys) - set(METRICS):
        raise ValueError(f"no metric is called {sorted(unknown)}; there are {list(METRICS)}")
    pairs = LabeledPairs(labels_B, groups_B, relevant_at=relevant_at)
    ranked = RankedPairs(scores_B, pairs, keys=keys, threshold=threshold)
    found = exact_values((pairs, {"": ranked}))[""]
    values = {key: found.get(key, math.nan) for key in METRICS if key in keys}
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


@dataclass(frozen=True)
class Metrics:
    """Agreement of scores and labels over `num_pairs` pairs."""

    auc: float
    accuracy: float
    log_loss: float
    ece: float
    num_pairs: int

    def to_dict(self) -> dict[str, float]:
        """The fields as plain numbers, for metrics.json."""
        return asdict(self)


def measure(
    scores: NDArray[np.float32],
    labels: NDArray[np.float32],
    *,
    relevant_at: float,
    threshold: float,
) -> Metrics:
    """Metrics of scores in 0..1 against graded labels in 0..1.

    AUC and accuracy use binary relevance (label >= `relevant_at`); a pair is predicted relevant if
    its score is >= `threshold`. Log loss and calibration error compare the score with the graded
    label itself, as teacher and student are fitted to graded labels.
    """
    return Metrics(
        auc=auc(scores, labels, relevant_at=relevant_at),
        accuracy=accuracy(scores, labels, relevant_at=relevant_at, threshold=threshold),
        log_loss=log_loss(scores, labels),
        ece=calibration_error(scores, labels),
        num_pairs=len(labels),
    )


@dataclass(frozen=True)
class Agreement:
    """Agreement of scores with the teachers' soft labels over `num_pairs` pairs."""

    agreement: float  # Spearman's rank correlation
    ndcg_10: float  # the soft labels are the gains
    same_decision: float
    log_loss: float
    num_pairs: int

    def to_dict(self) -> dict[str, float]:
        """The fields as plain numbers, for metrics.json."""
        return asdict(self)


def agree(
    scores: NDArray[np.float32],
    labels: NDArray[np.float32],
    groups: NDArray[np.int64],
    *,
    threshold: float,
) -> Agreement:
    """Agreement with soft labels; `threshold`: the score from which a pair is called relevant."""
    return Agreement(
        agreement=rank_correlation(scores, labels),
        ndcg_10=ndcg(scores, labels, groups),
        same_decision=accuracy(scores, labels, relevant_at=DECIDES_AT, threshold=threshold),
        log_loss=log_loss(scores, labels),
        num_pairs=len(labels),
    )


def retention(student: float, teacher: float) -> float:
    """Student metric / teacher metric."""
    return student / teacher if teacher else float("nan")
