"""The short table at the end of `distill`."""

from __future__ import annotations

from collections.abc import Iterator

from raydistill.evaluation.markup import plain, text_table
from raydistill.evaluation.report.sections.numbers import (
    Found,
    figure_of,
    has_interval,
    is_agreement,
    metrics_of,
    speed,
)

_WIDTH = 119  # characters
_SHOWN = ("ndcg_10", "query_auc", "auc", "spearman", "accuracy", "log_loss")
_KEPT = ("ndcg_10", "auc")
_HEADS = {
    "ndcg_10": ("", "nDCG@10"),
    "query_auc": ("AUC per", "query"),
    "auc": ("", "AUC"),
    "spearman": ("", "Spearman"),
    "accuracy": ("", "accuracy"),
    "log_loss": ("log", "loss"),
}
_LEAST_NAME = 16
_TITLE = "agreement with the teachers; nothing is known about rightness"


def console_table(found: Found) -> str:
    """The main figures as aligned text, under 120 characters a line."""
    heads, rows = _heads(found), _rows(found)
    figures = [("", *row) for row in (*heads, *rows.values())]
    width = max(len(line) for line in text_table(figures).splitlines())
    longest = max(_WIDTH - width, _LEAST_NAME)
    shown = [("", *head) for head in heads]
    for name, row in rows.items():
        mark = " *" if _is_partial(found, name) else ""
        shown.append((_cut(plain(name), longest - len(mark)) + mark, *row))
    lines = [_TITLE, text_table(shown)] if is_agreement(found) else [text_table(shown)]
    return "\n".join([*lines, *_notes(found)])


def _is_partial(found: Found, name: str) -> bool:
    entry = found["scorers"][name]
    return bool(entry.get("num_pairs", found["num_pairs"]) != found["num_pairs"])


def _notes(found: Found) -> Iterator[str]:
    """On how many pairs each partial scorer was measured."""
    for name, entry in found["scorers"].items():
        if _is_partial(found, name):
            text = f"on {entry['num_pairs']:,} of {found['num_pairs']:,} pairs: {plain(name)}"
            yield _cut(f"* {text}", _WIDTH)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _shown(found: Found) -> tuple[list[str], list[str]]:
    """The metrics of the table, and those whose retention is in it."""
    have = {one["key"] for one in metrics_of(found)}
    keys = [key for key in _SHOWN if key in have and (key != "spearman" or is_agreement(found))]
    if is_agreement(found):
        return keys, []
    names = list(found["scorers"])
    return keys, [key for key in _KEPT if any(_retained(found, name, key) for name in names)]


def _heads(found: Found) -> list[tuple[str, ...]]:
    """Two lines of heads."""
    keys, kept = _shown(found)
    named = {**_HEADS, **({"accuracy": ("same", "decision")} if is_agreement(found) else {})}
    columns = [named[key] for key in keys]
    columns += [("% retained of", named[key][1]) for key in kept] + [("", "µs/pair")]
    return [tuple(column[line] for column in columns) for line in (0, 1)]


def _rows(found: Found) -> dict[str, tuple[str, ...]]:
    """The figures of each scorer."""
    keys, kept = _shown(found)
    rows: dict[str, tuple[str, ...]] = {}
    for name, entry in found["scorers"].items():
        figures = (figure_of(found, name, key) for key in keys)
        cells = ["" if figure is None else f"{figure['value']:.4f}" for figure in figures]
        is_teacher = entry.get("role") in ("teacher", "ensemble")
        cells += ["" if is_teacher else _retained(found, name, key) for key in kept]
        rows[name] = (*cells, speed(entry.get("us_per_pair")))
    return rows


def _retained(found: Found, name: str, key: str) -> str:
    """`98.7 98.1-99.2`."""
    figure = figure_of(found, name, key, kind="retention")
    if figure is None:
        return ""
    ends = f" {100 * figure['low']:.1f}-{100 * figure['high']:.1f}" if has_interval(figure) else ""
    return f"{100 * figure['value']:.1f}{ends}"
