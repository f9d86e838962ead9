"""The report as Markdown: the sections of the page in text; a chart is its table of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raydistill.evaluation.markup import escaped, markdown_table
from raydistill.evaluation.report.sections.blocks import (
    Block,
    Bullets,
    Case,
    Cases,
    Cell,
    Charts,
    Heading,
    Paragraph,
    Picture,
    Section,
    Table,
    Terms,
    Verdict,
)
from raydistill.evaluation.report.sections.numbers import Found, number
from raydistill.evaluation.report.sections.outline import sections
from raydistill.evaluation.report.sections.process import search_blocks
from raydistill.evaluation.report.sections.verdict import verdict


def markdown(found: Found) -> str:
    """The whole report."""
    parts = ["# Report", *_verdict_parts(verdict(found))]
    for section in sections(found):
        parts += _section_parts(section)
    return "\n\n".join(parts) + "\n"


def tune_markdown(tune: dict[str, Any]) -> str:
    """A search's results, without the section's heading."""
    return "\n\n".join(part for block in search_blocks(tune) for part in _parts(block)) + "\n"


def section_markdown(section: Section) -> str:
    """One section with its heading."""
    return "\n\n".join(_section_parts(section)) + "\n"


def _section_parts(section: Section) -> list[str]:
    blocks = (part for block in section.blocks for part in _parts(block))
    return [f"## {escaped(section.title)}", *blocks]


def _verdict_parts(said: Verdict) -> Iterator[str]:
    yield f"**{escaped(said.headline)}.**"
    yield escaped(said.basis)
    findings = (f"- {escaped(one.question)}: {escaped(one.text)}" for one in said.findings)
    yield "\n".join(findings)
    if said.next_steps:
        yield "What to do next:"
        yield "\n".join(f"- {escaped(step)}" for step in said.next_steps)


def _parts(block: Block) -> Iterator[str]:
    """The paragraphs of a block."""
    match block:
        case Table():
            yield from _table_parts(block)
        case Charts():
            for chart in block.charts:
                yield f"### {escaped(chart.title)}"
                if chart.caption:
                    yield escaped(chart.caption)
                yield from _table_parts(chart.table, has_caption=False)
        case Cases():
            yield f"### {escaped(block.title)}"
            yield escaped(block.text)
            yield "\n".join(map(_case_item, block.cases))
        case _:
            yield from _text_parts(block)


def _text_parts(block: Paragraph | Heading | Bullets | Terms | Picture) -> Iterator[str]:
    match block:
        case Paragraph():
            yield escaped(block.text)
        case Heading():
            yield f"### {escaped(block.text)}"
        case Bullets():
            yield "\n".join(f"- {escaped(item)}" for item in block.items)
        case Terms():
            yield f"{escaped(block.title)}:"
            yield "\n".join(f"- *{escaped(term)}*: {escaped(text)}" for term, text in block.items)
        case Picture():
            yield f"![{escaped(block.name)}]({block.name})"


def _table_parts(table: Table, *, has_caption: bool = True) -> Iterator[str]:
    if has_caption and table.caption:
        yield f"### {escaped(table.caption)}"
    rows = [table.head]
    for row in table.rows:
        texts = [_cell_text(cell, marks=table.marks) for cell in row]
        rows.append((*texts, *[""] * (len(table.head) - len(texts))))
    yield markdown_table(rows)
    if table.note:
        yield escaped(table.note)


def _cell_text(cell: Cell, *, marks: tuple[str, str]) -> str:
    marked = {"better": f", {marks[0]}", "worse": f", {marks[1]}"}.get(cell.mark, "")
    return f"{cell.text}{f' ({cell.detail})' if cell.detail else ''}{marked}"


def _case_item(case: Case) -> str:
    facts = ", ".join(f"{escaped(name)} {escaped(value)}" for name, value in case.facts)
    text = f"{case.query} → {case.title}" if case.query else case.title
    lines = [f"- {escaped(text)} ({facts})"]
    drivers = (
        f"{escaped(number(one.value, 2, sign=True))} {escaped(one.kind)} “{escaped(one.text)}”"
        for one in case.drivers
    )
    shown = "; ".join([*drivers, *([escaped(case.total)] if case.total else [])])
    return "\n".join([*lines, *([f"  {shown}"] if shown else [])])
