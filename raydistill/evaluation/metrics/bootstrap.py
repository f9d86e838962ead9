"""Resampling of queries: draws, percentile intervals and p-values.

Pairs of one query are not independent, so whole queries are drawn, with replacement (the cluster
bootstrap: Davison and Hinkley 1997, section 3.8). All scorers are measured on the same draws, so
that differences and ratios of two scorers are paired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydistill.evaluation.metrics.weighted_passes import LANES

LEVEL = 0.95
_FEWEST_KNOWN = 0.95  # of the resamples: with fewer that have the figure there is no interval


@dataclass(frozen=True)
class Draws:
    """How many resamples to draw, and the seed; the draws of a seed are the same everywhere."""

    resamples: int = 1_000
    seed: int = 0

    def to_dict(self) -> dict[str, int | float | str]:
        """For metrics.json."""
        return {
            "resamples": self.resamples,
            "seed": self.seed,
            "level": LEVEL,
            "unit": "query",
        }

    def counts(self, num_queries: int) -> Iterator[NDArray[np.uint8]]:
        """How often each query is drawn: blocks (num_queries, LANES), a resample in each column.

        The last block has 0 in the columns that are too many. `resamples` x `num_queries` queries
        are drawn in all, one block is in memory. A count above 255 does not occur: with 256 or
        more queries its probability is below 1 / 256!.
        """
        rng = np.random.default_rng(self.seed)
        for start in range(0, self.resamples, LANES):
            block = np.zeros((num_queries, LANES), np.uint8)
            for lane in range(min(LANES, self.resamples - start)):
                drawn = rng.integers(num_queries, size=num_queries, dtype=np.uint32)
                block[:, lane] = np.bincount(drawn, minlength=num_queries)
            yield block


def interval(resampled_R: NDArray[np.float64]) -> tuple[float, float] | None:
    """The percentile interval of 95 % (Efron and Tibshirani 1993, section 13.3).

    NaN: a resample without the figure, such as an AUC where no relevant pair was drawn. None if
    more than 5 % of the resamples are NaN.
    """
    known = resampled_R[np.isfinite(resampled_R)]
    if len(known) == 0 or len(known) < _FEWEST_KNOWN * len(resampled_R):
        return None
    # The (resamples + 1) p-th of the sorted values (Davison and Hinkley 1997, section 5.3).
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="weibull")
    return float(low), float(high)


def p_value(differences_R: NDArray[np.float64]) -> float | None:
    """Two-sided p-value of "no difference": where the percentile interval would end at 0.

    Twice the smaller share of resamples at or beyond 0, at least 2 / (resamples + 1) (Efron and
    Tibshirani 1993, sections 15.4 and 16.4; the 1 added: Davison and Hinkley 1997, section 4.2).
    None if more than 5 % of the resamples are NaN.
    """
    known = differences_R[np.isfinite(differences_R)]
    if len(known) == 0 or len(known) < _FEWEST_KNOWN * len(differences_R):
        return None
    fewer = min(int(np.sum(known <= 0)), int(np.sum(known >= 0)))
    return min(1.0, 2 * (fewer + 1) / (len(known) + 1))
