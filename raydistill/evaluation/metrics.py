"""Scores and labels to numbers: accuracy, AUC, log loss, calibration error, retention."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

_TINY = 1e-7  # scores are clipped to [1e-7, 1 - 1e-7]: float32 sigmoids saturate beyond


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
    relevant = labels >= relevant_at
    return Metrics(
        auc=auc(scores, labels, relevant_at=relevant_at),
        accuracy=float(np.mean((scores >= threshold) == relevant)),
        log_loss=log_loss(scores, labels),
        ece=calibration_error(scores, labels),
        num_pairs=len(labels),
    )


DECIDES_AT = 0.5  # the soft label from which the teachers call a pair relevant


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
    same = (scores >= threshold) == (labels >= DECIDES_AT)
    return Agreement(
        agreement=rank_correlation(scores, labels),
        ndcg_10=ndcg(scores, labels, groups),
        same_decision=float(np.mean(same)),
        log_loss=log_loss(scores, labels),
        num_pairs=len(labels),
    )


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


def ndcg(
    scores: NDArray[np.float32],
    labels: NDArray[np.float32],
    groups: NDArray[np.int64],
    *,
    at: int = 10,
) -> float:
    """Mean normalised discounted cumulative gain of the first `at` pairs of each query.

    The gain is the label, the discount log2(rank + 1) (Jarvelin and Kekalainen 2002,
    https://doi.org/10.1145/582415.582418). Queries whose labels are all equal are left out; NaN
    without any other. Equal scores keep the order of the pairs.
    """
    found = []
    order = np.lexsort((-scores, groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    for rows in np.split(order, starts[1:]):
        if len(rows) == 0 or np.ptp(labels[rows]) == 0:
            continue
        discount = 1 / np.log2(np.arange(2, 2 + min(at, len(rows))))
        best = np.sort(labels[rows])[::-1][:at] @ discount
        found.append(labels[rows][:at] @ discount / best)
    return float(np.mean(found)) if found else float("nan")


def log_loss(scores: NDArray[np.float32], labels: NDArray[np.float32]) -> float:
    """Mean cross-entropy in nats; the labels may be graded."""
    p = np.clip(scores.astype(np.float64), _TINY, 1 - _TINY)
    return float(-np.mean(labels * np.log(p) + (1 - labels) * np.log1p(-p)))


def calibration_error(
    scores: NDArray[np.float32], labels: NDArray[np.float32], *, num_bins: int = 15
) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017, arXiv 1706.04599)."""
    bins = np.minimum((scores * num_bins).astype(np.int64), num_bins - 1)
    gaps = np.bincount(bins, weights=scores - labels, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(scores))


def best_threshold(
    scores: NDArray[np.float32], labels: NDArray[np.float32], *, relevant_at: float | None
) -> float:
    """The threshold of highest accuracy; chosen on the dev split, applied to the test split.

    `relevant_at` None: that of most decisions like the teachers', whose soft labels are the labels.
    """
    at = DECIDES_AT if relevant_at is None else relevant_at
    order = np.argsort(-scores, kind="stable")
    relevant = (labels >= at)[order]
    ranked = scores[order]
    # With the first k predicted relevant: relevant pairs among them plus others among the rest.
    correct = np.concatenate([[0], np.cumsum(relevant)]) + np.concatenate(
        [np.cumsum(~relevant[::-1])[::-1], [0]]
    )
    cut_allowed = np.concatenate([[True], ranked[1:] < ranked[:-1], [True]])
    best = int(np.argmax(np.where(cut_allowed, correct, -1)))
    if best == 0:
        return 1.0
    if best == len(ranked):
        return 0.0
    return float((ranked[best - 1] + ranked[best]) / 2)


def retention(student: float, teacher: float) -> float:
    """Student metric / teacher metric."""
    return student / teacher if teacher else float("nan")
