"""The work of a Ray task of `prepare`: scatter one part of a raw file, or gather a range of keys.

Scatter: a part of a raw file becomes chunks sorted by key (without `dedupe`, shards) and quarantine
rows. Gather: bucket groups are read from all chunks and become shards. After a kill a step runs
again and writes the same bytes, unless its last file exists. Does not use Ray.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.config.data import JudgedConfig, TextRules
from raydistill.data.bucket_layout import BucketLayout, ExistingPairs, bucket_group_of, shard_name
from raydistill.data.chunks import gather, read_range, sort_rows, write_chunk
from raydistill.data.clean_rows import read_clean
from raydistill.data.manifest import RawFile
from raydistill.data.pairs import collapse, count_conflicts, group_keys, split_of
from raydistill.files.folder import SHARD_SUFFIX, Folder
from raydistill.files.inputs.readers import row_group_spans
from raydistill.files.schema import CONFLICTS
from raydistill.serving.text.unit_names import Names

PART_ROWS = 1 << 20  # Parquet rows per task, and clean rows in memory per task: 100 to 200 MB
GATHER_ROWS = 1 << 21  # clean rows that a gather task has in memory: 200 to 400 MB
_NUM_THREADS = 16
_GATHER_TASKS = 16  # at least, if there are as many shards: for the cores of a cluster
_MOST_BYTES = 1 << 30  # half of the 2 GiB that an Arrow string array can hold
_FLOAT_EXACT = 1 << 24  # float32 represents every integer below it exactly
_CHUNK_SUFFIX = ".arrow"
Item = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """One increment of one of the two datasets: the settings and folders that a worker needs."""

    name: str  # "pairs" or "judged"
    rules: TextRules
    folder: Folder
    quarantine: Folder
    splits: tuple[str, ...]  # subfolders; ("",) for the pairs
    shard_rows: int
    dedupe: bool
    increment: int = 0
    extra_units: Names = ()  # the configured units, which query keys depend on

    @property
    def all_chunks(self) -> Folder:
        """Chunks that scatter tasks write for gather tasks; deleted when an increment completes."""
        return self.folder / "_chunks"

    @property
    def chunks(self) -> Folder:
        """The chunks of this increment."""
        return self.all_chunks / str(self.increment)

    @property
    def weights(self) -> Folder:
        """Additional weights of pairs of earlier increments that this one repeats."""
        return self.folder / "_weights"

    def split_folder(self, split: str) -> Folder:
        """The folder of the shards of a split."""
        return self.folder / split if split else self.folder

    def delete(self) -> None:
        """Remove all files of this increment, which is not complete."""
        if self.increment == 0:
            self.folder.delete()
            self.quarantine.delete()
            return
        self.chunks.delete()
        prefix = BucketLayout(1, 1, self.increment).name(0).rpartition("-")[0]
        for place in (self.folder, self.weights, self.quarantine):
            for name in place.shards():
                if name.startswith(prefix):
                    place.delete_file(name)

    def part_name(self, number: int) -> str:
        """The name of a part of the raw files: of its quarantine file and, if any, its shard."""
        return BucketLayout(1, 1, self.increment).name(number)


@dataclass(frozen=True)
class HeldOut:
    """Query keys to exclude, by the `split` of the file: those of queries in other splits."""

    keys: Mapping[str, NDArray[np.uint64]]

    def free(self, keys: NDArray[np.uint64], *, split: str) -> NDArray[np.bool_]:
        """Mask of the rows of a file of `split` that are not excluded."""
        held = self.keys.get(split, np.empty(0, np.uint64))
        return ~np.isin(keys, held) if len(held) else np.ones(len(keys), bool)


def file_keys(file: RawFile, rules: TextRules, *, extra_units: Names = ()) -> NDArray[np.uint64]:
    """The distinct query keys of a raw file's clean rows."""
    found = [np.empty(0, np.uint64)]
    for rows in read_clean(file, rules):
        found.append(group_keys(rows.pairs, extra_units=extra_units))
    return np.unique(np.concatenate(found))


def scatter_part(item: Item, *, dataset: Dataset, held_out: HeldOut) -> Item:
    """Clean one part into sorted chunks (or shards) and quarantine rows; return counts and shards.

    That result is written last, as JSON: a part that has it is complete and is not read again.
    """
    name = dataset.part_name(item["number"])
    found = dataset.chunks.read_json(f"{name}.json")
    if found is not None:
        return found
    file = RawFile(**item["file"])
    counts: Counter[str] = Counter(rows_in=0, lines_in=0, mended=0, quarantined=0, held_out=0)
    shards: dict[str, int] = {}
    writer = _PartWriter(dataset, name, counts, shards, split=file.split)
    for rows in read_clean(file, dataset.rules, span=tuple(item["span"])):
        good, keys = _free_rows(rows.pairs, file=file, dataset=dataset, held_out=held_out)
        counts.update(rows_in=rows.num_rows, quarantined=rows.rejects.num_rows)
        counts.update(lines_in=rows.num_rows + rows.raw.num_breaks, mended=rows.raw.num_mended)
        counts["held_out"] += rows.num_rows - good.num_rows - rows.rejects.num_rows
        writer.add(good, rows.rejects, keys)
    writer.close()
    result = {"counts": dict(counts), "shards": shards, "uri": file.uri}
    dataset.chunks.write_json(f"{name}.json", result)
    return result


def _free_rows(
    pairs: pa.Table, *, file: RawFile, dataset: Dataset, held_out: HeldOut
) -> tuple[pa.Table, NDArray[np.uint64]]:
    """Clean rows without those of held-out queries, and their query keys."""
    keys = group_keys(pairs, extra_units=dataset.extra_units)
    free = held_out.free(keys, split=file.split)
    return (pairs, keys) if free.all() else (pairs.filter(pa.array(free)), keys[free])


class _PartWriter:
    """Buffers the clean rows and rejects of a part and writes them in files of limited size."""

    def __init__(
        self,
        dataset: Dataset,
        name: str,
        counts: Counter[str],
        shards: dict[str, int],
        *,
        split: str,
    ) -> None:
        self.dataset, self.name, self.counts, self.shards = dataset, name, counts, shards
        self.split = split  # of all rows; "": determined by their keys
        self.max_rows = PART_ROWS if dataset.dedupe else dataset.shard_rows
        self.num_chunks = self.num_rows = self.num_rejects = self.num_bytes = 0
        self.waiting: list[tuple[pa.Table, pa.Table, NDArray[np.uint64]]] = []

    def add(self, good: pa.Table, bad: pa.Table, keys: NDArray[np.uint64]) -> None:
        """Add rows; write a file whenever `max_rows` rows are buffered."""
        while self.num_rows + good.num_rows >= self.max_rows:
            num_free_rows = self.max_rows - self.num_rows
            self._hold(good.slice(0, num_free_rows), bad, keys[:num_free_rows])
            self.write()
            good, bad, keys = good.slice(num_free_rows), bad.slice(0, 0), keys[num_free_rows:]
        self._hold(good, bad, keys)

    def _hold(self, good: pa.Table, bad: pa.Table, keys: NDArray[np.uint64]) -> None:
        if not (good.num_rows or bad.num_rows):
            return
        self.waiting.append((good, bad, keys))
        self.num_rows += good.num_rows
        self.num_rejects += bad.num_rows
        self.num_bytes += good.nbytes
        if self.num_rejects >= PART_ROWS or self.num_bytes >= _MOST_BYTES:
            self.write()

    def close(self) -> None:
        """Write the remaining rows."""
        if self.waiting:
            self.write()

    def write(self) -> None:
        """Write the buffered rows: one chunk per split, or a shard; and the rejects."""
        good, bad, all_keys = zip(*self.waiting, strict=True)
        rows, rejects, keys = (
            pa.concat_tables(good), pa.concat_tables(bad), np.concatenate(all_keys),
        )  # fmt: skip
        name = shard_name(self.name, self.num_chunks)
        if rejects.num_rows:
            self.dataset.quarantine.write_table(name, rejects)
        if self.dataset.dedupe:
            self._write_chunks(name.removesuffix(SHARD_SUFFIX) + _CHUNK_SUFFIX, rows, keys)
        elif rows.num_rows:
            self.dataset.folder.write_table(name, collapse(rows, dedupe=False))
            self.shards[name] = rows.num_rows
            self.counts["kept_"] += rows.num_rows
        self.num_chunks += 1
        self.num_rows = self.num_rejects = self.num_bytes = 0
        self.waiting = []

    def _write_chunks(self, name: str, rows: pa.Table, keys: NDArray[np.uint64]) -> None:
        for split, mask in _split_masks(self.dataset, keys, given=self.split):
            part, part_keys = (rows.filter(pa.array(mask)), keys[mask]) if split else (rows, keys)
            self.counts[f"kept_{split}"] += part.num_rows
            if part.num_rows:
                chunk = sort_rows(part, part_keys, dedupe=self.dataset.dedupe)
                write_chunk(self.dataset.chunks / (split or "all"), name, chunk)


def _split_masks(
    dataset: Dataset, keys: NDArray[np.uint64], *, given: str
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    rules = dataset.rules
    if given or not isinstance(rules, JudgedConfig):
        yield given, np.ones(len(keys), bool)
        return
    splits = split_of(keys, dev_share=rules.share("dev"), test_share=rules.share("test"))
    for at, split in enumerate(dataset.splits):
        yield split, splits == at


def gather_groups(
    item: Item,
    *,
    dataset: Dataset,
    layouts: dict[str, BucketLayout],
    known: dict[str, list[dict[str, Any]]],
) -> Item:
    """Read bucket groups from all chunks, deduplicate them and write their shards.

    Returns the raw rows, the rows of each shard, whether the number of raw rows is exact, and for
    judged pairs how many have rows with different labels.
    """
    split, (first, last) = item["split"], item["bucket_groups"]
    layout, folder = layouts[split], dataset.split_folder(item["split"])
    chunks = dataset.chunks / (split or "all")
    there = set(folder.shards())
    missing = [g for g in range(first, last + 1) if shard_name(layout.name(g), 0) not in there]
    finished = sorted(set(range(first, last + 1)) - set(missing))
    num_raw, shards, is_exact = _count_groups(finished, layout, dataset, split)
    has_labels = isinstance(dataset.rules, JudgedConfig)
    conflicts: dict[str, int] = {}
    if missing or has_labels:
        # Shards have mean labels: conflicts are counted in the chunks, also after a kill.
        ends = (first, last) if has_labels else (missing[0], missing[-1])
        names = [name for name in chunks.files() if name.endswith(_CHUNK_SUFFIX)]
        tables = read_range(chunks, names, *layout.key_range(*ends))
        if has_labels:
            conflicts = {CONFLICTS: count_conflicts(pa.concat_tables(tables)) if tables else 0}
    if missing:
        earlier_layouts = tuple(BucketLayout(**one) for one in known[split])
        before = ExistingPairs(folder, earlier_layouts, dataset.extra_units)
    for bucket_group in missing:
        found = gather(tables, *layout.key_range(bucket_group, bucket_group), dedupe=dataset.dedupe)
        if found is not None:
            rows, num_here = found
            num_raw += num_here
            shards |= _write_group(
                rows, layout, bucket_group, dataset=dataset, split=split, known=before
            )
    return {"rows_in": num_raw, "shards": shards, "is_exact": is_exact, **conflicts}


def _write_group(
    rows: pa.Table,
    layout: BucketLayout,
    bucket_group: int,
    *,
    dataset: Dataset,
    split: str,
    known: ExistingPairs,
) -> dict[str, int]:
    """Write new pairs as shards and the weights of known pairs; return the rows of each shard.

    The first shard is written last: a bucket group that has it is complete.
    """
    if known.layouts:
        buckets = layout.first_bucket(bucket_group), layout.first_bucket(bucket_group + 1) - 1
        rows, deltas = known.split(rows, buckets=buckets)
        if deltas.num_rows:
            dataset.weights.write_table(layout.name(bucket_group) + SHARD_SUFFIX, deltas)
    shards: dict[str, int] = {}
    starts = range(0, rows.num_rows, dataset.shard_rows)
    for piece, start in reversed(list(enumerate(starts))):
        name = shard_name(layout.name(bucket_group), piece)
        piece_rows = rows.slice(start, dataset.shard_rows)
        dataset.split_folder(split).write_table(name, piece_rows)
        shards[f"{split}/{name}" if split else name] = piece_rows.num_rows
    return shards


def _count_groups(
    bucket_groups: Iterable[int], layout: BucketLayout, dataset: Dataset, split: str
) -> tuple[int, dict[str, int], bool]:
    """Raw rows (sum of weights) and shards of bucket groups that were complete before a kill.

    Also whether the sum is exact: the weight of a pair that occurs 2^24 times or more is rounded.
    """
    is_exact = True
    wanted = {layout.name(bucket_group) for bucket_group in bucket_groups}
    folder = dataset.split_folder(split)
    shards: dict[str, int] = {}
    num_raw = 0.0
    for place in (folder, dataset.weights) if wanted else ():
        for name in place.shards():
            if bucket_group_of(name) in wanted:
                weights = place.read_table(name, columns=["weight"])["weight"].to_numpy()
                num_raw += weights.sum(dtype=np.float64)
                is_exact &= bool(np.all(weights < _FLOAT_EXACT))
                if place is folder:
                    shards[f"{split}/{name}" if split else name] = len(weights)
    return round(num_raw), shards, is_exact


def plan_parts(files: Sequence[RawFile]) -> list[Item]:
    """The input of each scatter task: some row groups of a Parquet file, or a whole file.

    `rows` is the number of rows, None for a file that does not say it.
    """
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        spans = threads.map(lambda f: row_group_spans(f.input, max_rows=PART_ROWS), files)
        found = [(file, *span) for file, spans in zip(files, spans, strict=True) for span in spans]
    return [
        {"number": number, "span": span, "rows": num_rows, "file": asdict(file)}
        for number, (file, span, num_rows) in enumerate(found)
    ]


def plan_bucket_groups(layout: BucketLayout, *, num_rows: int) -> Iterator[tuple[int, int]]:
    """First and last group of each task: at most 2^21 rows a task, 16 or more tasks if possible."""
    most = GATHER_ROWS * layout.num_bucket_groups // max(num_rows, 1)
    step = max(1, min(most, layout.num_bucket_groups // _GATHER_TASKS))
    for first in range(0, layout.num_bucket_groups, step):
        yield first, min(first + step, layout.num_bucket_groups) - 1
