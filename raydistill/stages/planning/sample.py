"""A sample of a run's pairs, from its shards or its raw files, and the cost of preparing it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raydistill.data.chunks import KeyRange, gather, sort_rows, write_chunk, write_index
from raydistill.data.clean_rows import CleanRows, read_clean
from raydistill.data.manifest import RawFile, find_files
from raydistill.data.pairs import group_keys
from raydistill.data.prepare_steps import Item, plan_parts
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.schema import PAIRS
from raydistill.runs.run_folder import Run

SAMPLE_PAIRS = 4_096
_PREPARED_ROWS = 1 << 16  # raw rows that are cleaned for the rate of prepare: about a second
_CHUNK, _INDEX, _SHARD = "part-00000.arrow", "index.arrow", "part-00000.parquet"
_LAST_KEY = 2**64 - 1
_MOST_PARTS = 8  # places in the raw files, or shards, that the sample is taken from


@dataclass(frozen=True)
class Sample:
    """Some pairs as PAIRS; what `prepare` takes for one raw row, None if it has run."""

    pairs: pa.Table
    bytes_each: float  # of a pair in its shard
    core_us: float | None  # CPU time of a raw row, from its file to its shard
    source: str


def draw_sample(run: Run, *, num_pairs: int) -> Sample:
    """Pairs of several shards, or of several raw files where `prepare` has not run.

    Raises:
        UserError: there is no usable pair.
    """
    shards = (run.pairs.success() or {"shards": {}})["shards"]
    if shards:
        return _of_shards(run, sorted(shards), num_pairs)
    return _of_raw_files(run, num_pairs)


def _of_shards(run: Run, names: list[str], num_pairs: int) -> Sample:
    some = [names[at] for at in _spread(len(names))]
    each = -(-num_pairs // len(some))
    tables = [run.pairs.read_rows(name, 0, each, columns=PAIRS.names) for name in some]
    whole = run.pairs.read_table(some[0], columns=PAIRS.names)
    pairs = _shuffled(pa.concat_tables(tables), num_pairs)
    return Sample(pairs, _bytes_each(whole), None, f"{len(some)} shards of {run.pairs}")


def _spread(num: int) -> list[int]:
    return sorted({int(at) for at in np.linspace(0, num - 1, min(num, _MOST_PARTS))})


def _of_raw_files(run: Run, num_pairs: int) -> Sample:
    parts = plan_parts(find_files(run.config.pairs))
    some = [parts[at] for at in _spread(len(parts))]
    each = -(-_PREPARED_ROWS // len(some))
    _prepare(run, some[:1], 1)  # loads compiled code
    start_s = time.process_time()
    num_raw, pairs, num_bytes = _prepare(run, some, each)
    core_us = 1e6 * (time.process_time() - start_s) / num_raw
    source = f"the heads of {len(some)} raw files or row groups, {num_raw:,} rows"
    bytes_each = num_bytes / max(int(pairs.num_rows), 1)
    return Sample(_shuffled(pairs, num_pairs), bytes_each, core_us, source)


def _prepare(run: Run, parts: list[Item], num_rows: int) -> tuple[int, pa.Table, int]:
    """The steps of `prepare` on the heads of parts: raw rows, distinct pairs, bytes of a shard."""
    config, tables, num_raw = run.config, [], 0
    for part in parts:
        for rows in _head(run, part, num_rows):
            num_raw += rows.num_rows
            tables.append(rows.pairs)
    clean = pa.concat_tables(tables)
    if not clean.num_rows:
        raise UserError(
            f"no usable pair at the head of {parts[0]['file']['uri']}: `raydistill inspect` shows "
            "the reasons"
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder, dedupe = Folder(scratch), config.pairs.dedupe
        keys = group_keys(clean, extra_units=config.ngrams.unit_names)
        chunk = write_chunk(folder, _CHUNK, sort_rows(clean, keys, dedupe=dedupe))
        write_index(folder, _INDEX, [chunk])
        tables = KeyRange(folder, _INDEX, 0, _LAST_KEY).rows(0, _LAST_KEY)
        found = gather(tables, 0, _LAST_KEY, dedupe=dedupe)
        pairs = (found or (PAIRS.empty_table(), 0))[0].select(PAIRS.names)
        folder.write_table(_SHARD, pairs)
        return num_raw, pairs, len(folder.read_bytes(_SHARD))


def _head(run: Run, part: Item, num_rows: int) -> Iterator[CleanRows]:
    """The clean rows of the head of a part, block by block."""
    file, num = RawFile(**part["file"]), 0
    for rows in read_clean(file, run.config.pairs, span=tuple(part["span"])):
        yield rows
        num += rows.num_rows
        if num >= num_rows:
            return


def _shuffled(pairs: pa.Table, num_pairs: int) -> pa.Table:
    """Some rows in random order: shards are sorted by query, and lengths follow queries."""
    order = np.random.default_rng(0).permutation(pairs.num_rows)[:num_pairs]
    return pairs.take(pa.array(order)).combine_chunks()


def _bytes_each(pairs: pa.Table) -> float:
    """Bytes of a pair in a shard of these pairs."""
    with tempfile.TemporaryDirectory() as scratch:
        Folder(scratch).write_table(_SHARD, pairs)
        num_bytes = len(Folder(scratch).read_bytes(_SHARD))
    return num_bytes / max(int(pairs.num_rows), 1)
