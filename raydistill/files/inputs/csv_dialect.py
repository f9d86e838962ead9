"""The dialect of a file of delimited text: delimiter, quote, escape and header.

Input: the settings of the run file and the head of the data file. The rest of the file is not read,
so every task that reads the file finds the same dialect.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from raydistill.errors import UserError
from raydistill.files.inputs.csv_fields import split_record
from raydistill.files.inputs.csv_scan import NOTHING, Marks, Shape
from raydistill.files.inputs.decoding import likely_encoding

_DELIMITERS = b",;\t|"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_SEP_LINE = re.compile(rb'"?sep=(.)"?(?:\r\n|\n|\r)', re.IGNORECASE)  # Excel writes it
_MAX_HEADER_LINES = 50
_NUM_TRIED = 100  # lines from which the delimiter is guessed


@dataclass(frozen=True)
class CsvOptions:
    """Settings of the run file for delimited text; None: detected; the quote follows the suffix."""

    quote: str | None = None  # "": quotes are text
    escape: str | None = None  # "": a backslash is text
    delimiter: str | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class Dialect:
    """The dialect of a file: marks, columns, and where the rows begin."""

    marks: Marks
    can_escape: bool  # whether a backslash may be tried as escape of a quote
    shape: Shape
    names: tuple[str, ...]  # unique; a second `x` is `x (2)`
    repeated: frozenset[str]  # names that the header has more than once
    first_byte: int  # offset of the first row in the head
    first_line: int  # line of the first row, from 0


def settle(head: bytes, options: CsvOptions, *, is_tsv: bool) -> Dialect | None:
    """The dialect of a file that begins with `head`; None for an empty file.

    Raises:
        UserError: the header is not UTF-8.
    """
    at, line = _blank_lines(head)
    sep = _SEP_LINE.match(head, at)
    if sep:
        at, line = sep.end(), line + 1
    if at >= len(head):
        return None
    quote = _code(options.quote, default=NOTHING if is_tsv else ord('"'))
    escape = _code(options.escape, default=NOTHING)
    escape = NOTHING if escape == quote else escape  # a doubled quote: the default already
    delimiter = _delimiter(head[at:], options, sep=sep, quote=quote, is_tsv=is_tsv)
    marks = (delimiter, quote, escape)
    fields, end, num_lines = _header(head, at, marks)
    names, repeated = _unique(_decoded(fields))
    header, rows = head[at:end], head[end:]
    delimiter_text = bytes([delimiter])
    num_delimiters = header.count(delimiter_text)
    is_spaced = 0 < num_delimiters == header.count(delimiter_text + b" ")
    is_quoted = quote != NOTHING and rows.lstrip(b"\r\n")[:1] == bytes([quote])
    return Dialect(
        marks,
        options.escape is None and quote != NOTHING,
        (len(names), is_spaced, header.endswith(b"\r\n"), is_quoted),
        names,
        repeated,
        end,
        line + num_lines,
    )


def _blank_lines(head: bytes) -> tuple[int, int]:
    """The blank lines at the head: their bytes and their number."""
    rest = head.lstrip(b"\r\n")
    blank = head[: len(head) - len(rest)]
    return len(blank), len(_LINE_END.findall(blank))


def _code(text: str | None, *, default: int) -> int:
    if text is None:
        return default
    return ord(text) if text else NOTHING


def _delimiter(
    head: bytes, options: CsvOptions, *, sep: re.Match[bytes] | None, quote: int, is_tsv: bool
) -> int:
    if options.delimiter:
        return ord(options.delimiter)
    if sep:
        return sep[1][0]
    return ord("\t") if is_tsv else _guess_delimiter(head, quote)


def _guess_delimiter(head: bytes, quote: int) -> int:
    """The delimiter that splits the header and gives the most lines as many fields as it has."""
    lines = _LINE_END.split(head, _NUM_TRIED)[:_NUM_TRIED]
    best = (0, ord(","))
    for delimiter in _DELIMITERS:
        counts = [len(split_record(line, (delimiter, quote, NOTHING))) for line in lines if line]
        num_alike = counts.count(counts[0]) if counts[0] > 1 else 0
        if num_alike > best[0]:
            best = (num_alike, delimiter)
    return best[1]


def _header(head: bytes, at: int, marks: Marks) -> tuple[list[bytes], int, int]:
    """Fields, end and number of lines of the header; a quoted name may contain line breaks."""
    quote = bytes([marks[1]]) if marks[1] != NOTHING else b""
    ends = [found.end() for found in _LINE_END.finditer(head, at)][:_MAX_HEADER_LINES]
    ends = ends or [len(head)]
    whole = (
        num for num, end in enumerate(ends) if not quote or head.count(quote, at, end) % 2 == 0
    )
    num = next(whole, 0)
    end = ends[num]
    return split_record(head[at:end].rstrip(b"\r\n"), marks), end, num + 1


def _decoded(fields: Sequence[bytes]) -> list[str]:
    try:
        return [field.decode().strip() for field in fields]
    except UnicodeDecodeError as error:
        likely = likely_encoding(b",".join(fields))
        way_out = 'save it as UTF-8, or give its input csv = { encoding = "cp1252" }'
        hint = f", perhaps {likely}" if likely else ""
        raise UserError(f"its header is not UTF-8{hint}; {way_out}") from error


def _unique(names: Sequence[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Unique column names, and the names given more than once; an empty name becomes `column N`."""
    found: dict[str, None] = {}
    repeated: set[str] = set()
    for number, given in enumerate(names, 1):
        name = given or f"column {number}"
        if name in found:
            repeated.add(name)
        copy = 1
        unique = name
        while unique in found:
            copy += 1
            unique = f"{name} ({copy})"
        found[unique] = None
    return tuple(found), frozenset(repeated)
