"""Rows in quarantine to what is said of them: their reasons, most frequent first, with examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_MOST_REASONS = 10
_SHOWN_CHARS = 60
_FEW = 5  # so many bad rows stop nothing, unless they are most of a small file


def count_reasons(tables: Iterable[pa.Table]) -> list[dict[str, Any]]:
    """Each reason with its number of rows and one example, most frequent first."""
    counts: Counter[str] = Counter()
    examples: dict[str, dict[str, Any]] = {}
    for table in tables:
        for found in table["reason"].value_counts().to_pylist():
            counts[found["values"]] += found["counts"]
            if found["values"] not in examples:
                first = table.filter(pc.equal(table["reason"], found["values"])).slice(0, 1)
                examples[found["values"]] = first.to_pylist()[0]
    most = counts.most_common(_MOST_REASONS)
    return [{**examples[reason], "rows": rows} for reason, rows in most]


def are_too_many(num_bad: int, num_rows: int, max_bad_fraction: float) -> bool:
    """Whether so many rows cannot be used that the file must be another than was meant."""
    is_more = num_bad > max_bad_fraction * num_rows
    return is_more and (num_bad > _FEW or 2 * num_bad > num_rows)


def commonest(reasons: list[dict[str, Any]]) -> str:
    """The commonest reason, with the row that is its example; "" where there is none."""
    if not reasons:
        return ""
    first = reasons[0]
    line = first.get("line")
    place = f"row {first['row']:,}" if line is None else f"line {line:,}"
    texts = [f"{name} {_shown(first[name])}" for name in ("query", "title") if first.get(name)]
    shown = f": {', '.join(texts)}" if texts else ""
    return (
        f'the commonest reason, of {first["rows"]:,} rows: "{first["reason"]}", as {place} of '
        f"{first['source']}{shown}"
    )


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…")
