"""Chunks: the clean rows of a raw file, sorted by key, and reads of a key range from them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from raydistill.data.pairs import collapse, pair_ids, run_starts
from raydistill.files.folder import Folder
from raydistill.files.inputs.raw_rows import one_chunk

_BATCH_ROWS = 1 << 12  # a gather reads only the batches of a chunk that overlap its range
_NUM_THREADS = 16  # a range read of a chunk on S3 is four requests of 20 ms each
_INDEX = b"first_keys"
_HIGH = np.uint64(0xFFFFFFFF00000000)
_32 = np.uint64(32)


def sort_rows(rows: pa.Table, keys: NDArray[np.uint64], *, dedupe: bool) -> pa.Table:
    """Clean rows with a column `key`, sorted by it; with `dedupe`, equal pairs become one row.

    That row has the number of its pairs as weight. The low half of its key is the high half of the
    pair id, so that equal pairs are adjacent: a pair that occurs ten million times takes a few rows
    of chunks. Pairs with a label or a source are not merged here: that takes all of them at once.
    """
    dedupe = dedupe and not {"label", "source"} & set(rows.column_names)
    if dedupe:
        ids = np.asarray(pair_ids(one_chunk(rows["query"]), one_chunk(rows["title"])))
        keys = (keys & _HIGH) | (ids.view(np.uint64) >> _32)
    order = np.argsort(keys)
    rows = rows.take(pa.array(order)).append_column("key", pa.array(keys[order])).combine_chunks()
    if not dedupe:
        return rows
    starts = run_starts(rows)
    weights = np.diff(starts, append=rows.num_rows).astype(np.float32)
    kept = rows if len(starts) == rows.num_rows else rows.take(pa.array(starts))
    return kept.append_column("weight", pa.array(weights))


def write_chunk(folder: Folder, name: str, rows: pa.Table) -> None:
    """Write sorted rows as an Arrow file whose schema metadata has the first key of each batch."""
    firsts = rows["key"].to_numpy()[::_BATCH_ROWS]
    schema = rows.schema.with_metadata({_INDEX: firsts.tobytes()})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_table(rows.combine_chunks(), max_chunksize=_BATCH_ROWS)
    folder.write_bytes(name, sink.getvalue())


def read_range(folder: Folder, names: Sequence[str], low: int, high: int) -> list[pa.Table]:
    """One table per chunk that has rows with low <= key <= high: those rows, sorted by key."""

    def read(name: str) -> pa.Table | None:
        return folder.tried(lambda: _read_chunk(folder, name, low, high))

    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        found = list(threads.map(read, names))
    return [table for table in found if table is not None and table.num_rows]


def _read_chunk(folder: Folder, name: str, low: int, high: int) -> pa.Table | None:
    with folder.filesystem.open_input_file(folder.path(name)) as source:
        reader = pa.ipc.open_file(source)
        firsts = np.frombuffer(reader.schema.metadata[_INDEX], np.uint64)
        start = max(0, int(np.searchsorted(firsts, np.uint64(low))) - 1)
        stop = int(np.searchsorted(firsts, np.uint64(high), side="right"))
        batches = [reader.get_batch(at) for at in range(start, stop)]
    if not batches:
        return None
    return _between(pa.Table.from_batches(batches), low, high).replace_schema_metadata()


def _between(table: pa.Table, low: int, high: int) -> pa.Table:
    keys = table["key"].to_numpy()
    start = int(np.searchsorted(keys, np.uint64(low)))
    stop = int(np.searchsorted(keys, np.uint64(high), side="right"))
    return table.slice(start, stop - start)


def gather(
    tables: Sequence[pa.Table], low: int, high: int, *, dedupe: bool
) -> tuple[pa.Table, int] | None:
    """PAIRS or JUDGED rows of a key range from sorted tables, and the raw rows that they stand for.

    None if there are no rows in the range.
    """
    parts = [part for part in (_between(table, low, high) for table in tables) if part.num_rows]
    if not parts:
        return None
    rows = pa.concat_tables(parts)
    num_raw = rows.num_rows
    if "weight" in rows.column_names:
        num_raw = int(rows["weight"].to_numpy().sum(dtype=np.float64))
    return collapse(rows, dedupe=dedupe), num_raw
