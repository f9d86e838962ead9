"""Files of scores to an index by query key, and the lookup of the pairs of a shard. No Ray.

Scatter: a part of a file becomes chunks (key, pair_id, value), sorted by key, and quarantine rows.
Gather: a range of keys is read from all chunks; of each pair one row with the logit of its mean
value stays. The index has the pairs' own order, so a shard reads what lies in its range of keys and
no more: 10^9 pairs are joined with 10^7 scores in the memory of one bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.config.data import TextRules
from raydistill.data.bucket_layout import BucketLayout, bucket_of
from raydistill.data.chunks import CHUNK_SUFFIX, KeyRange, write_chunk
from raydistill.data.clean_rows import CleanRows, read_clean
from raydistill.data.manifest import RawFile
from raydistill.data.pairs import group_keys, pair_ids
from raydistill.data.scores.buckets import read_bucket, write_bucket
from raydistill.data.scores.columns import ScoreRule
from raydistill.files.folder import Folder
from raydistill.files.inputs.raw_rows import one_chunk
from raydistill.files.schema import RAW_QUARANTINE
from raydistill.serving.units.names import Names

CHUNK_ROWS = 1 << 20  # 20 MB in memory
BUCKET_ROWS = 1 << 18  # 5 MB; a shard of the pairs overlaps one bucket or two
_BUCKETS_A_TASK = 8  # 2 million scores, 40 MB
INDEX = "index.arrow"  # of the chunks
_MOST_EXAMPLES = 3  # of a part, for messages
Item = dict[str, Any]


@dataclass(frozen=True)
class ScoreFiles:
    """A teacher's files of scores: how they are read, and where the index is."""

    rules: TextRules
    rule: ScoreRule
    index: Folder
    quarantine: Folder
    extra_units: Names = ()  # the configured units, which query keys depend on

    @property
    def chunks(self) -> Folder:
        """What scatter writes for gather; deleted when the index is complete."""
        return self.index / "_chunks"


def scatter_scores(item: Item, *, files: ScoreFiles) -> Item:
    """Write the chunks of one part of a file; returns counts and some of its pairs."""
    name, file = f"part-{item['number']:05d}", RawFile(**item["file"])
    done = files.chunks.read_json(f"{name}.json")
    if done is not None and "chunks" in done:  # an older version wrote chunks of another form
        return done
    counts, examples = {"rows_in": 0, "quarantined": 0}, list[list[str]]()
    part = _Part(files, name)
    for rows in read_clean(file, files.rules, span=tuple(item["span"])):
        scored, rejects = _scored(rows, file=file, files=files)
        counts["rows_in"] += rows.num_rows
        counts["quarantined"] += rejects.num_rows
        examples = examples or _examples(rows.pairs)
        part.add(scored, rejects)
    part.write()
    result: Item = {"counts": counts, "examples": examples, "number": item["number"]}
    result["chunks"] = part.chunks
    files.chunks.write_json(f"{name}.json", result)
    return result


class _Part:
    """Holds the rows of a part until they fill a chunk."""

    def __init__(self, files: ScoreFiles, name: str) -> None:
        self.files, self.name, self.num_chunks = files, name, 0
        self.chunks: list[Item] = []  # their entries in the index
        self.scored: list[pa.Table] = []
        self.rejects: list[pa.Table] = []

    def add(self, scored: pa.Table, rejects: pa.Table) -> None:
        """Hold the rows of a block; write all when they fill a chunk."""
        self.scored.append(scored)
        self.rejects.append(rejects)
        if sum(table.num_rows for table in (*self.scored, *self.rejects)) >= CHUNK_ROWS:
            self.write()

    def write(self) -> None:
        """Write the rows that are held."""
        name = f"{self.name}-{self.num_chunks:03d}"
        if any(table.num_rows for table in self.scored):
            rows = pa.concat_tables(self.scored)
            order = pa.array(np.argsort(rows["key"].to_numpy()))
            chunk = write_chunk(self.files.chunks, f"{name}{CHUNK_SUFFIX}", rows.take(order))
            self.chunks.append(chunk)
        if any(table.num_rows for table in self.rejects):
            self.files.quarantine.write_table(f"{name}.parquet", pa.concat_tables(self.rejects))
        self.num_chunks += 1
        self.scored, self.rejects = [], []


def _examples(pairs: pa.Table) -> list[list[str]]:
    rows = pairs.slice(0, _MOST_EXAMPLES).to_pylist()
    return [[row["query"], row["title"]] for row in rows]


def _scored(rows: CleanRows, *, file: RawFile, files: ScoreFiles) -> tuple[pa.Table, pa.Table]:
    """Key, pair id and value of the good rows of a block; quarantine rows for the others."""
    raw = rows.raw.table.take(pa.array(rows.kept))
    values_B, problems = files.rule.read(raw)
    good, bad = pc.is_null(problems), np.flatnonzero(pc.is_valid(problems))
    pairs = rows.pairs.filter(good)
    table = pa.table(
        {
            "key": group_keys(pairs, extra_units=files.extra_units),
            "pair_id": pair_ids(one_chunk(pairs["query"]), one_chunk(pairs["title"])),
            "value": values_B[np.asarray(good)],
        }
    )
    if not len(bad):
        return table, rows.rejects
    texts = rows.pairs.select(["query", "title"]).take(pa.array(bad))
    at = rows.kept[bad]
    lines = rows.raw.lines
    rejected = [
        pa.array([file.uri] * len(bad), pa.string()),
        pa.array(rows.raw.rows[at], pa.int64()),
        problems.take(pa.array(bad)),
        *(pc.utf8_slice_codeunits(one_chunk(texts[name]), 0, 200) for name in ("query", "title")),
        pa.nulls(len(bad), pa.int64()) if lines is None else pa.array(lines[at], pa.int64()),
    ]
    return table, pa.concat_tables([rows.rejects, pa.table(rejected, schema=RAW_QUARANTINE)])


def plan_buckets(num_rows: int) -> int:
    """The number of buckets of an index: about `BUCKET_ROWS` scores each."""
    return max(1, round(num_rows / BUCKET_ROWS))


def plan_gather(num_buckets: int) -> list[Item]:
    """The input of each task: some buckets, whose ranges of all chunks are read at once."""
    starts = range(0, num_buckets, _BUCKETS_A_TASK)
    return [{"buckets": (at, min(at + _BUCKETS_A_TASK, num_buckets) - 1)} for at in starts]


def gather_scores(item: Item, *, files: ScoreFiles, num_buckets: int) -> Item:
    """Write some buckets of the index; returns their pairs, and those with different scores."""
    layout, (first, last) = BucketLayout(num_buckets, num_buckets, 0), item["buckets"]
    found = KeyRange(files.chunks, INDEX, *layout.key_range(first, last))
    totals = {"pairs": 0, "averaged": 0}
    for bucket in range(first, last + 1):
        tables = found.rows(*layout.key_range(bucket, bucket))
        if tables:
            rows, num_averaged = merge_scores(pa.concat_tables(tables), files.rule)
            write_bucket(files.index, _bucket_name(bucket), rows)
            totals["pairs"] += rows.num_rows
            totals["averaged"] += num_averaged
    return totals


def merge_scores(rows: pa.Table, rule: ScoreRule) -> tuple[pa.Table, int]:
    """One row a pair (key, pair_id, logit), sorted by key, and the pairs with different scores."""
    keys, ids = rows["key"].to_numpy(), rows["pair_id"].to_numpy()
    values = rows["value"].to_numpy()
    order = np.lexsort((values, ids, keys))  # by value too: a sum depends on its order
    keys, ids, values = keys[order], ids[order], values[order]
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(keys) != 0) | (np.diff(ids) != 0)]))
    ends = np.append(starts[1:], len(ids))
    means = np.add.reduceat(values.astype(np.float64), starts) / (ends - starts)
    columns = {"key": keys[starts], "pair_id": ids[starts], "logit": rule.logits(means)}
    return pa.table(columns), int(np.count_nonzero(values[ends - 1] > values[starts]))


def _bucket_name(bucket: int) -> str:
    return f"bucket-{bucket:05d}.arrow"


@dataclass(frozen=True)
class ScoreIndex:
    """The complete index of a teacher's scores."""

    folder: Folder
    num_buckets: int
    extra_units: Names = ()

    def logits(self, pairs: pa.Table) -> pa.FloatArray:
        """The logit of each pair (`pair_id`, `query`, `title`), null without a score."""
        ids = pairs["pair_id"].to_numpy()
        logits_B, is_there_B = np.zeros(len(ids), np.float32), np.zeros(len(ids), bool)
        if len(ids):
            order = np.argsort(ids)
            ids = ids[order]
            keys = group_keys(pairs, extra_units=self.extra_units)
            for scores in self._range(int(keys.min()), int(keys.max())):
                wanted = scores["pair_id"].to_numpy()
                first = np.searchsorted(ids, wanted)
                last = np.searchsorted(ids, wanted, side="right")
                _fill(logits_B, is_there_B, order, first, last, scores["logit"].to_numpy())
        return pa.array(logits_B, mask=~is_there_B)

    def _range(self, low: int, high: int) -> Iterator[pa.Table]:
        """The scores of a range of keys, one bucket at a time."""
        first, last = bucket_of(np.array([low, high], np.uint64), self.num_buckets).tolist()
        there = set(self.folder.files())
        for bucket in range(first, last + 1):
            if _bucket_name(bucket) in there:
                rows = read_bucket(self.folder, _bucket_name(bucket), low, high)
                if rows is not None:
                    yield rows


def _fill(
    logits_B: NDArray[np.float32],
    is_there_B: NDArray[np.bool_],
    order: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> None:
    """Write each score to the rows first..last of its pair: equal pairs if none were removed."""
    num = last - first
    hit = np.repeat(np.arange(len(num)), num)
    offset = np.arange(len(hit)) - np.repeat(np.cumsum(num) - num, num)
    rows = order[first[hit] + offset]
    logits_B[rows], is_there_B[rows] = scores[hit], True
