"""The figures of scorers on parts of the pairs: unseen queries, long ones, those of one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.resampling import Resampled, Unit, resample
from raydistill.evaluation.scoreboard.intervals import Figure, metric_figures, retention_figures
from raydistill.evaluation.scoreboard.scored_pairs import Mask, ScoredPairs

METRICS_OF_SLICES = ("auc", "ndcg_10", "query_auc")
_FEWEST_QUERIES = 5  # of a cell: percentiles of the resamples of fewer queries say nothing
_Measured = Mapping[str, Resampled]


def slice_figures(
    scored: ScoredPairs,
    *,
    masks: Mapping[str, Mapping[str, Mask]],
    shown: Sequence[str],
    reference: str | None,
    student: str = "student",
    draws: Draws | None = None,
    metrics: Sequence[str] = METRICS_OF_SLICES,
) -> list[dict[str, Any]]:
    """Metrics of the shown scorers in each cell of each slice, and the student's retention there.

    `masks`: by the name of a slice and of a cell, the pairs of the cell (bool, one a pair); cells
    may overlap and need not hold all pairs. Retention is `student` against `reference`, if both are
    shown. The queries that are drawn are those of all pairs, as in `scoreboard`. A cell
    with fewer than 5 queries has no intervals.
    """
    names = [name for name in shown if name in scored.scores]
    has_retention = student in names and reference in names and student != reference
    pair = (student, str(reference)) if has_retention else None
    plan = _Plan(scored, tuple(names), pair, tuple(metrics))
    cells = [(title, cell, mask) for title, of in masks.items() for cell, mask in of.items()]
    groups = plan.groups
    units = [plan.unit(mask, partial) for _, _, mask in cells for partial in groups]
    found = resample(units, num_queries=scored.num_queries, draws=draws or Draws())
    out: dict[str, list[dict[str, Any]]] = {title: [] for title in masks}
    for at, (title, cell, mask) in enumerate(cells):
        mine = found[at * len(groups) : (at + 1) * len(groups)]
        of = dict(zip(groups, mine, strict=True))
        out[title].append({"cell": cell, **plan.figures(mask, of)})
    return [{"slice": title, "note": None, "cells": entries} for title, entries in out.items()]


@dataclass(frozen=True)
class _Plan:
    """What is measured in each cell; `pair`: the scorers whose ratio is the retention."""

    scored: ScoredPairs
    names: tuple[str, ...]
    pair: tuple[str, str] | None
    metrics: tuple[str, ...]

    @property
    def groups(self) -> list[frozenset[str]]:
        """The sets of partial scorers whose common pairs are measured, each once."""
        wanted = [self._partial(name) for name in self.names]
        return list(dict.fromkeys([*wanted, *([self._partial(*self.pair)] if self.pair else [])]))

    def _partial(self, *names: str) -> frozenset[str]:
        return frozenset(names) & self.scored.partial

    def unit(self, mask: Mask, partial: frozenset[str]) -> Unit:
        """The pairs of a cell that the `partial` scorers score, and the scorers of all of them."""
        mine = [name for name in self.names if self._partial(name) <= partial]
        return self.scored.unit(mine, mask & self.scored.scored_by(partial), keys=self.metrics)

    def figures(self, mask: Mask, of: Mapping[frozenset[str], _Measured]) -> dict[str, Any]:
        """The counts and figures of a cell; `of`: what was measured on the pairs of each group."""
        metrics, retention = {}, dict[str, Figure | None]()
        for name in self.names:
            figures = metric_figures(of[self._partial(name)][name], self.metrics)
            metrics[name] = self._checked(figures, mask, name)
        if self.pair:
            student, reference = (of[self._partial(*self.pair)][name] for name in self.pair)
            figures = retention_figures(student, reference, self.metrics)
            retention = self._checked(figures, mask, *self.pair)
        return {
            "num_pairs": int(np.sum(mask)),
            "num_queries": self._num_queries(mask),
            "metrics": metrics,
            "retention": retention,
        }

    def _checked(
        self, figures: dict[str, Figure | None], mask: Mask, *names: str
    ) -> dict[str, Figure | None]:
        """The figures, without intervals where too few queries have scores of all `names`."""
        if self._num_queries(mask & self.scored.scored_by(names)) >= _FEWEST_QUERIES:
            return figures
        return {
            key: None if one is None else {"value": one["value"], "low": None, "high": None}
            for key, one in figures.items()
        }

    def _num_queries(self, mask: Mask) -> int:
        return len(np.unique(self.scored.queries_B[mask]))
