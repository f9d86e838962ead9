"""Resampled metrics to the figures of metrics.json: values, retention, differences, intervals.

A figure is {"value", "low", "high"}, or None where a scorer has none (one class, no threshold, no
query of several pairs). "low" and "high" are None where no interval can be given: a single query,
over 5 % of the resamples without the figure, the calibration error. Every number is finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raydistill.evaluation.metrics.bootstrap import interval, p_value
from raydistill.evaluation.metrics.catalogue import ABOVE_CHANCE, METRICS
from raydistill.evaluation.metrics.resampling import Resampled

Figure = dict[str, float | None]  # value, low, high


def figure(value: float, resampled_R: NDArray[np.float64]) -> Figure | None:
    """The value with its interval; None if there is no value.

    The interval holds the value, also where the resamples of few queries are all on one side.
    """
    if not math.isfinite(value):
        return None
    found = interval(resampled_R)
    if found is None:
        return {"value": float(value), "low": None, "high": None}
    return {"value": float(value), "low": min(found[0], value), "high": max(found[1], value)}


def metric_figures(scorer: Resampled | None, keys: Sequence[str]) -> dict[str, Figure | None]:
    """Each metric of a scorer."""
    if scorer is None:
        return dict.fromkeys(keys)
    return {
        key: figure(scorer.value[key], scorer.resampled[key]) if key in scorer.value else None
        for key in keys
    }


def retention_figures(
    scorer: Resampled, teacher: Resampled, keys: Sequence[str]
) -> dict[str, Figure | None]:
    """What a scorer keeps of the teacher in each metric, and of the AUC above chance.

    Scorer / teacher, for a loss teacher / scorer, so 1 is all. None for a teacher at or below 0.
    """
    found: dict[str, Figure | None] = {}
    for key in keys:
        if METRICS[key].has_retention:
            found[key] = _ratio_figure(scorer, teacher, key)
        if key == "auc":
            found[ABOVE_CHANCE] = _ratio_figure(scorer, teacher, key, less=0.5)
    return found


def _ratio_figure(
    scorer: Resampled, teacher: Resampled, key: str, *, less: float = 0.0
) -> Figure | None:
    if key not in scorer.value or key not in teacher.value:
        return None
    above, below = (scorer, teacher) if METRICS[key].best == "max" else (teacher, scorer)
    values = [np.append(one.resampled[key], one.value[key]) - less for one in (above, below)]
    ratios = np.full(len(values[0]), np.nan)
    np.divide(values[0], values[1], out=ratios, where=values[1] > 0)
    return figure(float(ratios[-1]), ratios[:-1])


def difference_figures(
    one: Resampled, other: Resampled, keys: Sequence[str]
) -> dict[str, Figure | None]:
    """One's metric minus the other's, with "p": two-sided, of the paired resamples."""
    found: dict[str, Figure | None] = {}
    for key in keys:
        if key not in one.value or key not in other.value:
            found[key] = None
            continue
        differences_R = one.resampled[key] - other.resampled[key]
        entry = figure(one.value[key] - other.value[key], differences_R)
        found[key] = None if entry is None else {**entry, "p": p_value(differences_R)}
    return found
