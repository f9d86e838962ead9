"""The pairs of a shard on their way through the steps of `label`. No Ray.

Each step takes and returns the shard's item and bytes, so the steps may run in one process or in
three. The bytes are an Arrow stream of all pairs of the shard in order, one record batch a piece.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from raydistill.files.folder import Folder
from raydistill.files.pieces import PIECE_ROWS
from raydistill.files.schema import JUDGED, PAIRS, check_schema

Item = dict[str, Any]
Step = Callable[[Item, bytes], tuple[Item, bytes]]  # as in cluster/tasks.py


def read_texts(item: Item, _: bytes) -> tuple[Item, bytes]:
    """Read id, query and title of the pairs of `item["folder"]/item["name"]`."""
    start_s = time.monotonic()
    columns = ["pair_id", "query", "title"]
    table = Folder(item["folder"]).read_table(item["name"], columns=columns)
    return {**item, "read_s": time.monotonic() - start_s}, to_bytes(table)


def shard_pieces(item: Item) -> Iterator[pa.Table]:
    """The pairs of a shard, `PIECE_ROWS` or fewer at a time; one empty table for an empty shard."""
    rows = Folder(item["folder"]).open_rows(item["name"], by_range=False)
    for start in range(0, max(rows.num_rows, 1), PIECE_ROWS):
        pairs = rows.read(start, start + PIECE_ROWS)
        expected = JUDGED if "label" in pairs.column_names else PAIRS
        check_schema(pairs.schema, expected, what=f"{item['folder']}/{item['name']}")
        yield pairs


def to_bytes(table: pa.Table) -> bytes:
    """The table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_bytes(data: bytes) -> pa.Table:
    """The inverse of `to_bytes`."""
    return pa.ipc.open_stream(data).read_all()
