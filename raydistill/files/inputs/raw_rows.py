"""Some rows of a raw file, what was found in the lines around them, and columns as strings."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.serving.text.arrow_text import MAX_BYTES


@dataclass(frozen=True)
class RawRows:
    """Some rows of a file: a table, each row's number in the file, and the rows that are bad.

    The table has the bad rows too, with what is known of them, where the reader was asked for that.
    """

    table: pa.Table
    rows: NDArray[np.int64]
    bad: list[tuple[int, str]] = field(default_factory=list)  # row number, reason
    lines: NDArray[np.int64] | None = None  # of each row, from 1 as editors count; None: no lines
    bad_lines: list[int] = field(default_factory=list)
    num_breaks: int = 0  # line breaks in quoted values: so many lines more than rows
    num_mended: int = 0  # rows whose quotes or escapes are no RFC 4180, read as they are meant


def decode(raw: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    """Any column as strings, and a mask of the rows whose bytes are not UTF-8 (null there)."""
    valid = pa.array(np.zeros(len(raw), bool))
    is_bytes = pa.types.is_binary(raw.type) or pa.types.is_large_binary(raw.type)
    if pa.types.is_floating(raw.type):  # NaN is how pandas writes that there is no text
        raw = pc.if_else(pc.is_nan(raw), None, raw)
    try:
        texts = raw.cast(pa.string() if raw.nbytes <= MAX_BYTES else pa.large_string())
        texts.validate(full=True)
    except pa.ArrowInvalid:  # Arrow says that some value is bad, not which
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
    """The column as one array; more than 2 GB of `string` as `large_string`."""
    if pa.types.is_string(column.type) and column.nbytes > MAX_BYTES:
        column = column.cast(pa.large_string())
    return column.combine_chunks()
