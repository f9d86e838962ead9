"""Chunks: the clean rows of a raw file, sorted by key, and reads of a key range from them.

A chunk is one object of *blocks* of 2,048 rows, each an Arrow stream of its own. Where each block
begins, and with which key, is not in the object: the scatter task returns it, and the driver writes
the index of all chunks as one file. So a task that gathers a range of keys reads the index, and
then each chunk with one request.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from raydistill.data.pairs import collapse, pair_ids, run_starts
from raydistill.files.folder import Folder
from raydistill.files.inputs.raw_rows import one_chunk

# The smallest unit of a read: 75 kB of real pairs (docs/results.md). At 10^9 rows a task decodes
# 1,000 rows of each chunk at a time: with 2,048 rows a block it decodes three times that.
BLOCK_ROWS = 1 << 11
CHUNK_SUFFIX = ".chunk"
_NUM_THREADS = 16  # a request to S3 waits 20 to 100 ms
_HIGH = np.uint64(0xFFFFFFFF00000000)
_32 = np.uint64(32)
_INDEX = pa.schema(
    [
        ("chunk", pa.dictionary(pa.int32(), pa.string())),
        ("first_key", pa.uint64()),  # of the block
        ("start", pa.int64()),  # the block's bytes start..stop of the chunk
        ("stop", pa.int64()),
    ]
)


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


def write_chunk(folder: Folder, name: str, rows: pa.Table) -> dict[str, Any]:
    """Write sorted rows as the chunk `name`; returns its entry for `write_index`, for JSON."""
    sink, stops = pa.BufferOutputStream(), []
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    for block in rows.combine_chunks().to_batches(max_chunksize=BLOCK_ROWS):
        with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
            writer.write_batch(block)
        stops.append(sink.tell())
    folder.write_bytes(name, sink.getvalue())
    firsts = rows["key"].to_numpy()[::BLOCK_ROWS]
    return {"name": name, "firsts": _to_text(firsts), "stops": _to_text(np.array(stops, np.int64))}


def _to_text(numbers: NDArray[Any]) -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def write_index(folder: Folder, name: str, chunks: Iterable[Mapping[str, Any]]) -> int:
    """Write the index of all chunks of `folder`, as returned by `write_chunk`; their bytes."""
    found = sorted(chunks, key=lambda chunk: str(chunk["name"]))
    firsts = [np.frombuffer(base64.b64decode(c["firsts"]), np.uint64) for c in found]
    stops = [np.frombuffer(base64.b64decode(c["stops"]), np.int64) for c in found]
    numbers = np.repeat(np.arange(len(found), dtype=np.int32), [len(those) for those in firsts])
    names = pa.array([str(chunk["name"]) for chunk in found], pa.string())
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(numbers), names),
        _joined(firsts, np.uint64),
        _joined([np.concatenate([[0], those[:-1]]) for those in stops], np.int64),
        _joined(stops, np.int64),
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _INDEX) as writer:
        writer.write_table(pa.table(columns, schema=_INDEX))
    folder.write_bytes(name, sink.getvalue())
    return int(sum(those[-1] for those in stops))


def _joined(parts: Sequence[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *parts]).astype(dtype)


@dataclass(frozen=True)
class _Span:
    """The blocks of one chunk that a task has read: their bytes, first keys and edges."""

    data: pa.Buffer
    firsts: NDArray[np.uint64]
    edges: NDArray[np.int64]  # of block i: bytes edges[i]..edges[i + 1] of `data`

    def rows(self, low: int, high: int) -> pa.Table | None:
        """The rows with low <= key <= high; decodes the blocks that may have some."""
        start, stop = _blocks(self.firsts, low, high)
        streams = (
            pa.ipc.open_stream(self.data.slice(self.edges[at], self.edges[at + 1] - self.edges[at]))
            for at in range(start, stop)
        )
        tables = [stream.read_all() for stream in streams]
        if not tables:
            return None
        blocks = pa.concat_tables(tables)
        rows = _between(blocks.combine_chunks(), low, high)
        if 2 * rows.num_rows > blocks.num_rows:
            return rows
        return rows.take(pa.array(np.arange(rows.num_rows)))  # a slice would keep all its blocks


def _blocks(firsts: NDArray[np.uint64], low: int, high: int) -> tuple[int, int]:
    """The blocks start..stop that may have keys low..high; the last key of a block is unknown."""
    start = max(0, int(np.searchsorted(firsts, np.uint64(low))) - 1)
    return start, int(np.searchsorted(firsts, np.uint64(high), side="right"))


class KeyRange:
    """A range of keys of all chunks, in memory as it is stored; parts of it are decoded."""

    def __init__(self, folder: Folder, index: str, low: int, high: int) -> None:
        """Read the index `index` of the chunks of `folder`, then each chunk with one request."""
        table = pa.ipc.open_stream(folder.read_bytes(index)).read_all().combine_chunks()
        chunks = one_chunk(table["chunk"])
        numbers, names = chunks.indices.to_numpy(), chunks.dictionary.to_pylist()
        firsts, starts, stops = (table[n].to_numpy() for n in ("first_key", "start", "stop"))
        edges = np.searchsorted(numbers, np.arange(len(names) + 1))

        def read(at: int) -> _Span | None:
            here = slice(edges[at], edges[at + 1])
            start, stop = (int(edges[at]) + block for block in _blocks(firsts[here], low, high))
            if start == stop:
                return None
            first = int(starts[start])
            data = folder.read_span(names[at], first, int(stops[stop - 1]))
            ends = np.append(starts[start:stop], stops[stop - 1]) - first
            return _Span(pa.py_buffer(data), firsts[start:stop].copy(), ends)

        with ThreadPoolExecutor(_NUM_THREADS) as threads:
            self._spans = [span for span in threads.map(read, range(len(names))) if span]

    def rows(self, low: int, high: int) -> list[pa.Table]:
        """One table per chunk that has rows with low <= key <= high: those rows, sorted by key."""
        found = (span.rows(low, high) for span in self._spans)
        return [table for table in found if table is not None and table.num_rows]


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
