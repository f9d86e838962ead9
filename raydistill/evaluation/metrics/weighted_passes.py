"""Metrics of pairs in the order of their scores, of 16 resamples at once (compiled).

A resample weighs each query by how often it was drawn. Shapes: B pairs in the order of the scores,
Q queries, R = LANES resamples, L distinct labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import compiled

LANES = 16


@compiled
def ranking_pass(
    queries_B: NDArray[np.int32],
    relevant_B: NDArray[np.bool_],
    ends_tie_B: NDArray[np.bool_],
    counts_QR: NDArray[np.uint8],
    out_2R: NDArray[np.float64],
) -> None:
    """AUC and average precision of each resample; pairs from the highest score to the lowest.

    `ends_tie_B`: the next pair has another score. Equal scores are half right for the AUC, and one
    threshold for the average precision, as in scikit-learn. NaN for one class.
    """
    above, others = np.zeros(LANES), np.zeros(LANES)  # relevant and other pairs of higher scores
    tied, tied_others = np.zeros(LANES), np.zeros(LANES)
    right, precision = np.zeros(LANES), np.zeros(LANES)
    for at in range(len(queries_B)):
        query = queries_B[at]
        if relevant_B[at]:
            for lane in range(LANES):
                tied[lane] += counts_QR[query, lane]
        else:
            for lane in range(LANES):
                tied_others[lane] += counts_QR[query, lane]
        if ends_tie_B[at]:
            for lane in range(LANES):
                right[lane] += tied_others[lane] * (above[lane] + 0.5 * tied[lane])
                above[lane] += tied[lane]
                others[lane] += tied_others[lane]
                if tied[lane] > 0:
                    precision[lane] += tied[lane] * above[lane] / (above[lane] + others[lane])
                tied[lane] = 0
                tied_others[lane] = 0
    for lane in range(LANES):
        has_both = above[lane] > 0 and others[lane] > 0
        out_2R[0, lane] = right[lane] / (above[lane] * others[lane]) if has_both else np.nan
        out_2R[1, lane] = precision[lane] / above[lane] if has_both else np.nan


@compiled
def label_ranks(
    queries_B: NDArray[np.int32],
    levels_B: NDArray[np.int32],
    counts_QR: NDArray[np.uint8],
    ranks_LR: NDArray[np.float64],
    squares_R: NDArray[np.float64],
) -> None:
    """Twice the centred mid-ranks of the labels in each resample, and the sum of their squares.

    `levels_B` numbers the labels of the pairs in their order; the pairs may be in any order.
    """
    ranks_LR[:] = 0
    squares_R[:] = 0
    total, below = np.zeros(LANES), np.zeros(LANES)
    for at in range(len(queries_B)):
        for lane in range(LANES):
            ranks_LR[levels_B[at], lane] += counts_QR[queries_B[at], lane]
            total[lane] += counts_QR[queries_B[at], lane]
    for level in range(len(ranks_LR)):
        for lane in range(LANES):
            weight = ranks_LR[level, lane]
            rank = 2 * below[lane] + weight - total[lane]
            below[lane] += weight
            squares_R[lane] += weight * rank * rank
            ranks_LR[level, lane] = rank


@compiled
def rank_correlation_pass(
    queries_B: NDArray[np.int32],
    levels_B: NDArray[np.int32],
    ends_tie_B: NDArray[np.bool_],
    counts_QR: NDArray[np.uint8],
    ranks_LR: NDArray[np.float64],
    squares_R: NDArray[np.float64],
    out_R: NDArray[np.float64],
) -> None:
    """Spearman's rank correlation of each resample, with mid-ranks; NaN if one is constant.

    Pairs from the highest score to the lowest; `ranks_LR` and `squares_R` of `label_ranks`.
    """
    total, above = np.zeros(LANES), np.zeros(LANES)
    for at in range(len(queries_B)):
        for lane in range(LANES):
            total[lane] += counts_QR[queries_B[at], lane]
    weights, sums = np.zeros(LANES), np.zeros(LANES)  # of the pairs of equal score
    squares, products = np.zeros(LANES), np.zeros(LANES)
    for at in range(len(queries_B)):
        for lane in range(LANES):
            weight = counts_QR[queries_B[at], lane]
            weights[lane] += weight
            sums[lane] += weight * ranks_LR[levels_B[at], lane]
        if ends_tie_B[at]:
            for lane in range(LANES):
                rank = total[lane] - 2 * above[lane] - weights[lane]
                above[lane] += weights[lane]
                squares[lane] += weights[lane] * rank * rank
                products[lane] += rank * sums[lane]
                weights[lane] = 0
                sums[lane] = 0
    for lane in range(LANES):
        scale = np.sqrt(squares[lane]) * np.sqrt(squares_R[lane])
        out_R[lane] = products[lane] / scale if scale > 0 else np.nan
