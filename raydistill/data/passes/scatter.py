"""The first pass of `prepare`: parts of raw files to chunks sorted by key, and quarantine rows.

Without `dedupe` a part becomes shards. After a kill a task runs again and writes the same bytes,
unless its last file exists. Does not use Ray.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.config.data import JudgedConfig
from raydistill.data.bucket_layout import shard_name
from raydistill.data.chunks import CHUNK_SUFFIX, sort_rows, write_chunk
from raydistill.data.clean_rows import read_clean
from raydistill.data.manifest import RawFile
from raydistill.data.pairs import collapse, group_keys, split_of
from raydistill.data.prepare_steps import PART_ROWS, Dataset, HeldOut, Item, plan_parts
from raydistill.files.folder import SHARD_SUFFIX

_NUM_TASKS = 256  # at least, if there are as many parts: for the cores of a cluster
_MOST_BYTES = 1 << 30  # half of the 2 GiB that an Arrow string array can hold


def plan_scatter(dataset: Dataset, files: Sequence[RawFile]) -> list[Item]:
    """The input of each scatter task: a part, or several small ones, for chunks of a million rows.

    There are 256 tasks or more if there are as many parts. Without `dedupe` a part is alone: it
    becomes shards, whose names and rows it decides.
    """
    parts = plan_parts(files)
    sizes = [_num_rows(part) for part in parts]
    most = min(PART_ROWS, sum(sizes) // _NUM_TASKS) if dataset.dedupe else -1
    items: list[Item] = []
    num_rows = 0
    for part, size in zip(parts, sizes, strict=True):
        last = items[-1]["parts"][-1]["file"]["split"] if items else None
        if last != part["file"]["split"] or num_rows + size > most:
            items.append({"number": len(items), "parts": []})
            num_rows = 0
        items[-1]["parts"].append(part)
        num_rows += size
    return items


def _num_rows(part: Item) -> int:
    """The rows of a part, by the bytes of its file if they are not known."""
    return int(part["rows"] if part["rows"] is not None else part["file"]["size_bytes"] // 50)


def scatter_parts(item: Item, *, dataset: Dataset, held_out: HeldOut) -> Item:
    """Clean some parts into sorted chunks (or shards) and quarantine rows; return their counts.

    That result is written last, as JSON: an item that has it is complete and is not read again.
    """
    name = dataset.part_name(item["number"])
    found = dataset.chunks.read_json(f"{name}.json")
    if found is not None:
        return found
    counts: Counter[str] = Counter(rows_in=0, lines_in=0, mended=0, quarantined=0, held_out=0)
    bad: list[tuple[str, int, int]] = []  # parts most of whose rows are in quarantine
    writer = _PartWriter(dataset, name, counts, split=item["parts"][0]["file"]["split"])
    for part in item["parts"]:
        file, before = RawFile(**part["file"]), counts.copy()
        for rows in read_clean(file, dataset.rules, span=tuple(part["span"])):
            good, keys = _free_rows(rows.pairs, file=file, dataset=dataset, held_out=held_out)
            counts.update(rows_in=rows.num_rows, quarantined=rows.rejects.num_rows)
            counts.update(lines_in=rows.num_rows + rows.raw.num_breaks, mended=rows.raw.num_mended)
            counts["held_out"] += rows.num_rows - good.num_rows - rows.rejects.num_rows
            writer.add(good, rows.rejects, keys)
        num_bad, num_rows = (counts[n] - before[n] for n in ("quarantined", "rows_in"))
        if 2 * num_bad > num_rows:
            bad.append((file.uri, num_bad, num_rows))
    writer.close()
    result = {"counts": dict(counts), "shards": writer.shards, "bad": bad}
    result["chunks"] = writer.chunks
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
        *,
        split: str,
    ) -> None:
        self.dataset, self.name, self.counts = dataset, name, counts
        self.shards: dict[str, int] = {}
        self.chunks: dict[str, list[Item]] = {}  # by split: their entries in its index
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
            self._write_chunks(name.removesuffix(SHARD_SUFFIX) + CHUNK_SUFFIX, rows, keys)
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
                entry = write_chunk(self.dataset.chunks, f"{split or 'all'}/{name}", chunk)
                self.chunks.setdefault(split, []).append(entry)


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
