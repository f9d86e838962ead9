"""The form in which a bundle stores a student: the smallest that costs no ranking on dev."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.config.student import ExportConfig
from raydistill.evaluation.metrics.pair_metrics import ranking
from raydistill.evaluation.metrics.query_metrics import ndcg
from raydistill.evaluation.metrics.thresholds import best_threshold

_MOST_LOST = 0.001  # of the ranking and of nDCG@10 on the dev split
_SHARES = (4, 2)  # of the columns: a quarter, a half
Scored = tuple[NDArray[np.float32], NDArray[np.float32]]  # scores and labels


class Form(NamedTuple):
    """Types of the table (and of the word vectors with it) and of the hidden layers; columns."""

    table: str
    columns: int
    layers: str

    def __str__(self) -> str:
        """For the log and the model card."""
        return f"table {self.table} of {self.columns} columns, layers {self.layers}"


class RankFigures(NamedTuple):
    """What a student ranks on the dev split in a form; NaN where it cannot be said."""

    ranking: float  # AUC; without judged dev pairs the agreement with the teachers
    ndcg_10: float


class ChosenForm(NamedTuple):
    """The form, the score from which a pair is relevant, and the figures of each form tried.

    The first one tried is exact: float32 with all columns.
    """

    form: Form
    threshold: float
    tried: dict[Form, RankFigures]

    def lost(self) -> RankFigures:
        """How much the chosen form loses against the exact one; below 0: it gains."""
        exact, chosen = next(iter(self.tried.values())), self.tried[self.form]
        return RankFigures(exact.ranking - chosen.ranking, exact.ndcg_10 - chosen.ndcg_10)


def exact_form(columns: int) -> Form:
    """The form that stores a student with `columns` as it was trained."""
    return Form("float32", columns, "float32")


def choose_form(
    wanted: ExportConfig,
    *,
    columns: int,
    score: Callable[[Form], Scored],
    groups_B: NDArray[np.int64],
    relevant_at: float | None,
) -> ChosenForm:
    """The form that is wanted; where it says "auto" the smallest that loses less than 0.001 on dev.

    One part after the other: the table's type, its columns, the layers' type. What is given is
    taken; of an "auto" the first that, with what is chosen before it, loses little. The ranking and
    nDCG@10 are compared with the exact form; where one cannot be computed (one class, no query of
    several pairs) the other decides, and where neither can, "auto" changes nothing.

    `score`: scores and labels of the dev split in a form; `columns`: those of the student;
    `groups_B` numbers the queries of the pairs of dev.
    """
    dev = _Dev(score, groups_B, relevant_at)
    form = exact_form(columns)
    exact = dev.figures(form)
    for part, given, smaller in _parts(wanted, columns):
        if given != "auto":
            form = form._replace(**{part: given})
        elif not np.isnan(exact).all():
            options = (form._replace(**{part: value}) for value in smaller)
            form = next((one for one in options if _loses_little(dev.figures(one), exact)), form)
    dev.figures(form)
    return ChosenForm(form, dev.thresholds[form], dev.tried)


@dataclass
class _Dev:
    """The dev split, and what the forms that were tried rank on it."""

    score: Callable[[Form], Scored]
    groups_B: NDArray[np.int64]
    relevant_at: float | None
    tried: dict[Form, RankFigures] = field(default_factory=dict)
    thresholds: dict[Form, float] = field(default_factory=dict)

    def figures(self, form: Form) -> RankFigures:
        """Of a form; computed once."""
        if form not in self.tried:
            scores, labels = self.score(form)
            has_label = ~np.isnan(labels)
            scores, labels = scores[has_label], labels[has_label]
            at = self.relevant_at
            self.thresholds[form] = best_threshold(scores, labels, relevant_at=at)
            ranked = ndcg(scores, labels, self.groups_B[has_label])
            self.tried[form] = RankFigures(ranking(scores, labels, relevant_at=at), ranked)
        return self.tried[form]


def _parts(wanted: ExportConfig, columns: int) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Each part of a form: its name, what is wanted, and what "auto" tries, the smallest first.

    Beside a table that is to stay exact nothing else is tried.
    """
    fewer = tuple(columns // share for share in _SHARES if columns >= share)
    given = wanted.columns if wanted.columns == "auto" else min(wanted.columns, columns)
    is_exact = wanted.table == "float32"
    yield "table", wanted.table, ("int8", "float16")
    yield "columns", given, () if is_exact else fewer
    yield "layers", wanted.layers, () if is_exact else ("int8",)


def _loses_little(found: RankFigures, exact: RankFigures) -> bool:
    return all(
        not before - after >= _MOST_LOST for before, after in zip(exact, found, strict=True)
    )  # NaN says nothing
