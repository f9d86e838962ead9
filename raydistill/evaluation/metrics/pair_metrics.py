"""Metrics of all pairs together: AUC, PR-AUC, accuracy, log loss, calibration error, Spearman."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.evaluation.metrics.weighted_passes import (
    LANES,
    ends_of_ties,
    rank_correlations,
    rank_labels,
    ranking_metrics,
)

NUM_BINS = 15  # of the calibration error
_TINY = 1e-7  # scores are clipped to [1e-7, 1 - 1e-7]: float32 sigmoids saturate beyond
DECIDES_AT = 0.5  # the soft label from which the teachers call a pair relevant
_ALL_ONCE = np.ones((1, LANES), np.uint8)  # one query that is drawn once in each resample


def auc(scores: NDArray[np.float32], labels: NDArray[np.float32], *, relevant_at: float) -> float:
    """Probability that a relevant pair outranks another; scores may be logits. NaN for one class.

    The area under the ROC curve is the Mann-Whitney U divided by the number of (relevant, other)
    combinations (Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747).
    """
    return _auc_and_precision(scores, labels, relevant_at=relevant_at)[0]


def pr_auc(
    scores: NDArray[np.float32], labels: NDArray[np.float32], *, relevant_at: float
) -> float:
    """Average precision, the area under the precision-recall curve in steps. NaN for one class.

    The mean over the relevant pairs of the precision among the pairs of at least their score, as
    scikit-learn's `average_precision_score`.
    """
    return _auc_and_precision(scores, labels, relevant_at=relevant_at)[1]


def _auc_and_precision(
    scores: NDArray[np.float32], labels: NDArray[np.float32], *, relevant_at: float
) -> tuple[float, float]:
    order = np.argsort(-scores)
    found = ranking_metrics(
        np.zeros(len(order), np.uint32),
        labels[order] >= relevant_at,
        ends_of_ties(scores[order]),
        _ALL_ONCE,
    )
    return float(found[0][0]), float(found[1][0])


def accuracy(
    scores: NDArray[np.float32],
    labels: NDArray[np.float32],
    *,
    relevant_at: float,
    threshold: float,
) -> float:
    """Share of pairs that are relevant and have at least the score `threshold`, or neither."""
    return float(np.mean((scores >= threshold) == (labels >= relevant_at)))


def ranking(
    scores: NDArray[np.float32], labels: NDArray[np.float32], *, relevant_at: float | None
) -> float:
    """How well scores rank pairs: the AUC on judged labels.

    `relevant_at` None: the labels are the teachers' soft labels; their rank correlation.
    """
    if relevant_at is None:
        return rank_correlation(scores, labels)
    return auc(scores, labels, relevant_at=relevant_at)


def ranking_name(relevant_at: float | None) -> str:
    """The name of `ranking` in files: "auc", or "agreement"."""
    return "agreement" if relevant_at is None else "auc"


def rank_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Spearman's rank correlation; ties have their mean rank. NaN if one is constant."""
    orders = [np.argsort(-values) for values in (one, other)]
    ends = [ends_of_ties(values[order]) for values, order in zip((one, other), orders, strict=True)]
    levels = np.empty(len(other), np.uint32)
    levels[orders[1]] = np.cumsum(ends[1]) - ends[1]
    query = np.zeros(len(one), np.uint32)
    ranks = rank_labels(query, ends[1], _ALL_ONCE)
    found = rank_correlations(query, levels[orders[0]], ends[0], _ALL_ONCE, ranks)
    return float(found[0])


def log_loss(scores: NDArray[np.float32], labels: NDArray[np.float32]) -> float:
    """Mean cross-entropy in nats; the labels may be graded."""
    return float(np.mean(cross_entropies(scores, labels)))


def cross_entropies(
    scores_B: NDArray[np.float32], labels_B: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The cross-entropy of each pair, in nats."""
    p_B = np.clip(scores_B.astype(np.float64), _TINY, 1 - _TINY)
    return np.asarray(-(labels_B * np.log(p_B) + (1 - labels_B) * np.log1p(-p_B)), np.float64)


def calibration_error(
    scores: NDArray[np.float32], labels: NDArray[np.float32], *, num_bins: int = NUM_BINS
) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017, arXiv 1706.04599)."""
    query = np.zeros(len(scores), np.uint32)
    gaps = gap_sums(scores, labels, query, num_queries=1, num_bins=num_bins)
    return float(np.abs(gaps).sum() / len(scores))


def gap_sums(
    scores_B: NDArray[np.float32],
    labels_B: NDArray[np.float32],
    queries_B: NDArray[np.uint32],
    *,
    num_queries: int,
    num_bins: int = NUM_BINS,
) -> NDArray[np.float64]:
    """The sum of score - label in each query (row) and each bin of scores (column)."""
    bins_B = np.minimum((scores_B * num_bins).astype(np.int64), num_bins - 1)
    cells_B = queries_B.astype(np.int64) * num_bins + bins_B
    gaps_B = (scores_B - labels_B).astype(np.float64)
    gaps = np.bincount(cells_B, weights=gaps_B, minlength=num_queries * num_bins)
    return np.asarray(gaps, np.float64).reshape(num_queries, num_bins)
