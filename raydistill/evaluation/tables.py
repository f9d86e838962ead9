"""The results of `inspect` as tables of text or Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raydistill.evaluation.markup import markdown_table, text_table
from raydistill.files.schema import COUNTS

_MAX_SHOWN = 60  # characters of a text in a table


def data_text(found: dict[str, Any]) -> str:
    """The results of `dataset_stats` for the console."""
    parts = [f"{title}\n{text_table(rows)}" for title, rows in data_tables(found)]
    return "\n\n".join([*parts, *data_notes(found)])


def data_markdown(found: dict[str, Any]) -> str:
    """The results of `dataset_stats` as a section of the report."""
    parts = [f"### {title}\n\n{markdown_table(rows)}" for title, rows in data_tables(found)]
    return "\n\n".join(["## The data", *parts, *data_notes(found)])


_Table = tuple[str, list[tuple[str, ...]]]  # (title, rows); the first row is the head


def data_tables(found: dict[str, Any]) -> list[_Table]:
    """Titles and rows of the tables."""
    tables = [_rows_table(found), _pairs_table(found), _lengths_table(found)]
    tables += [_overlap_table(found)] if found.get("overlap") else []
    tables += [_rejects_table(found)] if any(found["rejects"].values()) else []
    return [*tables, _sample_table(found)]


def _rows_table(found: dict[str, Any]) -> _Table:
    head = ("", *(name.replace("_", " ") for name in COUNTS))
    names = {name: name.replace("_", " ") for name in found["rows"]}
    rows = [(names[n], *(f"{counts[c]:,}" for c in COUNTS)) for n, counts in found["rows"].items()]
    return "Rows", [head, *rows]


def _pairs_table(found: dict[str, Any]) -> _Table:
    rows: list[tuple[str, ...]] = [("", "read", "queries", "titles", "rows a pair", "relevant")]
    for name, one in found["datasets"].items():
        counts = (f"{one[key]:,}" for key in ("pairs_read", "queries", "titles_read"))
        relevant = f"{one['relevant_share']:.1%}" if "relevant_share" in one else ""
        rows.append((name, *counts, f"{one['rows_a_pair']:.2f}", relevant))
    return "Pairs", rows


def _lengths_table(found: dict[str, Any]) -> _Table:
    rows = [
        (f"{name}, {unit} of {text}", *(f"{value:,}" for value in values))
        for name, one in found["datasets"].items()
        for unit in ("words", "wordpieces")
        for text, values in one.get(unit, {}).items()
    ]
    return "Lengths", [("", "median", "95 %", "longest"), *rows]


def _overlap_table(found: dict[str, Any]) -> _Table:
    shares = found["overlap"].items()
    rows = [(name, f"{one['queries']:.1%}", f"{one['pairs']:.1%}") for name, one in shares]
    title = "Queries and pairs of the splits that are in the transfer set as well"
    return title, [("", "queries", "pairs"), *rows]


def _rejects_table(found: dict[str, Any]) -> _Table:
    rows = [
        (one["reason"], f"{one['rows']:,}", name, short(one["query"]), short(one["title"]))
        for name, those in found["rejects"].items()
        for one in those
    ]
    return "Rejects", [("reason", "rows", "in", "query", "title"), *rows]


def _sample_table(found: dict[str, Any]) -> _Table:
    rows = [
        (short(row["title"]), short(row["query"]), _label(row), name)
        for name, one in found["datasets"].items()
        for row in one["sample"]
    ]
    return "Some pairs", [("title", "query", "label", "in"), *rows]


def data_notes(found: dict[str, Any]) -> Iterator[str]:
    """What the tables leave out."""
    share = min(one["share_read"] for one in found["datasets"].values())
    if share < 1:
        yield (
            f"{share:.1%} of the pairs were read. The number of queries is scaled to all of them "
            "(not where pairs.dedupe is off); all else is of the pairs read."
        )
    if found.get("are_rejects_cut"):
        yield "Rejects are those of the first files in quarantine."
    if found.get("is_cut"):
        yield "Only the first rows were read."


def _label(row: dict[str, Any]) -> str:
    return f"{row['label']:.2f}" if "label" in row else ""


def short(text: str | None) -> str:
    """One line of at most 60 characters."""
    text = " ".join((text or "").split())
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
