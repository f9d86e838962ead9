"""Bounds that figures must keep: `--fail-under retention.ndcg_10=0.97`, `--fail-over log_loss=0.6`.

Input: the figures of a report or of a comparison. Output: one line for each figure that falls
short, which makes a command exit with 3.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raydistill.errors import UserError
from raydistill.evaluation.metrics.catalogue import METRICS

UNDER, OVER = "--fail-under", "--fail-over"
# Scopes of a name: `retention.auc`, `difference.auc`; a name without a scope is the student's.
STUDENT, TEACHER, RETENTION = "student", "teacher", "retention"
DIFFERENCE, ONE, OTHER = "difference", "A", "B"
OF_REPORT, OF_COMPARISON = (STUDENT, TEACHER, RETENTION), (DIFFERENCE, ONE, OTHER)
_PERCENT = 2.0  # no figure where more is better has such a value: 1 is all, or all that is kept
_ABOVE_CHANCE = "auc_above_chance"  # a retention that is no metric


@dataclass(frozen=True)
class Bound:
    """The least value of a figure; with `is_most` its greatest."""

    scope: str
    key: str
    value: float
    is_most: bool = False

    @property
    def name(self) -> str:
        """The figure's name with its scope."""
        return f"{self.scope}.{self.key}"

    def shortfall(self, found: Mapping[str, Any] | None) -> str | None:
        """What falls short, in one line; None: the figure keeps the bound.

        A figure without a value, such as that of queries with one kind of labels, keeps none.
        """
        value = None if found is None else found["value"]
        side = "at most" if self.is_most else "at least"
        wanted = f"the bound is {side} {self.value:g}"
        if found is None or value is None or math.isnan(value):
            return f"{self.name} has no value: {wanted}"
        if (value <= self.value) if self.is_most else (value >= self.value):
            return None
        return f"{self.name} = {value:.4f}{_interval(found)}: {wanted}"


def _interval(found: Mapping[str, Any]) -> str:
    low, high = found.get("low"), found.get("high")
    return "" if low is None or high is None else f" (95 % interval {low:.4f} to {high:.4f})"


def read_bounds(
    under: Sequence[str], over: Sequence[str], *, scopes: Sequence[str], default: str | None = None
) -> list[Bound]:
    """The bounds of `--fail-under` and `--fail-over`, each NAME=NUMBER.

    `scopes`: those that a name may have; `default`: that of a name without one.

    Raises:
        UserError: no number, a percentage, an unknown name, or a bound on the wrong side: of a
            figure where less is better only `--fail-over` is allowed, of any other `--fail-under`.
    """
    bounds = []
    for option, texts in ((UNDER, under), (OVER, over)):
        bounds += [_read(option, text, scopes=scopes, default=default) for text in texts]
    return bounds


def _read(option: str, text: str, *, scopes: Sequence[str], default: str | None) -> Bound:
    name, _, number = (part.strip() for part in text.partition("="))
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{option} {text}: give NAME=NUMBER, such as {scopes[-1]}.ndcg_10=0.9")
    scope, dot, key = name.rpartition(".")
    scope = scope if dot else default or ""
    allowed = allowed_names(scopes, default=default)
    if f"{scope}.{key}" not in allowed:
        raise UserError(f"{option} {text}: {unknown(f'{scope}.{key}', allowed)}")
    other = UNDER if option == OVER else OVER
    if _less_is_better(scope, key) != (option == OVER):
        better = "more" if option == OVER else "less"
        raise UserError(f"{option} {text}: of {name} {better} is better; give {other} {text}")
    if option == UNDER and value > _PERCENT:
        raise UserError(f"{option} {text}: figures are shares, not percent; give {value / 100:g}")
    return Bound(scope, key, value, is_most=option == OVER)


def _less_is_better(scope: str, key: str) -> bool:
    """Retention is the share that is kept, of every metric: more is better."""
    return scope != RETENTION and METRICS[key].best == "min"


def allowed_names(scopes: Sequence[str], *, default: str | None = None) -> list[str]:
    """Every name that a bound may have; those of the default scope first."""
    order = sorted(scopes, key=lambda scope: scope != default)
    return [f"{scope}.{key}" for scope in order for key in _keys(scope)]


def _keys(scope: str) -> list[str]:
    if scope != RETENTION:
        return [*METRICS]
    kept = [key for key, metric in METRICS.items() if metric.has_retention]
    return [*kept, _ABOVE_CHANCE]


def unknown(name: str, allowed: Sequence[str]) -> str:
    """The message about a figure that does not exist, with the nearest one and all others."""
    near = difflib.get_close_matches(name, allowed, n=1)
    guess = f"; did you mean {near[0]}?" if near else ";"
    keys: dict[str, list[str]] = {}
    for one in allowed:
        scope, _, key = one.partition(".")
        keys.setdefault(scope, []).append(key)
    scopes: dict[str, list[str]] = {}  # those with the same keys are named together
    for scope, of_scope in keys.items():
        scopes.setdefault(", ".join(of_scope), []).append(f"{scope}.KEY")
    there = "; ".join(f"{', '.join(some)} with {those}" for those, some in scopes.items())
    return f"no figure {name.removeprefix('.')!r}{guess} there are {there}"


def shortfalls(
    figures: Mapping[str, Mapping[str, Any] | None], bounds: Sequence[Bound]
) -> list[str]:
    """A line for each figure that falls short.

    Raises:
        UserError: there is no such figure among these, such as retention without a teacher.
    """
    lines, scopes = [], {name.partition(".")[0] for name in figures}
    for bound in bounds:
        if bound.scope not in scopes:
            raise UserError(unknown(bound.name, list(figures)))
        line = bound.shortfall(figures.get(bound.name))  # no metric of a query where none counts
        lines += [] if line is None else [line]
    return lines


def figures_of_report(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | None]:
    """The figures of metrics.json (schema 2) that may have a bound, by name."""
    scorers = found["scorers"]
    student, teacher = scorers["student"], scorers.get(found.get("teacher"))
    parts = {STUDENT: student["metrics"], RETENTION: student.get("retention") or {}}
    if teacher is not None:
        parts[TEACHER] = teacher["metrics"]
    return _named(parts)


def figures_of_comparison(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | None]:
    """The figures of compare.json that may have a bound, by name."""
    parts = {DIFFERENCE: found["difference"]["metrics"]}
    parts |= {side: found["scorers"][side]["metrics"] for side in (ONE, OTHER)}
    return _named(parts)


def _named(
    parts: Mapping[str, Mapping[str, Mapping[str, Any] | None]],
) -> dict[str, Mapping[str, Any] | None]:
    return {f"{scope}.{key}": one for scope, those in parts.items() for key, one in those.items()}
