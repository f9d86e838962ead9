"""JSON to tables: an object a line, or an array of objects; some rows at a time.

A line or an element that is no object is bad, and so is a list or an object where a text should be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pajson

from raydistill.errors import UserError
from raydistill.files.inputs.decoding import Joined, Readable
from raydistill.files.inputs.raw_rows import RawRows

_ARRAY_ROWS = 1 << 16  # elements of an array in one table
_MAX_ELEMENT_CHARS = 1 << 26
_SPACE = " \t\r\n"


def read_json_lines(
    stream: Readable,
    *,
    columns: Sequence[str] | None,
    texts: Sequence[str],
    block_bytes: int,
    keep_bad: bool,
) -> Iterator[RawRows]:
    """One row a line; blank lines are none. `texts`: the columns that no list may be in."""
    reader = _Lines(columns, texts, keep_bad=keep_bad)
    start, rest = 0, b""
    while block := stream.read(block_bytes):
        whole, newline, rest = (rest + block).rpartition(b"\n")
        if newline:
            yield reader.read(whole + newline, start=start)
            start += whole.count(b"\n") + 1
    if rest:
        yield reader.read(rest + b"\n", start=start)


class _Lines:
    """Blocks of whole lines to rows: by Arrow where all hold strings, else line by line."""

    def __init__(
        self, columns: Sequence[str] | None, texts: Sequence[str], *, keep_bad: bool
    ) -> None:
        self.columns, self.texts, self.keep_bad = columns, texts, keep_bad

    def read(self, block: bytes, *, start: int) -> RawRows:
        if self.columns is not None:
            table = _parse_texts(block, self.columns)
            if table is not None:
                rows = np.arange(start, start + table.num_rows)
                return RawRows(table, rows, lines=rows + 1)
        parsed = [
            (row, *_parse(line))
            for row, line in enumerate(block[:-1].split(b"\n"), start)
            if line.strip()
        ]
        return self.to_rows(parsed, has_lines=True)

    def to_rows(self, parsed: Sequence[tuple[int, Any, str]], *, has_lines: bool) -> RawRows:
        """Row numbers, contents and what is wrong with them, as a table."""
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
        arrays = {name: _column([content.get(name) for content in kept]) for name in names}
        numbers = np.asarray(rows, np.int64)
        lines, bad_lines = (numbers + 1, [row + 1 for row, _ in bad]) if has_lines else (None, [])
        return RawRows(_table(arrays, len(kept)), numbers, bad, lines, bad_lines)


def _table(arrays: dict[str, pa.Array], num_rows: int) -> pa.Table:
    """A table that has its rows without a column too."""
    if arrays or not num_rows:
        return pa.table(arrays)
    return pa.table({"": pa.nulls(num_rows)}).select([])


def _parse_texts(block: bytes, columns: Sequence[str]) -> pa.Table | None:
    """One row a line with the columns as strings; None where a line is anything else."""
    schema = pa.schema([(name, pa.string()) for name in columns])
    parse = pajson.ParseOptions(
        explicit_schema=schema, newlines_in_values=False, unexpected_field_behavior="ignore"
    )
    read = pajson.ReadOptions(use_threads=False, block_size=len(block) + 1)
    try:
        table = pajson.read_json(pa.BufferReader(block), read_options=read, parse_options=parse)
        table.validate(full=True)
    except pa.ArrowInvalid:  # a number, a list, a line that is no JSON: which, Arrow does not say
        return None
    is_line_by_line = table.num_rows == block.count(b"\n") and b"\n\n" not in block
    return table if is_line_by_line else None


def _parse(line: bytes) -> tuple[Any, str]:
    """The content of a line, and what is wrong with it, or ""."""
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg}"
    except UnicodeDecodeError:
        return None, "not JSON: not UTF-8"
    except (ValueError, RecursionError) as error:  # too many digits, too deep
        return None, f"not JSON: {error}"
    if b"\\ud" in line.lower() and not _is_text(content):
        return None, "not UTF-8: half of a surrogate pair"
    return content, "" if isinstance(content, dict) else "not a JSON object"


def _nested(content: dict[str, Any], texts: Sequence[str]) -> str:
    """What is wrong with a row that has a list or an object where a text should be."""
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


def _column(values: list[Any]) -> pa.Array:
    """Numbers stay what they are when all are of a kind; anything mixed becomes its JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int} and all(v is None or -(2**63) <= v < 2**63 for v in values):
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
) -> Iterator[RawRows]:
    """One row an object: those of an array, or one after the other, over any number of lines.

    Raises:
        UserError: the file is cut off, or is no JSON from some place on.
    """
    first = _first_line(stream, block_bytes)
    rest = Joined(first, stream)
    line = first.lstrip().partition(b"\n")[0]
    if not line.startswith(b"[") and not _parse(line)[1]:  # one object a line
        yield from read_json_lines(
            rest, columns=columns, texts=texts, block_bytes=block_bytes, keep_bad=keep_bad
        )
        return
    reader = _Lines(columns, texts, keep_bad=keep_bad)
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
    """The first line that is not blank, with what was read behind it; all of a file without one."""
    head = b""
    while block := stream.read(block_bytes):
        head += block
        if b"\n" in head.lstrip() or len(head) > _MAX_ELEMENT_CHARS:
            break
    return head


def _elements(stream: Readable, block_bytes: int) -> Iterator[Any]:
    """The elements of the array that a stream holds, or its values, one after the other."""
    text = _Window(stream, block_bytes)
    is_array = text.take("[")
    while not text.is_at_end():
        if is_array and text.take("]"):
            break
        yield text.value()
        text.take(",")
    if not text.is_at_end():
        raise UserError(f"it goes on behind the array: {text.shown()!r}")


class _Window:
    """The characters of a stream around the place that is read."""

    def __init__(self, stream: Readable, block_bytes: int) -> None:
        self._stream, self._block_bytes = stream, block_bytes
        self._bytes, self._text, self._at, self._is_end = b"", "", 0, False
        self._decode = json.JSONDecoder().raw_decode

    def _more(self) -> None:
        block = self._stream.read(self._block_bytes)
        self._is_end = not block
        data = self._bytes + block
        # Not through a character; what is no UTF-8 at all is found where it is decoded.
        cut = (
            len(data) if self._is_end else max(data.rfind(mark) for mark in (b",", b"}", b"\n")) + 1
        )
        self._text = self._text[self._at :] + data[:cut].decode()
        self._bytes, self._at = data[cut:], 0

    def is_at_end(self) -> bool:
        """Skip spaces; whether nothing follows."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return False
            if self._is_end:
                return True
            self._more()

    def take(self, mark: str) -> bool:
        """Go behind a mark, if it follows."""
        is_there = not self.is_at_end() and self._text[self._at] == mark
        self._at += is_there
        return is_there

    def value(self) -> Any:  # noqa: ANN401 - any JSON
        """The value that begins here."""
        while True:
            try:
                content, after = self._decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                if self._is_end or len(self._text) - self._at > _MAX_ELEMENT_CHARS:
                    raise UserError(f"not JSON, or cut off: {problem}: {self.shown()!r}") from error
                self._more()
                continue
            if after == len(self._text) and not self._is_end:  # a number may go on
                self._more()
                continue
            self._at = after
            return content

    def shown(self) -> str:
        """The characters that follow, for a message."""
        return self._text[self._at : self._at + 60]
