"""Escape users' texts for Markdown and its HTML, for plots and for a terminal.

A title may contain `<script>`, `a | b` or a terminal's escape sequence. Each such text passes
through one of these functions before output; our own markup does not.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Characters that a terminal executes or an XML parser rejects: control characters, marks for the
# direction of writing, halves of surrogate pairs, noncharacters.
_MARKS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_CONTROLS = f"\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f{_MARKS}\ufffe\uffff"
_UNSEEN = re.compile(f"[{_CONTROLS}\ud800-\udfff]")
_BREAKS = re.compile("[\t\r\n\v\f\x85\u2028\u2029]+")
_RAW_BREAKS = re.compile("[\r\v\f\x85\u2028\u2029]")
_NOT_FOR_JSON = re.compile(f"[\x7f-\x9f{_MARKS}\u2028\u2029\ud800-\udfff]")
# Punctuation that is markup inside a line of Markdown, with GitHub's extensions: `:` and `@` of
# addresses, `$` of formulas, `:` of emoji. Parentheses need no escape if brackets have one.
_INSIDE = re.compile(r"[\\`*_{}\[\]#!|~$@^]|:(?=//)|:(?=[\w+-]+:)")
# Markup at the start of a line: lists, headings, quotations, rules.
_FIRST = re.compile(r"^(?:[-+](?= |$)|-(?=[- ]*$)|=(?==*$)|[0-9]{1,9}(?=[.)](?: |$)))")
_WEB = re.compile(r"(www)\.", re.IGNORECASE)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def plain(text: str) -> str:
    """One line without control characters: line breaks become spaces, others U+FFFD."""
    return _UNSEEN.sub("\ufffd", _BREAKS.sub(" ", text))


def plain_lines(text: str) -> str:
    """As `plain`, for a text of several lines: line feeds stay."""
    return _UNSEEN.sub("\ufffd", _RAW_BREAKS.sub(" ", text))


def plain_json(text: str) -> str:
    """Equivalent JSON in which characters that a terminal executes are escaped."""
    return _NOT_FOR_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def drawn(text: str) -> str:
    """A text for matplotlib: `$` does not start a formula."""
    return plain(text).replace("$", r"\$")


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG, its texts as text; equal figures give equal bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "raydistill", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def escaped(text: str) -> str:
    """A text as one line of Markdown that renders as the text: no markup, no HTML tag."""
    text = plain(text).strip(" ")
    text = "".join(_ENTITIES.get(char, char) for char in _INSIDE.sub(r"\\\g<0>", text))
    text = _WEB.sub(r"\1\\.", text)
    first = _FIRST.match(text)
    if first is None:
        return text
    end = first.end()  # `1.` becomes `1\.`, `-` becomes `\-`
    return f"{text[:end]}\\{text[end:]}" if text[0].isdigit() else f"\\{text}"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts as a Markdown table; the first row is the head."""
    head, *body = ("| " + " | ".join(map(escaped, row)) + " |" for row in rows)
    return "\n".join([head, "|---|" + "---:|" * (len(rows[0]) - 1), *body])


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts, the first is the head, aligned: first column left, others right."""
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = (cell.ljust(w) if at == 0 else cell.rjust(w)
                        for at, (cell, w) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)
