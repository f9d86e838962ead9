"""A block of rows of a raw file with row and line numbers, and columns as strings."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.serving.text.arrow_text import MAX_BYTES


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
