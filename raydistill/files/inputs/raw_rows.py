"""A block of rows of a raw file with row and line numbers, and columns as strings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.serving.text.arrow_text import MAX_BYTES
from raydistill.serving.text.columns import join_columns


@dataclass(frozen=True)
class RawRows:
    """A block of rows: a table, each row's number in the file, and the bad rows.

    The table contains the bad rows, as far as they could be parsed, only with `keep_bad`.
    """

    table: pa.Table
    rows: NDArray[np.int64]
    bad: list[tuple[int, str]] = field(default_factory=list)  # row number, reason
    lines: NDArray[np.int64] | None = None  # line of each row, from 1; None: a format without lines
    bad_lines: list[int] = field(default_factory=list)
    num_breaks: int = 0  # line breaks in quoted values = number of lines - number of rows
    num_mended: int = 0  # rows with quotes or escapes outside RFC 4180, read as intended


@dataclass(frozen=True)
class Stretch:
    """A part of a text file that can be read alone: it begins and ends between two records."""

    begin: int  # bytes of the file
    end: int
    first_row: int
    first_line: int  # from 0
    num_rows: int


def decode(raw: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    """Any column as strings, and a mask of the rows whose bytes are not UTF-8 (null strings)."""
    valid = pa.array(np.zeros(len(raw), bool))
    is_bytes = pa.types.is_binary(raw.type) or pa.types.is_large_binary(raw.type)
    if pa.types.is_floating(raw.type):  # pandas writes a missing text as NaN
        raw = pc.if_else(pc.is_nan(raw), None, raw)
    try:
        texts = raw.cast(pa.string() if raw.nbytes <= MAX_BYTES else pa.large_string())
        texts.validate(full=True)
    except pa.ArrowInvalid:  # Arrow does not report which value is invalid
        values = (raw if is_bytes else raw.cast(pa.binary())).to_pylist()
        bad = [value is not None and not _is_utf8(value) for value in values]
        texts = pa.array([None if b else v for v, b in zip(values, bad, strict=True)], pa.binary())
        return texts.cast(pa.string()), pa.array(bad, pa.bool_())
    return texts, valid


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array; more than 2 GB of `string` become `large_string`."""
    if pa.types.is_string(column.type) and column.nbytes > MAX_BYTES:
        column = column.cast(pa.large_string())
    return column.combine_chunks()


def flat_names(columns: Mapping[str, str | Sequence[str]]) -> list[str]:
    """The names of all columns of an input, each once."""
    return listed(columns.values())


def listed(columns: Iterable[str | Sequence[str]]) -> list[str]:
    """The names in single columns and lists of columns, each once, without empty ones."""
    parts = ([one] if isinstance(one, str) else one for one in columns)
    return list(dict.fromkeys(name for part in parts for name in part if name))


def read_column(table: pa.Table, name: str | Sequence[str]) -> pa.Array:
    """A column as one array; several as one text a row, joined by a space without empty values.

    The joined text is null where all values are null. It is binary if any value is not UTF-8.
    """
    if isinstance(name, str):
        return one_chunk(table[name])
    columns = [one_chunk(table[part]) for part in name]
    decoded = [decode(column) for column in columns]
    if any(pc.any(bad).as_py() for _, bad in decoded):
        parts = [_to_binary(column) for column in columns]
    else:
        parts = [text for text, _ in decoded]
    return join_columns(parts)


def _to_binary(column: pa.Array) -> pa.Array:
    """The bytes of a column's texts."""
    kind = column.type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        column = decode(column)[0]
    return column.cast(pa.large_binary())
