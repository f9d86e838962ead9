"""What a report is made of: paragraphs, tables, charts and cases, without any markup.

`evaluation/report/markdown.py` and `html.py` write the same blocks, each in its own form. A text
may hold whatever a user typed: both escape every text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mark = Literal["", "better", "worse", "muted"]


@dataclass(frozen=True)
class Span:
    """An interval that is drawn beside its numbers."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, a second text in small type, and what it stands for."""

    text: str
    detail: str = ""
    mark: Mark = ""
    span: Span | None = None


Row = tuple[Cell, ...]  # one cell alone is the heading of the rows below it


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column names the row."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    axis: tuple[float, float, float] | None = None  # of the spans: low, high, a line between
    is_folded: bool = False  # shown when it is asked for
    is_prose: bool = False  # columns of texts, not of numbers
    marks: tuple[str, str] = ("better", "worse")  # the words for the marks


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str
    is_small: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of plain texts."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Terms:
    """Words and what they mean."""

    title: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Series:
    """Points of one scorer, with intervals along y where they are known."""

    name: str
    look: int  # number of its colour, marker and dashes: evaluation/report/charts.py
    points: tuple[tuple[float, float], ...]
    spans: tuple[tuple[float, float], ...] = ()
    has_line: bool = True
    has_markers: bool = True
    is_band: bool = False  # the spans are drawn as a band


@dataclass(frozen=True)
class Chart:
    """Series over one pair of axes. `table` holds its numbers."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    table: Table
    caption: str = ""
    has_log_x: bool = False
    has_diagonal: bool = False
    level: float | None = None  # a horizontal line


@dataclass(frozen=True)
class Histogram:
    """Shares of the pairs in bins of the score, for two groups of pairs."""

    title: str
    x_label: str
    edges: tuple[float, ...]
    groups: tuple[tuple[str, tuple[int, ...]], ...]  # name, counts
    table: Table
    caption: str = ""


@dataclass(frozen=True)
class Charts:
    """Charts side by side."""

    charts: tuple[Chart | Histogram, ...]


@dataclass(frozen=True)
class Driver:
    """What moved a score, and by how much (logits)."""

    kind: str
    text: str
    value: float


@dataclass(frozen=True)
class Case:
    """A pair with its label and scores, and what drove the student's score."""

    query: str
    title: str
    facts: tuple[tuple[str, str], ...]
    drivers: tuple[Driver, ...]
    total: str = ""  # what they add up to


@dataclass(frozen=True)
class Cases:
    """Pairs of one kind."""

    title: str
    text: str
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Picture:
    """A picture in a file beside the report: Markdown links it, the page draws its own."""

    name: str


Block = (
    Paragraph | Bullets | Terms | Heading | Table | Charts | Cases | Picture
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A part of the report; `key` is its anchor."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class KeyFigure:
    """A number of the verdict."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class Finding:
    """A sentence or two of the verdict on one question."""

    kind: Literal["good", "bad", "open"]
    question: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """What the figures say, in words."""

    headline: str
    basis: str
    figures: tuple[KeyFigure, ...]
    findings: tuple[Finding, ...]
    next_steps: tuple[str, ...]


def plain_table(
    caption: str,
    rows: list[tuple[str, ...]],
    *,
    note: str = "",
    is_folded: bool = False,
    is_prose: bool = False,
) -> Table:
    """A table of texts; the first row is the head."""
    head, *body = rows
    cells = tuple(tuple(Cell(text) for text in row) for row in body)
    return Table(caption, head, cells, note=note, is_folded=is_folded, is_prose=is_prose)
