"""The figures of scorers on parts of the pairs: unseen queries, long ones, those of one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.resampling import Unit, resample
from raydistill.evaluation.scoreboard.intervals import metric_figures, retention_figures
from raydistill.evaluation.scoreboard.scored_pairs import Mask, ScoredPairs

METRICS_OF_SLICES = ("auc", "ndcg_10", "query_auc")


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
    shown. The queries that are drawn are those of all pairs, as in `scoreboard`.
    """
    names = [name for name in shown if name in scored.scores]
    has_retention = student in names and reference in names and student != reference
    wanted = [frozenset({name}) & scored.partial for name in names]
    if has_retention:
        wanted.append(frozenset({student, str(reference)}) & scored.partial)
    shared = list(dict.fromkeys(wanted))
    cells = [(title, cell, mask) for title, of in masks.items() for cell, mask in of.items()]

    def unit(mask: Mask, partial: frozenset[str]) -> Unit:
        mine = [name for name in names if not ({name} & scored.partial) - partial]
        return scored.unit(mine, mask & scored.scored_by(partial), keys=metrics)

    units = [unit(mask, partial) for _, _, mask in cells for partial in shared]
    found = resample(units, num_queries=scored.num_queries, draws=draws or Draws())
    out: dict[str, list[dict[str, Any]]] = {title: [] for title in masks}
    for at, (title, cell, mask) in enumerate(cells):
        mine = found[at * len(shared) : (at + 1) * len(shared)]
        of = dict(zip(shared, mine, strict=True))
        both = of[wanted[-1]] if has_retention else None
        entry = {
            "cell": cell,
            "num_pairs": int(np.sum(mask)),
            "num_queries": len(np.unique(scored.queries_B[mask])),
            "metrics": {
                name: metric_figures(of[partial][name], metrics)
                for name, partial in zip(names, wanted, strict=False)
            },
            "retention": (
                retention_figures(both[student], both[str(reference)], metrics) if both else {}
            ),
        }
        out[title].append(entry)
    return [{"slice": title, "note": None, "cells": entries} for title, entries in out.items()]
