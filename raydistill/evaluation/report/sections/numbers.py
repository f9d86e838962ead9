"""Numbers as texts, and the parts of a metrics.json that all sections read.

A figure is `{"value", "low", "high"}`, or None where it could not be measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from raydistill.evaluation.metrics.catalogue import ABOVE_CHANCE, METRICS

Found = Mapping[str, Any]
Figure = Mapping[str, float]
STUDENT, BASELINE = "student", "baseline on judged labels only"
HEADLINES = ("ndcg_10", "query_auc", "auc")  # in the order in which they are said
LEAST_PAIRS = 100  # fewer pairs in a cell are greyed
_LEVEL = 0.05  # of a difference that is called one
MINUS = "\u2212"


def is_agreement(found: Found) -> bool:
    """Whether the labels are the teachers' soft labels, so that figures are agreement."""
    return bool(found["kind"] == "agreement")


def metrics_of(found: Found) -> list[dict[str, Any]]:
    """The metrics with the names that the report shows, those within a query first."""
    renamed = {"accuracy": "same decision"} if is_agreement(found) else {}
    shown = [{**one, "name": renamed.get(one["key"], one["name"])} for one in found["metrics"]]
    return sorted(shown, key=lambda one: one["of"] != "queries")


def metric_name(found: Found, key: str) -> str:
    """The shown name of a metric."""
    names = {one["key"]: one["name"] for one in metrics_of(found)}
    return str(names.get(key) or known_name(key))


def known_name(key: str) -> str:
    """The name of a metric that the report need not have."""
    if key in METRICS:
        return METRICS[key].name
    return {ABOVE_CHANCE: "AUC above chance", "kappa": "Cohen's kappa"}.get(
        key, key.replace("_", " ")
    )


def headlines(found: Found) -> list[str]:
    """The metrics that the verdict is about: those that this report has."""
    have = {one["key"] for one in found["metrics"]}
    return [key for key in HEADLINES if key in have]


def reference_of(found: Found) -> str | None:
    """The scorer that retention divides by; None if it has no row."""
    return found["teacher"] if found.get("teacher") in found["scorers"] else None


def figure_of(found: Found, scorer: str, key: str, *, kind: str = "metrics") -> Figure | None:
    """A metric or a retention of a scorer; None if there is none."""
    entry = found["scorers"].get(scorer) or {}
    figure = (entry.get(kind) or {}).get(key)
    return figure if is_known(figure) else None


def is_known(figure: Figure | None) -> TypeGuard[Figure]:
    """Whether a figure has a finite value."""
    return figure is not None and figure.get("value") is not None and math.isfinite(figure["value"])


def has_interval(figure: Figure | None) -> TypeGuard[Figure]:
    """Whether a figure has finite ends of an interval."""
    ends = [None if figure is None else figure.get(name) for name in ("low", "high")]
    return all(end is not None and math.isfinite(end) for end in ends)


def with_pairs(name: str, entry: Mapping[str, Any], *, num_all: int) -> str:
    """A scorer's name, with the number of its pairs where that is not all."""
    num_pairs = entry.get("num_pairs", num_all)
    return name if num_pairs == num_all else f"{name} (of {num_pairs:,} pairs)"


def decimals(figures: Iterable[Figure | None]) -> int:
    """Decimals for a column: two digits of the half width of the median interval, 2 to 4."""
    widths = sorted(f["high"] - f["low"] for f in figures if f is not None and has_interval(f))
    half = widths[len(widths) // 2] / 2 if widths else 0.0
    return 4 if half <= 0 else min(max(math.ceil(-math.log10(half)) + 1, 2), 4)


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """A number with a true minus; `sign`: a plus too."""
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if not float(text):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def interval(figure: Figure | None, digits: int, *, sign: bool = False) -> str:
    """`0.748 to 0.773`; empty without an interval."""
    if figure is None or not has_interval(figure):
        return ""
    low, high = (number(figure[end], digits, sign=sign) for end in ("low", "high"))
    return f"{low} to {high}"


def percent(value: float, digits: int = 1) -> str:
    """`98.7%`."""
    return f"{number(100 * value, digits)}%"


def percents(figure: Figure | None) -> str:
    """`98.1 to 99.2%`; empty without an interval."""
    if figure is None or not has_interval(figure):
        return ""
    return f"{100 * figure['low']:.1f} to {percent(figure['high'])}"


def speed(us_per_pair: float | None) -> str:
    """Microseconds: 7.9, 48, 4,140."""
    if us_per_pair is None:
        return ""
    return f"{us_per_pair:,.{1 if us_per_pair < 20 else 0}f}"


def p_value(value: float | None, *, num_resamples: int) -> str:
    """`p = 0.012`; the least that resamples can tell, 2 / (resamples + 1), is said as such."""
    if value is None:
        return ""
    least = 2 / (num_resamples + 1)
    return f"p \u2264 {least:.1g}" if value < 1.001 * least else f"p = {value:.3f}"


def count(num: float, noun: str) -> str:
    """`1 pair`, `1,048 queries`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{num:,.0f} {noun if num == 1 else plural}"


def listed(texts: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = list(texts)
    return f"{', '.join(first)} and {last}" if first else last


def is_better(figure: Figure | None, *, lower_is_better: bool) -> bool | None:
    """Whether a difference is good (True) or bad (False): the interval has no 0, p < 0.05."""
    if not has_interval(figure) or figure["low"] <= 0 <= figure["high"]:
        return None
    if (figure.get("p") or 0.0) >= _LEVEL:
        return None
    return (figure["low"] > 0) != lower_is_better


def lower_is_better(found: Found) -> set[str]:
    """The metrics of which less is better."""
    return {one["key"] for one in found["metrics"] if one["best"] == "min"}
