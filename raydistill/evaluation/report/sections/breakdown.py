"""Parts of the test pairs, and single pairs with what drove a score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from raydistill.evaluation.report.sections.blocks import (
    Block,
    Case,
    Cases,
    Cell,
    Driver,
    Mark,
    Paragraph,
    Row,
    Section,
    Table,
)
from raydistill.evaluation.report.sections.numbers import (
    BASELINE,
    HEADLINES,
    LEAST_PAIRS,
    STUDENT,
    Figure,
    Found,
    figure_of,
    has_interval,
    interval,
    is_agreement,
    is_known,
    metric_name,
    number,
    percent,
    percents,
    reference_of,
)
from raydistill.evaluation.report.sections.quality import axis_of, retention_cell

_MOST_CELLS = 24  # of one slice
_LEAST_QUERIES = 20  # of a cell that the verdict speaks of
_MOST_DRIVERS = 6  # of one case
_DIGITS = 3


def slices_section(found: Found) -> Section | None:
    """Metrics and retention on parts of the test pairs."""
    slices = [one for one in found.get("slices") or [] if one.get("cells")]
    if not slices:
        return None
    keys, kept = _keys(slices, "metrics"), _keys(slices, "retention")
    kept = [] if is_agreement(found) else kept
    names = _shown_scorers(found, slices)
    first = kept[0] if kept else None
    drawn = [
        figure
        for one in slices
        for cell in one["cells"]
        if first and cell["num_pairs"] >= LEAST_PAIRS
        and has_interval(figure := (cell.get("retention") or {}).get(first))
    ]  # fmt: skip
    rows: list[Row] = []
    for one in slices:
        rows += _slice_rows(found, one, names=names, keys=keys[:1], kept=kept)
    head = (
        "part", "pairs", "queries",
        *(f"{metric_name(found, key)} of {name}" for key in keys[:1] for name in names),
        *(f"{metric_name(found, key)} retained" for key in kept),
    )  # fmt: skip
    overall = figure_of(found, STUDENT, first, kind="retention") if first else None
    axis = axis_of(drawn, line=overall["value"] if overall else 1.0)
    note = _note(slices, has_line=axis is not None)
    table = Table("Parts of the test pairs", head, tuple(rows), note=note, axis=axis)
    text = (
        "The same figures on parts of the test pairs, each with its own interval. Among many parts "
        "some are low by chance: look for an interval that stays clear of the whole."
    )
    return Section("slices", "Slices", (Paragraph(text), table))


def _keys(slices: Sequence[Mapping[str, Any]], kind: str) -> list[str]:
    """The headline metrics that some cell has, or another one."""
    have: dict[str, None] = {}
    for one in slices:
        for cell in one["cells"]:
            if kind == "retention":
                have |= dict.fromkeys(cell.get("retention") or {})
            else:
                have |= dict.fromkeys(k for m in cell["metrics"].values() for k in m or {})
    return [key for key in HEADLINES if key in have] or list(have)[:1]


def _shown_scorers(found: Found, slices: Sequence[Mapping[str, Any]]) -> list[str]:
    have = {name for one in slices for cell in one["cells"] for name in cell["metrics"]}
    wanted = (reference_of(found), STUDENT, BASELINE)
    return [name for name in wanted if name in have and name is not None]


def _slice_rows(
    found: Found,
    one: Mapping[str, Any],
    *,
    names: Sequence[str],
    keys: Sequence[str],
    kept: Sequence[str],
) -> Iterator[Row]:
    """A heading, and a row for each cell."""
    cells = one["cells"]
    more = f" ({len(cells) - _MOST_CELLS} more are not shown)" if len(cells) > _MOST_CELLS else ""
    yield (Cell(f"{one['slice']}{more}", (one.get("note") or "").replace("`", "")),)
    for cell in cells[:_MOST_CELLS]:
        mark: Mark = "muted" if cell["num_pairs"] < LEAST_PAIRS else ""
        row = [Cell(text, mark=mark) for text in (
            str(cell["cell"]), f"{cell['num_pairs']:,}", f"{cell['num_queries']:,}")]  # fmt: skip
        for key in keys:
            row += [_metric_cell((cell["metrics"].get(n) or {}).get(key), mark) for n in names]
        for at, key in enumerate(kept):
            figure = (cell.get("retention") or {}).get(key)
            is_drawn = not at and not mark and has_interval(figure)
            row.append(retention_cell(figure, is_drawn=is_drawn, mark=mark))
        yield tuple(row)


def _metric_cell(figure: Figure | None, mark: Mark) -> Cell:
    if figure is None or not is_known(figure):
        return Cell("", mark=mark)
    return Cell(number(figure["value"], _DIGITS), interval(figure, _DIGITS), mark)


def _note(slices: Sequence[Mapping[str, Any]], *, has_line: bool) -> str:
    parts = []
    if any(cell["num_pairs"] < LEAST_PAIRS for one in slices for cell in one["cells"]):
        parts.append(f"Grey, in italics: fewer than {LEAST_PAIRS} pairs, too few to tell anything.")
    if has_line:
        parts.append("The upright line in the pictures is the student on all test pairs.")
    return " ".join(parts)


_KINDS = (
    ("student_lower", "The student scores far lower than the teachers",
     "Look for words that only the teachers understand: synonyms, brands, sizes."),
    ("student_higher", "The student scores far higher than the teachers",
     "Look for titles that share words with the query and are something else."),
    ("student_right", "The student is right where the teachers are wrong",
     "By the label, each against its own threshold; those that both are surest of."),
)  # fmt: skip


def cases_section(found: Found) -> Section | None:
    """Single pairs, and the neighbours of common words."""
    cases = found.get("cases") or {}
    blocks: list[Block] = [
        Cases(title, text, tuple(_case(found, one) for one in cases[key]))
        for key, title, text in _KINDS
        if cases.get(key)
    ]
    if blocks:
        method = cases.get("method") or "attribution"
        text = (
            f"What drove the student's score, by {method}, in logits: to the right or with a plus "
            "towards relevant, to the left or with a minus away from it. The largest first."
        )
        blocks.insert(0, Paragraph(text))
    neighbors = [one for one in cases.get("neighbors") or [] if one.get("neighbors")]
    if neighbors:
        blocks.append(_neighbors_table(neighbors, of=cases.get("neighbors_of") or "embeddings"))
    return Section("cases", "Cases", tuple(blocks)) if blocks else None


def _case(found: Found, one: Mapping[str, Any]) -> Case:
    label = "soft label" if is_agreement(found) else "label"
    facts = [(label, one.get("label")), (STUDENT, one["student"]), ("teachers", one["teacher"])]
    shown = tuple((name, number(value, 2)) for name, value in facts if value is not None)
    drivers = tuple(Driver(d["kind"], d["text"], d["value"]) for d in one.get("drivers") or ())
    return Case(one["query"], one["title"], shown, drivers[:_MOST_DRIVERS], _total(one, drivers))


def _total(one: Mapping[str, Any], drivers: Sequence[Driver]) -> str:
    """The sum: from the baseline over the drivers and all else to the logit of the pair."""
    if any(one.get(key) is None for key in ("logit", "baseline_logit", "rest")):
        return ""
    rest = one["rest"] + sum(driver.value for driver in drivers[_MOST_DRIVERS:])
    start, more, end = (
        number(value, 2, sign=True) for value in (one["baseline_logit"], rest, one["logit"])
    )
    return f"{start} without words, {more} by all else: logit {end}."


def _neighbors_table(neighbors: Sequence[Mapping[str, Any]], *, of: str) -> Table:
    rows = []
    for one in neighbors:
        near = ", ".join(f"{n['text']} ({number(n['cosine'], 2)})" for n in one["neighbors"])
        rows.append((Cell(one["word"]), Cell(f"{one['count']:,}"), Cell(near)))
    note = f"In brackets: the cosine of the two {of}."
    head = ("word", "queries", f"nearest n-grams by the student's {of}")
    return Table(
        "Nearest n-grams of common query words", head, tuple(rows), note=note, is_prose=True
    )


@dataclass(frozen=True)
class WeakestCell:
    """A part of the test pairs of which little was retained."""

    slice_name: str
    cell: str
    key: str  # the metric
    figure: Figure  # its retention
    gap: float  # to the retention of all pairs, below 0
    is_clear: bool  # below that of all pairs, also among as many comparisons

    @property
    def name(self) -> str:
        """`query length: 1 word`."""
        return f"{self.slice_name}: {self.cell}"


def weakest_cells(found: Found) -> list[WeakestCell]:
    """Cells by retention: clearly weak ones first, then by how far they are below all pairs.

    Dozens of cells and metrics are compared, so that of as many 95 % intervals some miss by chance:
    a cell counts as clearly weak only if its interval, widened for that number (Bonferroni, by the
    normal distribution), lies below the retention of all pairs. Cells of few pairs or queries are
    left out, whose intervals are too narrow, and those of all pairs.
    """
    cells = list(_compared_cells(found))
    wider = NormalDist().inv_cdf(1 - 0.025 / max(len(cells), 1)) / NormalDist().inv_cdf(0.975)
    cells = [replace(cell, is_clear=_end(cell, wider=wider) < 0) for cell in cells]
    return sorted(cells, key=lambda cell: (not cell.is_clear, cell.gap))


def _end(cell: WeakestCell, *, wider: float) -> float:
    """The upper end of the widened interval of a cell's gap."""
    return cell.gap + wider * (cell.figure["high"] - cell.figure["value"])


def _compared_cells(found: Found) -> Iterator[WeakestCell]:
    slices = [] if is_agreement(found) else found.get("slices") or []
    for key in _keys(slices, "retention"):
        whole = figure_of(found, STUDENT, key, kind="retention")
        if whole is None:
            continue
        for one in slices:
            for cell in one["cells"]:
                figure = (cell.get("retention") or {}).get(key)
                is_part = LEAST_PAIRS <= cell["num_pairs"] < found["num_pairs"]
                if is_part and cell["num_queries"] >= _LEAST_QUERIES and has_interval(figure):
                    gap = figure["value"] - whole["value"]
                    yield WeakestCell(one["slice"], str(cell["cell"]), key, figure, gap, False)


def cell_text(found: Found, weakest: WeakestCell) -> str:
    """`query length: 1 word, with 95.8% of nDCG@10 retained (94.0 to 97.4%)`."""
    figure = weakest.figure
    kept = f"{percent(figure['value'])} of {metric_name(found, weakest.key)} retained"
    return f"{weakest.name}, with {kept} ({percents(figure)})"
