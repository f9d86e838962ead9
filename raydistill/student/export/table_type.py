"""The type in which a bundle stores the embedding table: the smallest that costs no ranking."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.config.student import TableType
from raydistill.evaluation.metrics import auc, best_threshold, ndcg

_MOST_LOST = 0.001  # of the AUC and of nDCG@10 on the judged dev split
_BY_SIZE = ("int8", "float16")
_EXACT = "float32"
Scored = tuple[NDArray[np.float32], NDArray[np.float32]]  # scores and labels


class TableFigures(NamedTuple):
    """What a student ranks on the dev split with a type of table; NaN where it cannot be said."""

    auc: float
    ndcg_10: float


class ChosenTable(NamedTuple):
    """The type, the score from which a pair is relevant, and the figures of each type tried."""

    name: str
    threshold: float
    tried: dict[str, TableFigures]

    def lost(self) -> TableFigures:
        """How much the chosen type loses against float32; below 0: it gains."""
        exact, chosen = self.tried[_EXACT], self.tried[self.name]
        return TableFigures(exact.auc - chosen.auc, exact.ndcg_10 - chosen.ndcg_10)


def choose_table(
    wanted: TableType,
    *,
    score: Callable[[str], Scored],
    groups_B: NDArray[np.int64],
    relevant_at: float,
) -> ChosenTable:
    """The type that is wanted; for "auto" the smallest that loses less than 0.001 on dev.

    `score`: scores and labels of the judged dev split with a type of table; `groups_B` numbers the
    queries of its pairs. The AUC and nDCG@10 are compared; where one cannot be computed (one class,
    no query of several pairs) the other decides, and where neither can, "auto" is float32.
    """
    tried: dict[str, TableFigures] = {}
    thresholds: dict[str, float] = {}

    def try_type(name: str) -> TableFigures:
        scores, labels = score(name)
        thresholds[name] = best_threshold(scores, labels, relevant_at=relevant_at)
        ranked = ndcg(scores, labels, groups_B)
        return TableFigures(auc(scores, labels, relevant_at=relevant_at), ranked)

    exact = tried[_EXACT] = try_type(_EXACT)
    wants = (wanted,) if wanted != "auto" else _BY_SIZE if not np.isnan(exact).all() else ()
    for name in wants:
        found = tried[name] = exact if name == _EXACT else try_type(name)
        if wanted != "auto" or _loses_little(found, exact):
            return ChosenTable(name, thresholds[name], tried)
    return ChosenTable(_EXACT, thresholds[_EXACT], tried)


def _loses_little(found: TableFigures, exact: TableFigures) -> bool:
    return all(
        not before - after >= _MOST_LOST for before, after in zip(exact, found, strict=True)
    )  # NaN says nothing
