"""Distributions of scores for the charts of the report; small lists, whatever the pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.evaluation.metrics.pair_metrics import NUM_BINS
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs

_HISTOGRAM_BINS = 20
_LOW, _HIGH = 0.1, 0.9  # quantiles of the student's scores in a bin of the teacher's


def charts(scored: ScoredPairs, *, teacher: str | None, student: str = "student") -> dict[str, Any]:
    """Reliability and histograms of every scorer, and the student's scores by the teacher's.

    Only scorers of probabilities have a reliability curve.
    """
    by_name = {
        name: (scores[has_B], scored.labels_B[has_B], scored.relevant_B[has_B])
        for name, scores in scored.scores.items()
        if (has_B := scored.has_score[name]).any()
    }
    is_drawn = teacher in by_name and student in by_name
    return {
        "reliability": {
            name: reliability(scores, labels)
            for name, (scores, labels, _) in by_name.items()
            if name in scored.probabilities
        },
        "histograms": {
            name: histogram(scores, relevant) for name, (scores, _, relevant) in by_name.items()
        },
        "student_by_teacher": (
            student_by_teacher(scored.scores[student], scored.scores[str(teacher)])
            if is_drawn
            else []
        ),
    }


def reliability(
    scores_B: NDArray[np.float32], labels_B: NDArray[np.float32], *, num_bins: int = NUM_BINS
) -> list[dict[str, float | int]]:
    """Mean score and mean label in bins of equal width of the scores in 0..1; empty bins left out.

    The bins are those of the calibration error.
    """
    bins_B = np.minimum((scores_B * num_bins).astype(np.int64), num_bins - 1)
    num = np.bincount(bins_B, minlength=num_bins)
    score, label = (np.bincount(bins_B, values, num_bins) for values in (scores_B, labels_B))
    return [
        {"score": score[at] / num[at], "label": label[at] / num[at], "num": int(num[at])}
        for at in np.flatnonzero(num)
    ]


def histogram(
    scores_B: NDArray[np.float32], relevant_B: NDArray[np.bool_]
) -> dict[str, list[float] | list[int]]:
    """Numbers of relevant and of other pairs in 20 bins of equal width.

    From 0 to 1, or from the lowest to the highest score where one is outside.
    """
    low, high = float(scores_B.min()), float(scores_B.max())
    span = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    edges = np.histogram_bin_edges(scores_B, bins=_HISTOGRAM_BINS, range=span)
    relevant, others = (
        np.histogram(scores_B[chosen], bins=edges)[0] for chosen in (relevant_B, ~relevant_B)
    )
    return {"edges": edges.tolist(), "relevant": relevant.tolist(), "other": others.tolist()}


def student_by_teacher(
    student_B: NDArray[np.float32], teacher_B: NDArray[np.float32]
) -> list[dict[str, float | int]]:
    """In 20 bins of the teacher's score: the mean of both, and 10 % to 90 % of the student's.

    On the pairs that both score.
    """
    both_B = np.isfinite(student_B) & np.isfinite(teacher_B)
    student, teacher = student_B[both_B].astype(np.float64), teacher_B[both_B].astype(np.float64)
    if len(teacher) == 0:
        return []
    low, high = min(0.0, teacher.min()), max(1.0, teacher.max())
    place = (teacher - low) / (high - low) * _HISTOGRAM_BINS
    bins = np.minimum(place.astype(np.int64), _HISTOGRAM_BINS - 1)
    order = np.argsort(bins, kind="stable")
    starts = np.flatnonzero(np.diff(bins[order], prepend=-1))
    found = []
    for rows in np.split(order, starts[1:]):
        limits = np.quantile(student[rows], [_LOW, _HIGH])
        found.append(
            {
                "teacher": float(teacher[rows].mean()),
                "student": float(student[rows].mean()),
                "low": float(limits[0]),
                "high": float(limits[1]),
                "num": len(rows),
            }
        )
    return found
