"""Dev and test splits drawn from the transfer set, where no judged pairs are them. No Ray.

The hash of its query puts a pair into a split, as for judged pairs. Of each split at most 20,000
pairs are kept: those of the queries with the lowest hashes, so that every part of the raw files can
be cut alone, and the result depends on neither the order nor the number of the tasks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.data.clean_rows import read_clean
from raydistill.data.held_out.cut import KEY, lowest
from raydistill.data.manifest import RawFile
from raydistill.data.pairs import collapse, group_keys, split_of
from raydistill.data.prepare_steps import Dataset, plan_parts
from raydistill.files.folder import Folder
from raydistill.files.schema import SPLITS
from raydistill.serving.text.hashing import hash_texts

MOST_ROWS = 1 << 26  # raw rows that are read for it; of more, a sample of the parts
_ROW_BYTES = 64  # of a file that does not tell its rows: 2^26 rows are 4 GiB
_NUM_THREADS = 16  # one read from S3 waits 20 to 100 ms
_BATCH = 64  # chunks in memory at a time, each of at most 40,000 pairs
ONE_SHARD = "part-00000.parquet"
Item = dict[str, Any]


@dataclass(frozen=True)
class Draw:
    """What a task needs: the raw files' dataset, the shares, the splits, and where it writes."""

    pairs: Dataset
    folder: Folder
    splits: tuple[str, ...]  # "dev", "test" or both
    dev_share: float
    test_share: float
    taken: NDArray[np.uint64]  # keys of judged test queries: in no other split

    @property
    def chunks(self) -> Folder:
        """What the tasks found in their parts; deleted at the end."""
        return self.folder / "_chunks"

    def masks(self, keys: NDArray[np.uint64]) -> dict[str, NDArray[np.bool_]]:
        """The rows of each split, by their query keys."""
        found = split_of(keys, dev_share=self.dev_share, test_share=self.test_share)
        is_free = ~np.isin(keys, self.taken)
        return {split: (found == SPLITS.index(split)) & is_free for split in self.splits}


def plan_draw(files: Sequence[RawFile]) -> list[Item]:
    """The parts of the raw files to read: all, or 2^26 rows that a hash of the contents chooses."""
    parts = plan_parts(files)
    names = [f"{p['file']['digest']} {p['file']['size_bytes']} {p['span']}" for p in parts]
    order = np.argsort(hash_texts(pa.array(names, pa.string())), kind="stable")
    rows = np.array([_num_rows(part) for part in parts], np.int64)[order]
    is_read = np.cumsum(rows) - rows < MOST_ROWS  # the first one always
    return [parts[at] for at in sorted(order[is_read].tolist())]


def _num_rows(part: Item) -> int:
    """The rows of a part, estimated from the bytes of a file that does not tell them."""
    rows: int | None = part["rows"]
    return part["file"]["size_bytes"] // _ROW_BYTES if rows is None else rows


def _chunk_name(item: Item) -> str:
    """A name of a part, of its content and of how it is read: another content, another chunk."""
    file = RawFile(**item["file"])
    what = [*file.identity, *file.reading, file.columns, list(item["span"])]
    digest = hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=8)
    return f"{item['number']:05d}-{digest.hexdigest()}.parquet"


def draw_part(item: Item, *, draw: Draw) -> Item:
    """Write the lowest queries of each split that are in a part; skipped if that file exists."""
    name = _chunk_name(item)
    if not draw.chunks.exists(name):
        file = RawFile(**item["file"])
        found: dict[str, list[pa.Table]] = {split: [] for split in draw.splits}
        for rows in read_clean(file, draw.pairs.rules, span=tuple(item["span"])):
            keys = group_keys(rows.pairs, extra_units=draw.pairs.extra_units)
            table = rows.pairs.append_column(KEY, pa.array(keys))
            for split, mask in draw.masks(keys).items():
                part = table.filter(pa.array(mask))
                found[split] = [lowest(pa.concat_tables([*found[split], part]))]
        tables = [_of_split(split, parts) for split, parts in found.items() if parts]
        draw.chunks.write_table(name, pa.concat_tables(tables) if tables else _nothing())
    return {**item, "chunk": name}


def _of_split(split: str, parts: Sequence[pa.Table]) -> pa.Table:
    table = pa.concat_tables(parts)
    return table.append_column("split", pa.array([split] * table.num_rows, pa.string()))


def _nothing() -> pa.Table:
    names = ("query", "title", "split")
    return pa.table({name: pa.array([], pa.string()) for name in names} | {KEY: _no_keys()})


def _no_keys() -> pa.Array:
    return pa.array([], pa.uint64())


def merge(item: Item, *, draw: Draw) -> Item:
    """All parts to one shard a split; returns rows read and the rows of each shard."""
    columns = ["query", "title", *(["source"] if draw.pairs.rules.keeps_source else [])]
    shards: dict[str, int] = {}
    num_rows = 0
    for split, found in _lowest_of(item["chunks"], draw=draw).items():
        rows = found.select(columns)
        if not rows.num_rows:
            continue
        num_rows += rows.num_rows
        pairs = collapse(rows, dedupe=True)
        (draw.folder / split).write_table(ONE_SHARD, pairs)
        shards[f"{split}/{ONE_SHARD}"] = pairs.num_rows
    return {"rows_in": num_rows, "shards": shards}


def _lowest_of(chunks: Sequence[str], *, draw: Draw) -> dict[str, pa.Table]:
    """The lowest queries of each split in the chunks, some chunks in memory at a time."""
    found: dict[str, pa.Table] = {}
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        for first in range(0, len(chunks), _BATCH):
            tables = list(threads.map(draw.chunks.read_table, chunks[first : first + _BATCH]))
            for split in draw.splits:
                mine = [t.filter(pc.equal(t["split"], split)) for t in tables if t.num_rows]
                if mine:
                    before = [found[split]] if split in found else []
                    found[split] = lowest(pa.concat_tables([*before, *mine]))
    return found
