"""Columns of raw files as strings: what is not UTF-8 is found, row by row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydistill.serving.text.arrow_text import MAX_BYTES


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
