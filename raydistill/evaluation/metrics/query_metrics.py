"""Metrics of the ranking inside each query (compiled): a row of figures for each query.

Equal scores have no order: a metric is its mean over all orders of the pairs that have equal
scores, so that it does not depend on the order of the rows. Shapes: B pairs, query after query, in
a query from the highest score to the lowest; Q queries; C columns of `COLUMNS`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import compiled

# Of each query; the three `has` and `num` columns are what the columns before them are divided by.
COLUMNS = (
    *("ndcg_5", "ndcg_10", "has_labels"),  # has_labels: 1 if the labels are not all equal
    *("mrr_10", "precision_1", "precision_5", "query_auc", "has_kinds"),  # relevant and others
    *("right_couples", "num_couples"),  # couples of different labels; half for equal scores
)


def query_figures(
    scores_B: NDArray[np.float32],
    labels_B: NDArray[np.float32],
    relevant_B: NDArray[np.bool_],
    starts_Q: NDArray[np.int64],
    best_B: NDArray[np.float32],
) -> NDArray[np.float64]:
    """The columns of each query, float64 (Q, C); 0 where a query has no such figure.

    Query q has the pairs from `starts_Q[q]` up to `starts_Q[q + 1]`, so one start more than there
    are queries. `best_B`: the labels, in each query from the highest to the lowest.
    """
    out_QC = np.zeros((len(starts_Q) - 1, len(COLUMNS)))
    _fill(scores_B, labels_B, relevant_B, starts_Q, best_B, 1 / np.log2(np.arange(2.0, 12)), out_QC)
    return out_QC


def ndcg(
    scores: NDArray[np.float32],
    labels: NDArray[np.float32],
    groups: NDArray[np.int64],
    *,
    at: int = 10,
) -> float:
    """Mean normalised discounted cumulative gain of the first `at` (at most 10) pairs of a query.

    The gain is the label, the discount log2(rank + 1) (Jarvelin and Kekalainen 2002,
    https://doi.org/10.1145/582415.582418); equal scores share their mean gain (McSherry and Najork
    2008, https://doi.org/10.1007/978-3-540-78646-7_38), as in scikit-learn. Queries whose labels
    are all equal are left out; NaN without any other.
    """
    order = np.lexsort((-scores, groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order][:1] - 1))
    best = labels[np.lexsort((-labels, groups))]
    discounts = 1 / np.log2(np.arange(2.0, 2 + at))
    out_QC = np.zeros((len(starts), len(COLUMNS)))
    ends = np.append(starts, len(order)).astype(np.int64)
    _fill(scores[order], labels[order], labels[order] > 0, ends, best, discounts, out_QC)
    num = out_QC[:, 2].sum()
    return float(out_QC[:, 1].sum() / num) if num else float("nan")


@compiled
def _fill(
    scores_B: NDArray[np.float32],
    labels_B: NDArray[np.float32],
    relevant_B: NDArray[np.bool_],
    starts_Q: NDArray[np.int64],
    best_B: NDArray[np.float32],
    discounts: NDArray[np.float64],
    out_QC: NDArray[np.float64],
) -> None:
    sorted_B, spare_B = labels_B.copy(), labels_B.copy()
    for query in range(len(starts_Q) - 1):
        start, end = starts_Q[query], starts_Q[query + 1]
        if end - start < 2:
            continue
        scores, labels, relevant = scores_B[start:end], labels_B[start:end], relevant_B[start:end]
        best, out = best_B[start:end], out_QC[query]
        if best[0] > best[-1]:
            for column, at in ((0, min(5, len(discounts))), (1, len(discounts))):
                most = _gain(best, best, discounts, at)
                out[column] = _gain(scores, labels, discounts, at) / most if most > 0 else 0.0
            out[2] = 1
            right, couples = _couples(scores, best, sorted_B[start:end], spare_B[start:end])
            out[8], out[9] = right, couples
        num_relevant = 0
        for at in range(len(relevant)):
            num_relevant += relevant[at]
        if 0 < num_relevant < len(relevant):
            out[3] = _reciprocal_rank(scores, relevant, 10)
            out[4] = _hits(scores, relevant, 1)
            out[5] = _hits(scores, relevant, 5) / 5
            out[6] = _auc(scores, relevant)
            out[7] = 1


@compiled
def _tie_end(scores: NDArray[np.float32], start: int) -> int:
    """Behind the last pair that has the score of pair `start`."""
    end = start + 1
    while end < len(scores) and scores[end] == scores[start]:
        end += 1
    return end


@compiled
def _gain(
    scores: NDArray[np.float32],
    labels: NDArray[np.float32],
    discounts: NDArray[np.float64],
    at: int,
) -> float:
    """The mean of the discounted gain of the first `at` pairs."""
    total, start = 0.0, 0
    while start < min(at, len(scores)):
        end = _tie_end(scores, start)
        gain, discount = 0.0, 0.0
        for place in range(start, end):
            gain += labels[place]
            if place < at:
                discount += discounts[place]
        total += gain / (end - start) * discount
        start = end
    return total


@compiled
def _num_true(values: NDArray[np.bool_]) -> int:
    num = 0
    for value in values:
        num += value
    return num


@compiled
def _hits(scores: NDArray[np.float32], relevant: NDArray[np.bool_], at: int) -> float:
    """The mean number of relevant pairs among the first `at`."""
    total, start = 0.0, 0
    while start < min(at, len(scores)):
        end = _tie_end(scores, start)
        share = _num_true(relevant[start:end]) / (end - start)
        total += share * (min(end, at) - start)
        start = end
    return total


@compiled
def _reciprocal_rank(scores: NDArray[np.float32], relevant: NDArray[np.bool_], at: int) -> float:
    """The mean of 1 / rank of the first relevant pair, 0 behind rank `at`."""
    start = 0
    while start < min(at, len(scores)):
        end = _tie_end(scores, start)
        num, left = _num_true(relevant[start:end]), end - start
        if num == 0:
            start = end
            continue
        total, none_before = 0.0, 1.0
        for rank in range(start + 1, min(end, at) + 1):
            total += none_before * num / left / rank
            none_before *= (left - num) / left
            left -= 1
            if none_before <= 0:
                break
        return total
    return 0.0


@compiled
def _auc(scores: NDArray[np.float32], relevant: NDArray[np.bool_]) -> float:
    above, others, right, start = 0, 0, 0.0, 0
    while start < len(scores):
        end = _tie_end(scores, start)
        num = _num_true(relevant[start:end])
        right += (end - start - num) * (above + 0.5 * num)
        above += num
        others += end - start - num
        start = end
    return right / (above * others)


@compiled
def _couples(
    scores: NDArray[np.float32],
    best: NDArray[np.float32],
    labels: NDArray[np.float32],
    spare: NDArray[np.float32],
) -> tuple[float, float]:
    """Couples of different labels that the scores order right, and all of them.

    n log n steps (Knight 1966, https://doi.org/10.1080/01621459.1966.10480879). Sorts `labels`.
    """
    num = len(best)
    couples = 0.5 * num * (num - 1) - _equal_couples(best)
    tied, start = 0.0, 0
    while start < num:
        end = _tie_end(scores, start)
        if end - start > 1:
            _sort_down(labels[start:end], spare[start:end])
            size = end - start
            tied += 0.5 * size * (size - 1) - _equal_couples(labels[start:end])
        start = end
    wrong = _sort_down(labels, spare)
    return couples - wrong - 0.5 * tied, couples


@compiled
def _equal_couples(values: NDArray[np.float32]) -> float:
    """Couples of equal values; the values are sorted."""
    total, start = 0.0, 0
    while start < len(values):
        end = _tie_end(values, start)
        total += 0.5 * (end - start) * (end - start - 1)
        start = end
    return total


@compiled
def _sort_down(values: NDArray[np.float32], spare: NDArray[np.float32]) -> float:
    """Sort from the highest to the lowest; returns the couples whose later value was higher."""
    swaps, width, num = 0.0, 1, len(values)
    while width < num:
        for start in range(0, num, 2 * width):
            middle, end = min(start + width, num), min(start + 2 * width, num)
            left, right = start, middle
            for place in range(start, end):
                if right >= end or (left < middle and values[left] >= values[right]):
                    spare[place] = values[left]
                    left += 1
                else:
                    spare[place] = values[right]
                    right += 1
                    swaps += middle - left
        values[:] = spare[:num]
        width *= 2
    return swaps
