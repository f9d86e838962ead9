"""A dataset of `prepare` and its folders, the keys that are held out, and the parts of raw files.

The work of its tasks is in `passes/`. Does not use Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.config.data import TextRules
from raydistill.data.bucket_layout import BucketLayout, bucket_group_of
from raydistill.data.clean_rows import read_clean
from raydistill.data.manifest import RawFile
from raydistill.data.pairs import group_keys
from raydistill.files.folder import Folder
from raydistill.files.inputs.readers import row_group_spans
from raydistill.serving.units.names import Names

PART_ROWS = 1 << 20  # Parquet rows per task, and clean rows in memory per task: 100 to 200 MB
_NUM_THREADS = 16
_LAYOUT = {"layout": 2}  # of the chunks of an increment
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

    def index(self, split: str) -> str:
        """The name of the index of the chunks of a split, in `chunks`."""
        return f"index-{split or 'all'}.arrow"

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
        for place in (self.folder, self.weights, self.quarantine):
            self._delete_from(place)

    def _delete_from(self, place: Folder) -> None:
        """Remove the files of this increment from a folder."""
        prefix = BucketLayout(1, 1, self.increment).name(0).rpartition("-")[0]
        for name in place.shards():
            if bucket_group_of(name).rpartition("-")[0] == prefix:
                place.delete_file(name)

    def begin_chunks(self) -> bool:
        """Mark the folder of chunks; remove those of an older version, which had other parts.

        Returns whether there were any. What they were cleaned into is cleaned again; shards that
        were gathered from them have the same rows, and stay.
        """
        if not self.dedupe or self.chunks.read_json("layout.json") == _LAYOUT:
            return False
        is_older = bool(self.chunks.files())
        if is_older:
            self._delete_from(self.quarantine)
            self.chunks.delete()
        self.chunks.write_json("layout.json", _LAYOUT)
        return is_older

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
