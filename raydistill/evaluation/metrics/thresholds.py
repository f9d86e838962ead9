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
    if best == 0:  # above all scores; a saturated one is 1
        is_below = len(ranked) == 0 or ranked[0] < 1
        return 1.0 if is_below else float(np.nextafter(ranked[0], np.float32(np.inf)))
    if best == len(ranked):
        return min(0.0, float(ranked[-1]))
    middle = (ranked[best - 1] + ranked[best]) / 2
    # Of neighbouring numbers the middle is rounded, maybe to the lower one.
    return float(middle if middle > ranked[best] else ranked[best - 1])
