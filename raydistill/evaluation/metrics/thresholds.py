"""The score from which a pair is called relevant."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.evaluation.metrics.pair_metrics import DECIDES_AT


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
