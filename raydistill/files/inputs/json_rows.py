"""JSON to Arrow tables, block by block: one object per line, or an array of objects.

A line or element that is not an object is bad, and so is a row with a list or an object in a text
column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pajson

from raydistill.errors import UserError
from raydistill.files.inputs.decoding import Joined, Readable
from raydistill.files.inputs.raw_rows import RawRows, Stretch

_ARRAY_ROWS = 1 << 16  # elements of an array per table
_MAX_ELEMENT_CHARS = 1 << 26
_LINE_FEED = 10
_SPACE = " \t\r\n"
_INT64 = range(-(2**63), 2**63)
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_LONG_INTEGER = re.compile(rb'("(?:[^"\\]|\\.)*")\s*:\s*(-?[0-9]{19,})\s*[,}]')  # name, value


def read_json_lines(
    stream: Readable,
    *,
    columns: Sequence[str] | None,
    texts: Sequence[str],
    block_bytes: int,
    keep_bad: bool,
    first_row: int = 0,
    types: pa.Schema | None = None,
) -> Iterator[RawRows]:
    """One row per line, without blank lines.

    `texts`: the columns in which a list or an object makes the row bad. `types`: of `line_schemas`;
    lines whose values are of these types are read by Arrow, and those whose values are strings.
    """
    reader = _Lines(columns, texts, keep_bad=keep_bad, types=types)
    for start, block in _line_blocks(stream, block_bytes, first_row=first_row):
        yield reader.read(block, start=start)


def find_line_stretches(stream: Readable, *, block_bytes: int, most_rows: int) -> list[Stretch]:
    """The lines of a stream in stretches of `most_rows` lines; the last has fewer."""
    starts, row, end = [(0, 0)], 0, 0
    last = b""
    while block := stream.read(block_bytes):
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == _LINE_FEED) + 1
        while (due := starts[-1][1] + most_rows - row) <= len(ends):
            starts.append((end + int(ends[due - 1]), row + due))
        row, end, last = row + len(ends), end + len(block), block
    row += bool(last) and not last.endswith(b"\n")
    if starts[-1][0] == end and len(starts) > 1:
        starts.pop()
    stops = [*starts[1:], (end, row)]
    return [
        Stretch(begin, stop, first, first, stop_row - first)
        for (begin, first), (stop, stop_row) in zip(starts, stops, strict=True)
    ]


def line_schemas(stream: Readable, *, block_bytes: int) -> Iterator[pa.Schema]:
    """The columns of the lines of a stream, block by block: numbers, true and false, or strings."""
    reader = _Lines(None, (), keep_bad=True)
    for start, block in _line_blocks(stream, block_bytes):
        yield _schema_of(block) or reader.read(block, start=start).table.schema


def _schema_of(block: bytes) -> pa.Schema | None:
    """The columns of a block of lines; None if Arrow cannot read it."""
    table = _parse(block, pajson.ParseOptions(newlines_in_values=False))
    if table is None:
        return None
    plain = {pa.int64(), pa.float64(), pa.bool_(), pa.null()}  # Arrow takes some texts for times
    rounded = _rounded(block) if pa.float64() in table.schema.types else set()
    kept = {f.name for f in table.schema if f.type in plain} - rounded
    return pa.schema([(f.name, f.type if f.name in kept else pa.string()) for f in table.schema])


def _rounded(block: bytes) -> set[str]:
    """Names of columns with an integer beyond 64 bits, which Arrow reads as a float.

    A name inside of an object counts as well: the column of that name becomes one of strings.
    """
    if not _LONG_NUMBER.search(block):
        return set()
    return {
        str(json.loads(name, strict=False))
        for name, digits in _LONG_INTEGER.findall(block)
        if len(digits) > 20 or int(digits) not in _INT64
    }


def _line_blocks(
    stream: Readable, block_bytes: int, *, first_row: int = 0
) -> Iterator[tuple[int, bytes]]:
    """Blocks of complete lines, each with the number of its first line."""
    start, rest = first_row, b""
    while block := stream.read(block_bytes):
        whole, newline, rest = (rest + block).rpartition(b"\n")
        if newline:
            yield start, whole + newline
            start += whole.count(b"\n") + 1
    if rest:
        yield start, rest + b"\n"


class _Lines:
    """Blocks of complete lines to rows: by Arrow if it can read all values, else line by line."""

    def __init__(
        self,
        columns: Sequence[str] | None,
        texts: Sequence[str],
        *,
        keep_bad: bool,
        types: pa.Schema | None = None,
    ) -> None:
        self.columns, self.texts, self.keep_bad = columns, texts, keep_bad
        known = {} if types is None else {field.name: field.type for field in types}
        self._strings = {name for name, kind in known.items() if pa.types.is_string(kind)}
        self._schema = pa.schema([(name, _type_to_read(known.get(name))) for name in columns or ()])

    def read(self, block: bytes, *, start: int) -> RawRows:
        if self.columns is not None:
            parse = pajson.ParseOptions(
                explicit_schema=self._schema,
                newlines_in_values=False,
                unexpected_field_behavior="ignore",
            )
            table = _parse(block, parse)
            if table is not None:
                rows = np.arange(start, start + table.num_rows)
                return RawRows(table, rows, lines=rows + 1)
        parsed = [
            (row, *_parse_line(line))
            for row, line in enumerate(block[:-1].split(b"\n"), start)
            if line.strip()
        ]
        return self.to_rows(parsed, has_lines=True)

    def to_rows(self, parsed: Sequence[tuple[int, Any, str]], *, has_lines: bool) -> RawRows:
        """`parsed`, (row number, content, problem or "") for each row, as RawRows."""
        kept: list[dict[str, Any]] = []
        rows: list[int] = []
        bad: list[tuple[int, str]] = []
        for row, content, problem in parsed:
            reason = problem or _nested(content, self.texts)
            if reason:
                bad.append((row, reason))
            if not reason or self.keep_bad:
                rows.append(row)
                kept.append(content if isinstance(content, dict) and not problem else {})
        names = self.columns
        if names is None:
            names = list(dict.fromkeys(name for content in kept for name in content))
        arrays = {
            name: _column([content.get(name) for content in kept], is_text=name in self._strings)
            for name in names
        }
        numbers = np.asarray(rows, np.int64)
        lines, bad_lines = (numbers + 1, [row + 1 for row, _ in bad]) if has_lines else (None, [])
        return RawRows(_table(arrays, len(kept)), numbers, bad, lines, bad_lines)


def _table(arrays: dict[str, pa.Array], num_rows: int) -> pa.Table:
    """A table of the arrays; it has `num_rows` rows even without columns."""
    if arrays or not num_rows:
        return pa.table(arrays)
    return pa.table({"": pa.nulls(num_rows)}).select([])


def _type_to_read(kind: pa.DataType | None) -> pa.DataType:
    return pa.string() if kind is None or pa.types.is_null(kind) else kind


def _parse(block: bytes, options: pajson.ParseOptions) -> pa.Table | None:
    """One row per line, read by Arrow; None if any line does not fit."""
    read = pajson.ReadOptions(use_threads=False, block_size=len(block) + 1)
    try:
        table = pajson.read_json(pa.BufferReader(block), read_options=read, parse_options=options)
        table.validate(full=True)
    except pa.ArrowInvalid:  # another type, or invalid JSON; Arrow does not name the line
        return None
    is_line_by_line = table.num_rows == block.count(b"\n") and b"\n\n" not in block
    return table if is_line_by_line else None


def _parse_line(line: bytes) -> tuple[Any, str]:
    """The content of a line, and the reason why it is bad, or ""."""
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg}"
    except UnicodeDecodeError:
        return None, "not JSON: not UTF-8"
    except (ValueError, RecursionError) as error:  # too many digits, or nested too deeply
        return None, f"not JSON: {error}"
    if b"\\ud" in line.lower() and not _is_text(content):
        return None, "not UTF-8: half of a surrogate pair"
    return content, "" if isinstance(content, dict) else "not a JSON object"


def _nested(content: dict[str, Any], texts: Sequence[str]) -> str:
    """The reason why a row is bad if a text column has a list or an object, or ""."""
    for name in texts:
        value = content.get(name)
        if isinstance(value, (list, dict)):
            kind = "list" if isinstance(value, list) else "object"
            return f"{name} is a JSON {kind}, not a text"
    return ""


def _is_text(content: object) -> bool:
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _column(values: list[Any], *, is_text: bool) -> pa.Array:
    """Values of one type (int64, float64, bool) as that type; mixed values as JSON text.

    `is_text`: all as text, as other blocks have values of another type.
    """
    kinds = {type(value) for value in values if value is not None}
    if is_text:
        kinds.add(str)
    if kinds == {int} and all(v is None or v in _INT64 for v in values):
        return pa.array(values, pa.int64())
    if kinds == {float}:
        return pa.array(values, pa.float64())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if not kinds:
        return pa.nulls(len(values))
    texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(texts, pa.string())


# --- arrays


def read_json(
    stream: Readable,
    *,
    columns: Sequence[str] | None,
    texts: Sequence[str],
    block_bytes: int,
    keep_bad: bool,
    types: pa.Schema | None = None,
) -> Iterator[RawRows]:
    """One row per object of an array, or of a sequence of objects over any number of lines.

    `types`: as of `read_json_lines`.

    Raises:
        UserError: the file is truncated or contains invalid JSON.
    """
    first = _first_line(stream, block_bytes)
    rest = Joined(first, stream)
    line = first.lstrip().partition(b"\n")[0]
    if not line.startswith(b"[") and not _parse_line(line)[1]:  # one object a line
        yield from read_json_lines(
            rest, columns=columns, texts=texts, block_bytes=block_bytes, keep_bad=keep_bad,
            types=types,
        )  # fmt: skip
        return
    reader = _Lines(columns, texts, keep_bad=keep_bad, types=types)
    waiting: list[tuple[int, Any, str]] = []
    row = -1
    for row, content in enumerate(_elements(rest, block_bytes)):
        problem = "" if isinstance(content, dict) else "not a JSON object"
        problem = problem or ("" if _is_text(content) else "not UTF-8: half of a surrogate pair")
        waiting.append((row, content, problem))
        if len(waiting) == _ARRAY_ROWS:
            yield reader.to_rows(waiting, has_lines=False)
            waiting = []
    if waiting:
        yield reader.to_rows(waiting, has_lines=False)


def _first_line(stream: Readable, block_bytes: int) -> bytes:
    """The bytes up to at least the end of the first line that is not blank, or of the file."""
    head = b""
    while block := stream.read(block_bytes):
        head += block
        if b"\n" in head.lstrip() or len(head) > _MAX_ELEMENT_CHARS:
            break
    return head


def _elements(stream: Readable, block_bytes: int) -> Iterator[Any]:
    """The elements of the array in a stream, or its consecutive values without an array."""
    text = _Window(stream, block_bytes)
    is_array = text.take("[")
    while not text.is_at_end():
        if is_array and text.take("]"):
            break
        yield text.value()
        text.take(",")
    if not text.is_at_end():
        raise UserError(f"unexpected data after the end of the array: {text.shown()!r}")


class _Window:
    """The characters of a stream from the parse position on, as far as they have been read."""

    def __init__(self, stream: Readable, block_bytes: int) -> None:
        self._stream, self._block_bytes = stream, block_bytes
        self._bytes, self._text, self._at, self._is_end = b"", "", 0, False
        self._decode = json.JSONDecoder().raw_decode

    def _more(self) -> None:
        block = self._stream.read(self._block_bytes)
        self._is_end = not block
        data = self._bytes + block
        # Cut at an ASCII mark, never inside a character; invalid UTF-8 fails in `decode`.
        cut = (
            len(data) if self._is_end else max(data.rfind(mark) for mark in (b",", b"}", b"\n")) + 1
        )
        self._text = self._text[self._at :] + data[:cut].decode()
        self._bytes, self._at = data[cut:], 0

    def is_at_end(self) -> bool:
        """Skip whitespace; return whether the stream ends there."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return False
            if self._is_end:
                return True
            self._more()

    def take(self, mark: str) -> bool:
        """Skip whitespace and then `mark` if it follows; return whether it did."""
        is_there = not self.is_at_end() and self._text[self._at] == mark
        self._at += is_there
        return is_there

    def value(self) -> Any:  # noqa: ANN401 - any JSON
        """Parse the JSON value at the current position.

        Raises:
            UserError: it is not JSON, or the file is truncated.
        """
        while True:
            try:
                content, after = self._decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                if self._is_end or len(self._text) - self._at > _MAX_ELEMENT_CHARS:
                    raise UserError(
                        f"invalid or truncated JSON: {problem}: {self.shown()!r}"
                    ) from error
                self._more()
                continue
            if after == len(self._text) and not self._is_end:  # a number may continue
                self._more()
                continue
            self._at = after
            return content

    def shown(self) -> str:
        """The next 60 characters, for a message."""
        return self._text[self._at : self._at + 60]
