"""Metrics of all pairs together: AUC, PR-AUC, accuracy, log loss, calibration error, Spearman."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 15  # of the calibration error
_TINY = 1e-7  # scores are clipped to [1e-7, 1 - 1e-7]: float32 sigmoids saturate beyond


DECIDES_AT = 0.5  # the soft label from which the teachers call a pair relevant


def auc(scores: NDArray[np.float32], labels: NDArray[np.float32], *, relevant_at: float) -> float:
    """Probability that a relevant pair outranks another; scores may be logits. NaN for one class.

    The area under the ROC curve is the Mann-Whitney U divided by the number of (relevant, other)
    combinations (Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747).
    """
    relevant = labels >= relevant_at
    if relevant.all() or not relevant.any():
        return float("nan")
    ranks = _ranks(scores)
    num_relevant = int(relevant.sum())
    num_right = ranks[relevant].sum() - num_relevant * (num_relevant + 1) / 2
    return float(num_right / (num_relevant * (len(scores) - num_relevant)))


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
    if len(one) < 2:
        return float("nan")
    ranks = [_ranks(values) - (len(values) + 1) / 2 for values in (one, other)]
    scale = float(np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
    return float(ranks[0] @ ranks[1] / scale) if scale else float("nan")


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Ranks from 1; ties get their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[group], np.float64)


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
