"""Several columns of an Arrow table to one text a row. NumPy alone until it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raydistill.serving.text.arrow_text import MAX_BYTES

if TYPE_CHECKING:
    import pyarrow as pa

# Any mark between the values would be a wordpiece of an encoder and a word of preset bert2dnn; a
# space is neither, and cleaning leaves no trace of an empty value.
SEPARATOR = " "


def join_columns(columns: Sequence[pa.Array | pa.ChunkedArray]) -> pa.Array:
    """Columns of texts (or all of bytes) as one text a row, joined by a space without the nulls.

    The text is null where all are null.
    """
    import pyarrow as pa  # imported here: serving a bundle does not need it
    import pyarrow.compute as pc

    kinds = {column.type for column in columns}
    if len(kinds) > 1 or sum(column.nbytes for column in columns) > MAX_BYTES:
        is_bytes = pa.types.is_large_binary(columns[0].type)
        columns = [
            column.cast(pa.large_binary() if is_bytes else pa.large_string()) for column in columns
        ]
    is_null = pc.is_null(columns[0])
    for column in columns[1:]:
        is_null = pc.and_(is_null, pc.is_null(column))
    kind = columns[0].type
    # Arrow 26 leaves out the rows in which all values are skipped.
    first = pc.if_else(is_null, pa.scalar("", kind), columns[0])
    separator = pa.scalar(SEPARATOR, kind)
    joined = pc.binary_join_element_wise(first, *columns[1:], separator, null_handling="skip")
    return pc.if_else(is_null, None, joined)
