"""A comparison of two students, as text for the console and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raydistill.evaluation.markup import escaped, markdown_table, text_table

_SHOWN_ON_CONSOLE = 5  # queries in each direction
_MAX_CHARS = 60  # of a text in a table of Markdown
_CONSOLE_CHARS = {"query": 24, "title": 36}  # so that a row has at most 119


def comparison_text(found: Mapping[str, Any]) -> str:
    """The table of metrics, and the queries that moved most, for the console."""
    parts = [_sides_text(found), text_table(_metric_rows(found))]
    if found["moved"] is not None:
        parts.append(_counts_text(found["moved"]))
        for direction in ("better", "worse"):
            cases = found["moved"]["queries"][direction][:_SHOWN_ON_CONSOLE]
            if cases:
                parts.append(f"most {direction} in B\n{text_table(_moved_rows(found, cases))}")
    return "\n\n".join(parts)


def comparison_markdown(found: Mapping[str, Any]) -> str:
    """compare.md: as the console, with all queries and the ranks of their titles."""
    lines = ["# Comparison", "", *_sides_markdown(found), "", markdown_table(_metric_rows(found))]
    lines += ["", _about(found)]
    moved = found["moved"]
    if moved is None:
        return "\n".join(lines) + "\n"
    lines += ["", "## Queries", "", _counts_text(moved)]
    for direction in ("better", "worse"):
        cases = moved["queries"][direction]
        lines += ["", f"### Most {direction} in B", ""] if cases else []
        for case in cases:
            lines += [_case_head(moved, case), "", markdown_table(_title_rows(case)), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _sides_text(found: Mapping[str, Any]) -> str:
    sides = [f"{name}  {one['path']} ({one['kind']})" for name, one in found["sides"].items()]
    return "\n".join([*sides, _pairs_text(found)])


def _sides_markdown(found: Mapping[str, Any]) -> list[str]:
    sides = [
        f"- {name}: {escaped(one['path'])} ({one['kind']})" for name, one in found["sides"].items()
    ]
    return [*sides, "", _pairs_text(found)]


def _pairs_text(found: Mapping[str, Any]) -> str:
    both = f"{found['num_pairs']:,} judged pairs of {found['num_queries']:,} queries"
    counts = {name: one["num_pairs"] for name, one in found["sides"].items()}
    text = f"{both}, relevant from a label of {found['relevant_at']:g}"
    if set(counts.values()) == {found["num_pairs"]}:
        return text
    each = " and ".join(f"{num:,} of {name}" for name, num in counts.items())
    return f"{text}: those in the test splits of both ({each})"


def _about(found: Mapping[str, Any]) -> str:
    drawn = found["bootstrap"]
    return (
        f"Intervals of 95 % and p from {drawn['resamples']:,} resamples of the queries, the same "
        "for A and B. Accuracy: at the threshold of each bundle. Of log loss and calibration "
        "error less is better; of all others more. nDCG counts queries with different labels, the "
        "other metrics of a query those with both kinds of titles."
    )


def _metric_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("", "A", "B", "B - A", "95 % interval", "p")]
    difference = found["difference"]["metrics"]
    for metric in found["metrics"]:
        key = metric["key"]
        sides = (_value(found["scorers"][side]["metrics"].get(key)) for side in ("A", "B"))
        rows.append((metric["name"], *sides, *_difference_cells(difference.get(key))))
    return rows


def _value(one: Mapping[str, Any] | None) -> str:
    return "" if one is None or one["value"] is None else f"{one['value']:.4f}"


def _difference_cells(one: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if one is None or one["value"] is None:
        return "", "", ""
    interval = f"{one['low']:+.4f} to {one['high']:+.4f}" if one["low"] is not None else ""
    p = one.get("p")
    return f"{one['value']:+.4f}", interval, "" if p is None else f"{p:.3f}"


def _counts_text(moved: Mapping[str, Any]) -> str:
    counts = {name: f"{moved[name]:,}" for name in ("better", "worse", "equal", "left_out")}
    why = {"ndcg_10": "all their labels are equal", "query_auc": "they lack one kind of titles"}
    return (
        f"queries by {moved['name']}: better in B {counts['better']}, worse {counts['worse']}, "
        f"equal {counts['equal']}; {counts['left_out']} queries are left out: {why[moved['by']]}"
    )


def _moved_rows(
    found: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]
) -> list[tuple[str, ...]]:
    """A table of queries: the metric before and after, and the title that comes first."""
    name = found["moved"]["name"]
    rows: list[tuple[str, ...]] = [("query", f"{name} A", "B", "first title in A", "in B")]
    for case in cases:
        first = (_first_title(case, side) for side in ("before", "after"))
        values = (f"{case[side]:.3f}" for side in ("before", "after"))
        query = _short(case["query"], most=_CONSOLE_CHARS["query"])
        rows.append((query, *values, *first))
    return rows


def _first_title(case: Mapping[str, Any], side: str) -> str:
    title = next((one["title"] for one in case["titles"] if one[side] == 1), "")
    return _short(title, most=_CONSOLE_CHARS["title"])


def _case_head(moved: Mapping[str, Any], case: Mapping[str, Any]) -> str:
    return (
        f"**{escaped(case['query'])}**: {moved['name']} {case['before']:.3f} to "
        f"{case['after']:.3f}, {case['num_pairs']} pairs"
    )


def _title_rows(case: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("title", "label", "rank in A", "in B")]
    for one in case["titles"]:
        ranks = (str(one[side]) for side in ("before", "after"))
        rows.append((_short(one["title"]), f"{one['label']:.2f}", *ranks))
    return rows


def _short(text: str, *, most: int = _MAX_CHARS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
