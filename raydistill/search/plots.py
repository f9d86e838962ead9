"""SVG plots of the trials: the metric against each setting, and the Pareto front.

Requires matplotlib but no display: figures are made without pyplot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from raydistill.evaluation.markup import drawn, to_svg
from raydistill.search.results import (
    FINISHED,
    US_PER_PAIR,
    Trial,
    flat_settings,
    pareto,
    ranked,
    shown_name,
)

_COLUMNS = 3
_LOG_FROM = 20.0  # log scale from this ratio of the highest to the lowest value


def draw(trials: Sequence[Trial], *, metric: str) -> dict[str, bytes]:
    """SVG bytes by file name; the same trials give the same bytes."""
    shown = ranked(trials, metric=metric)
    if not shown:
        return {}
    found = {"settings.svg": _settings(shown, metric=metric)}
    if all(US_PER_PAIR in trial.metrics for trial in shown):
        found["front.svg"] = _front(shown, metric=metric)
    return {name: to_svg(figure) for name, figure in found.items()}


def _axes_of(trials: Sequence[Trial]) -> dict[str, tuple[NDArray[np.float64], list[str]]]:
    """Values and tick names of each setting that differs between trials; a choice is its index."""
    rows = [flat_settings(trial.settings) for trial in trials]
    found: dict[str, tuple[NDArray[np.float64], list[str]]] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            places, ticks = np.asarray(values, np.float64), []
        else:
            names = [drawn(str(value)) for value in values]
            ticks = sorted(set(names))
            places = np.asarray([ticks.index(name) for name in names], np.float64)
        if np.ptp(places) > 0:
            found[name] = places, ticks
    return found


def _settings(trials: Sequence[Trial], *, metric: str) -> Figure:
    """The metric against each setting, in one panel each; stopped trials are pale."""
    axes = _axes_of(trials)
    num_rows = -(-max(len(axes), 1) // _COLUMNS)
    figure = Figure(figsize=(4 * _COLUMNS, 3 * num_rows), layout="constrained")
    values = np.asarray([trial.metrics[metric] for trial in trials])
    is_whole = np.asarray([trial.state == FINISHED for trial in trials])
    for at, (name, (places, ticks)) in enumerate(axes.items()):
        panel = figure.add_subplot(num_rows, _COLUMNS, at + 1)
        panel.scatter(places[~is_whole], values[~is_whole], s=18, color="#9ab8d8", label="stopped")
        panel.scatter(places[is_whole], values[is_whole], s=18, color="#1f4e8c", label="finished")
        _scale(panel, places, ticks)
        panel.set_xlabel(name)
        panel.set_ylabel(shown_name(metric))
        if not at:
            panel.legend(fontsize="small")
    return figure


def _scale(panel: Axes, places: NDArray[np.float64], ticks: list[str]) -> None:
    if ticks:
        panel.set_xticks(range(len(ticks)), ticks, fontsize="small")
    elif places.min() > 0 and places.max() / places.min() >= _LOG_FROM:
        panel.set_xscale("log")


def _front(trials: Sequence[Trial], *, metric: str) -> Figure:
    """The metric against µs/pair, with the Pareto front highlighted."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    panel = figure.add_subplot()
    best = pareto(trials, metric=metric)
    for some, style in ((trials, {"s": 18, "color": "#9ab8d8"}), (best, {"color": "#1f4e8c"})):
        points: list[Any] = [(t.metrics[US_PER_PAIR], t.metrics[metric]) for t in some]
        panel.scatter(*zip(*points, strict=True), **style)
    panel.set_xlabel("µs/pair")
    panel.set_ylabel(shown_name(metric))
    return figure
