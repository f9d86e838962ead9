"""Queries whose ranking differs between two scorers, with the titles' ranks before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SHOWN_QUERIES = 20  # in each direction
_FIRST_RANKS = 5  # titles of these ranks, before or after, are shown
_SAME = 1e-9  # a smaller change is rounding


@dataclass(frozen=True)
class TwoScores:
    """B judged pairs with the scores of two scorers, A (before) and B (after)."""

    queries: pa.StringArray
    titles: pa.StringArray
    labels_B: NDArray[np.float32]
    groups_B: NDArray[np.int64]
    before_B: NDArray[np.float32]
    after_B: NDArray[np.float32]


@dataclass(frozen=True)
class QueryValues:
    """A metric of each of Q queries with both scorers; NaN: the metric leaves the query out.

    `groups_Q`: the numbers of the queries in `groups_B`.
    """

    groups_Q: NDArray[np.int64]
    before_Q: NDArray[np.float64]
    after_Q: NDArray[np.float64]

    @property
    def change_Q(self) -> NDArray[np.float64]:
        """After - before; 0 for a change of rounding."""
        change = self.after_Q - self.before_Q
        return np.where(np.abs(change) < _SAME, 0.0, change)


def count_moved(values: QueryValues) -> dict[str, int]:
    """The number of queries that B ranks better, worse and equally well, and of those left out."""
    change = values.change_Q
    return {
        "better": int((change > 0).sum()),
        "worse": int((change < 0).sum()),
        "equal": int((change == 0).sum()),
        "left_out": int(np.isnan(change).sum()),
    }


def moved(scores: TwoScores, values: QueryValues, *, most: int = SHOWN_QUERIES) -> dict[str, Any]:
    """The queries with the largest changes: `better` and `worse`, at most `most` of each."""
    change = np.nan_to_num(values.change_Q)
    order = np.argsort(change, kind="stable")
    worse = [at for at in order[:most] if change[at] < 0]
    better = [at for at in order[::-1][:most] if change[at] > 0]
    rows = _rows_of(scores.groups_B, values.groups_Q[[*better, *worse]])
    return {
        name: [_case(scores, values, at, rows[int(values.groups_Q[at])]) for at in some]
        for name, some in {"better": better, "worse": worse}.items()
    }


def _rows_of(
    groups_B: NDArray[np.int64], wanted: NDArray[np.int64]
) -> dict[int, NDArray[np.int64]]:
    """The rows of some queries, from one pass over all pairs."""
    rows = np.flatnonzero(np.isin(groups_B, wanted))
    return {int(group): rows[groups_B[rows] == group] for group in wanted}


def _case(
    scores: TwoScores, values: QueryValues, at: int, rows: NDArray[np.int64]
) -> dict[str, Any]:
    ranks = [_ranks(one[rows]) for one in (scores.before_B, scores.after_B)]
    shown = [i for i in np.argsort(ranks[1]) if min(ranks[0][i], ranks[1][i]) <= _FIRST_RANKS]
    return {
        "query": scores.queries[rows[0]].as_py(),
        "num_pairs": len(rows),
        "before": float(values.before_Q[at]),
        "after": float(values.after_Q[at]),
        "change": float(values.change_Q[at]),
        "titles": [
            {
                "title": scores.titles[int(rows[i])].as_py(),
                "label": float(scores.labels_B[rows[i]]),
                "before": int(ranks[0][i]),
                "after": int(ranks[1][i]),
            }
            for i in shown
        ],
    }


def _ranks(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The rank of each pair from 1, the highest score first; equal scores keep their order."""
    ranks = np.empty(len(scores), np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks
