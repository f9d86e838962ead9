"""The pair store: clean rows to chunks, chunks to shards; what a Ray task of prepare does.

A query's pairs lie in one *bucket*: an equal range of the query keys, as many as the rows of the
first addition ask for. A bucket of a later addition holds only pairs that no earlier one has, and
several buckets of few new pairs make one shard. Shards are sorted by query and title, and never
written again. No Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from raydistill.data.pairs import collapse, group_keys, pair_ids, run_starts
from raydistill.files.folder import SHARD_SUFFIX, Folder
from raydistill.files.inputs.raw_rows import one_chunk
from raydistill.files.pieces import PIECE_ROWS
from raydistill.files.schema import WEIGHTS
from raydistill.serving.text.unit_names import Names

FILL = 0.75  # buckets differ in size; aimed lower, few are cut into a whole shard and a crumb
_BATCH_ROWS = 1 << 12  # a gather reads only the batches of a chunk that overlap its range
_NUM_THREADS = 16  # a look into a chunk in a bucket is four requests, each 20 ms of waiting
_INDEX = b"first_keys"
_HALF = 32  # buckets divide the high half of the keys; the low half decides splits
_HIGH = np.uint64(0xFFFFFFFF00000000)
_32 = np.uint64(32)


@dataclass(frozen=True)
class Grid:
    """How an addition's shards divide the query keys: groups of whole buckets."""

    num_buckets: int  # of the store
    num_groups: int  # of the addition; in the first, each bucket is a group
    addition: int

    def name(self, group: int) -> str:
        """The first part of the names of a group's shards."""
        return f"part-a{self.addition:03d}-{group:05d}" if self.addition else f"part-{group:05d}"

    def first_bucket(self, group: int) -> int:
        """The bucket at which a group begins; that of the last but one ends the last."""
        return self.num_buckets * group // self.num_groups

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        """The smallest and the largest query key of the groups first..last."""
        low, high = self.first_bucket(first), self.first_bucket(last + 1)
        return _first_key(low, self.num_buckets), _first_key(high, self.num_buckets) - 1

    def overlapping(self, buckets: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
        """Number, first and last bucket of each group that holds any bucket of first..last."""
        first, last = (((at + 1) * self.num_groups - 1) // self.num_buckets for at in buckets)
        for group in range(first, last + 1):
            yield group, self.first_bucket(group), self.first_bucket(group + 1) - 1


def make_grid(num_rows: int, *, shard_rows: int, first: Grid | None, addition: int) -> Grid:
    """The grid of an addition of so many clean rows."""
    num = max(1, round(num_rows / (shard_rows * FILL)))
    if first is None:
        return Grid(num, num, addition)
    return Grid(first.num_buckets, min(num, first.num_buckets), addition)


def _first_key(bucket: int, num_buckets: int) -> int:
    return ((1 << _HALF) * bucket // num_buckets) << _HALF


def bucket_of(keys: NDArray[np.uint64], num_buckets: int) -> NDArray[np.uint64]:
    """The bucket of each query key: the last whose first key is not above it."""
    return (((keys >> _32) + np.uint64(1)) * np.uint64(num_buckets) - np.uint64(1)) >> _32


def group_of(name: str) -> str:
    """What Grid.name gave: a shard's name without its piece and its ending."""
    parts = name.removesuffix(SHARD_SUFFIX).split("-")
    return "-".join(parts[: 3 if parts[1:2] and parts[1].startswith("a") else 2])


def shard_name(group: str, piece: int) -> str:
    """The name of a group's shard; a group of more rows than a shard holds has several."""
    return f"{group}-{piece:03d}{SHARD_SUFFIX}" if piece else f"{group}{SHARD_SUFFIX}"


# --- chunks: what a raw file leaves, sorted by key


def sort_rows(rows: pa.Table, keys: NDArray[np.uint64], *, dedupe: bool) -> pa.Table:
    """Clean rows with `key`, sorted by it; equal pairs, if `dedupe`, become one with a weight.

    The low half of the key is replaced by one of the pair, so that equal pairs become neighbours:
    a pair that occurs ten million times leaves its chunks as a few rows. Pairs with a label or a
    source stay as they are: those are settled when all of them are together.
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
    """Write sorted rows as an Arrow file whose footer says with which key each batch begins."""
    firsts = rows["key"].to_numpy()[::_BATCH_ROWS]
    schema = rows.schema.with_metadata({_INDEX: firsts.tobytes()})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_table(rows.combine_chunks(), max_chunksize=_BATCH_ROWS)
    folder.write_bytes(name, sink.getvalue())


def read_range(folder: Folder, names: Sequence[str], low: int, high: int) -> list[pa.Table]:
    """The rows with low <= key <= high of each chunk that has some, sorted by key."""

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
    """PAIRS or JUDGED rows of a key range out of sorted tables, and how many raw rows they were."""
    parts = [part for part in (_between(table, low, high) for table in tables) if part.num_rows]
    if not parts:
        return None
    rows = pa.concat_tables(parts)
    num_raw = rows.num_rows
    if "weight" in rows.column_names:
        num_raw = int(rows["weight"].to_numpy().sum(dtype=np.float64))
    return collapse(rows, dedupe=dedupe), num_raw


# --- shards


@dataclass(frozen=True)
class Known:
    """The shards that earlier additions have written, by their grids."""

    folder: Folder
    grids: tuple[Grid, ...]
    extra_units: Names = ()  # that the keys of the pairs know

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name in self.folder.shards():
            groups.setdefault(group_of(name), []).append(name)
        return groups

    def shards(self, pairs: pa.Table, *, buckets: tuple[int, int]) -> Iterator[str]:
        """Names of the shards that may hold any of the pairs, which lie in buckets first..last."""
        keys = group_keys(pairs, extra_units=self.extra_units)
        wanted = np.unique(bucket_of(keys, self.grids[0].num_buckets))
        for names, low, high in self.groups(buckets):
            if np.any((wanted >= low) & (wanted <= high)):
                yield from names

    def groups(self, buckets: tuple[int, int]) -> Iterator[tuple[list[str], int, int]]:
        """Shards, first and last bucket of each group that holds any bucket of first..last."""
        for grid in self.grids:
            for group, low, high in grid.overlapping(buckets):
                yield self._names.get(grid.name(group), []), low, high

    def split(self, pairs: pa.Table, *, buckets: tuple[int, int]) -> tuple[pa.Table, pa.Table]:
        """Pairs that no shard has yet; and WEIGHTS rows for those that one has.

        Pairs are known by their ids and then by their texts: an id is a hash, and two of 10^9
        pairs share one with a chance of 3 %.
        """
        ids = pairs["pair_id"].to_numpy()
        is_known = np.zeros(len(ids), bool)
        deltas: list[pa.Table] = []
        for name in self.shards(pairs, buckets=buckets):
            shard = self.folder.open_rows(name, by_range=False)
            for start in range(0, shard.num_rows, PIECE_ROWS):
                stop = start + PIECE_ROWS
                there = shard.read(start, stop, ["pair_id"])["pair_id"].to_numpy()
                if not np.isin(ids, there).any():
                    continue
                texts = shard.read(start, stop, ["query", "title"])
                here, rows = _same_pairs(pairs, texts, there)
                is_known[here] = True
                weights, rows = pairs["weight"].to_numpy()[here], (rows + start).astype(np.int32)
                columns = [pa.array([name] * len(rows)), pa.array(rows), weights]
                deltas.append(pa.table(columns, schema=WEIGHTS))
        new = pairs.filter(pa.array(~is_known)) if is_known.any() else pairs
        return new, pa.concat_tables(deltas) if deltas else WEIGHTS.empty_table()


def _same_pairs(
    pairs: pa.Table, shard: pa.Table, there: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of each pair that the shard has, and its row in the shard, in the shard's order."""
    left = pairs.select(["query", "title"]).append_column("here", pa.array(np.arange(len(pairs))))
    hit = np.flatnonzero(np.isin(there, pairs["pair_id"].to_numpy()))
    right = shard.select(["query", "title"]).take(pa.array(hit))
    right = right.append_column("there", pa.array(hit))
    both = left.join(right, ["query", "title"], join_type="inner").sort_by("there")
    return both["here"].to_numpy(), both["there"].to_numpy()
