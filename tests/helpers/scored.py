"""Scored pairs of a made-up shop."""

import numpy as np

from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs

DRAWS = Draws(100, seed=3)


def some_pairs(*, num_queries: int = 30, seed: int = 0) -> ScoredPairs:
    """A teacher better than the student; "partial" scores the second half of the pairs alone."""
    rng = np.random.default_rng(seed)
    groups = 1_000 - np.repeat(np.arange(num_queries), 8)
    labels = rng.choice(np.array([0, 0.5, 1], np.float32), size=len(groups))
    scores = {
        name: np.clip(0.3 + 0.4 * labels + rng.normal(scale=noise, size=len(groups)), 0, 1)
        for name, noise in (("teacher", 0.2), ("student", 0.4), ("partial", 0.3))
    }
    scores["partial"][: len(groups) // 2] = np.nan
    scored = {name: values.astype(np.float32) for name, values in scores.items()}
    return ScoredPairs(labels, groups, 0.75, scored, {"teacher": 0.5, "student": 0.5})
