"""Buckets of the index of scores: Arrow files sorted by key, of which a key range can be read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from raydistill.files.folder import Folder

_BATCH_ROWS = 1 << 12  # a read takes only the batches that overlap its range
_INDEX = b"first_keys"


def write_bucket(folder: Folder, name: str, rows: pa.Table) -> None:
    """Write sorted rows as an Arrow file whose schema metadata has the first key of each batch."""
    firsts = rows["key"].to_numpy()[::_BATCH_ROWS]
    schema = rows.schema.with_metadata({_INDEX: firsts.tobytes()})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_table(rows.combine_chunks(), max_chunksize=_BATCH_ROWS)
    folder.write_bytes(name, sink.getvalue())


def read_bucket(folder: Folder, name: str, low: int, high: int) -> pa.Table | None:
    """The batches that may have rows with low <= key <= high; None without any."""
    return folder.tried(lambda: _read(folder, name, low, high))


def _read(folder: Folder, name: str, low: int, high: int) -> pa.Table | None:
    with folder.filesystem.open_input_file(folder.path(name)) as source:
        reader = pa.ipc.open_file(source)
        firsts = np.frombuffer(reader.schema.metadata[_INDEX], np.uint64)
        start = max(0, int(np.searchsorted(firsts, np.uint64(low))) - 1)
        stop = int(np.searchsorted(firsts, np.uint64(high), side="right"))
        batches = [reader.get_batch(at) for at in range(start, stop)]
    return pa.Table.from_batches(batches).replace_schema_metadata() if batches else None
