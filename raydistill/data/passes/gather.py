"""The second pass of `prepare`: a range of keys of all chunks to shards of distinct pairs.

After a kill a task runs again and writes the same bytes; bucket groups that have their first shard
are complete. Does not use Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raydistill.config.data import JudgedConfig
from raydistill.data.bucket_layout import BucketLayout, ExistingPairs, bucket_group_of, shard_name
from raydistill.data.chunks import KeyRange, gather
from raydistill.data.pairs import count_conflicts
from raydistill.data.prepare_steps import Dataset, Item
from raydistill.files.folder import SHARD_SUFFIX
from raydistill.files.schema import CONFLICTS

GATHER_BYTES = 1 << 28  # of chunks that a task has in memory as they are stored
GATHER_ROWS = 1 << 20  # and that it decodes at a time: 100 to 200 MB
MOST_BUCKET_ROWS = 1 << 21  # a bucket is decoded as a whole
_NUM_TASKS = 16  # at least, if there are as many shards: for the cores of a cluster
_FLOAT_EXACT = 1 << 24  # float32 represents every integer below it exactly


def plan_gather(
    dataset: Dataset, split: str, layout: BucketLayout, *, num_rows: int, num_bytes: int
) -> Iterator[Item]:
    """The input of each gather task of a split, whose chunks have so many rows and bytes.

    A task has 256 MB of chunks or less; of these it decodes `step` groups at a time, a million
    rows. There are 16 or more tasks if possible. `there` has the files of groups that were complete
    before a kill: one listing for all tasks.
    """
    num_groups = layout.num_bucket_groups
    most = GATHER_BYTES * num_groups // max(num_bytes, 1)
    size = max(1, min(most, num_groups // _NUM_TASKS))
    step = max(1, GATHER_ROWS * num_groups // max(num_rows, 1))
    complete = _complete_groups(dataset, split, layout)
    for first in range(0, num_groups, size):
        last = min(first + size, num_groups) - 1
        names = (layout.name(group) for group in range(first, last + 1))
        there = {name: complete[name] for name in names if name in complete}
        yield {
            "split": split, "bucket_groups": (first, last), "step": min(step, size), "there": there,
        }  # fmt: skip


def _complete_groups(
    dataset: Dataset, split: str, layout: BucketLayout
) -> dict[str, list[list[str]]]:
    """Shards and files of weights of each group that has its first shard, which is written last."""
    found: dict[str, list[list[str]]] = {}
    for at, folder in enumerate((dataset.split_folder(split), dataset.weights)):
        for name in folder.shards():
            found.setdefault(bucket_group_of(name), [[], []])[at].append(name)
    prefix = layout.name(0).rpartition("-")[0]
    return {
        group: names for group, names in found.items()
        if group.rpartition("-")[0] == prefix and shard_name(group, 0) in names[0]
    }  # fmt: skip


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
    split, (first, last), there = item["split"], item["bucket_groups"], item["there"]
    layout, has_labels = layouts[split], isinstance(dataset.rules, JudgedConfig)
    num_raw, shards, is_exact = _count_there(there, dataset, split)
    missing = [g for g in range(first, last + 1) if layout.name(g) not in there]
    # Shards have mean labels: conflicts are counted in the chunks, also after a kill.
    wanted = range(first, last + 1) if has_labels else missing
    earlier = tuple(BucketLayout(**one) for one in known[split])
    before = ExistingPairs(dataset.split_folder(split), earlier, dataset.extra_units)
    num_conflicts = 0
    for groups, tables in _decoded(wanted, layout, dataset, split, step=item["step"]):
        if has_labels and tables:
            num_conflicts += count_conflicts(pa.concat_tables(tables))
        for group in sorted(set(groups) & set(missing)):
            found = gather(tables, *layout.key_range(group, group), dedupe=dataset.dedupe)
            if found is not None:
                num_raw += found[1]
                shards |= _write_group(
                    found[0], layout, group, dataset=dataset, split=split, known=before
                )
        del tables  # before the next ones are decoded
    conflicts = {CONFLICTS: num_conflicts} if has_labels else {}
    return {"rows_in": num_raw, "shards": shards, "is_exact": is_exact, **conflicts}


def _decoded(
    wanted: Sequence[int], layout: BucketLayout, dataset: Dataset, split: str, *, step: int
) -> Iterator[tuple[range, list[pa.Table]]]:
    """The rows of all chunks for `step` bucket groups at a time, from the first wanted one on."""
    if not wanted:
        return
    first, last = wanted[0], wanted[-1]
    chunks = KeyRange(dataset.chunks, dataset.index(split), *layout.key_range(first, last))
    for start in range(first, last + 1, step):
        groups = range(start, min(start + step, last + 1))
        yield groups, chunks.rows(*layout.key_range(groups[0], groups[-1]))


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


def _count_there(
    there: dict[str, list[list[str]]], dataset: Dataset, split: str
) -> tuple[int, dict[str, int], bool]:
    """Raw rows (sum of weights) and shards of bucket groups that were complete before a kill.

    Also whether the sum is exact: the weight of a pair that occurs 2^24 times or more is rounded.
    """
    is_exact, num_raw = True, 0.0
    shards: dict[str, int] = {}
    folder = dataset.split_folder(split)
    for names in there.values():
        for place, of_place in zip((folder, dataset.weights), names, strict=True):
            for name in of_place:
                weights = place.read_table(name, columns=["weight"])["weight"].to_numpy()
                num_raw += weights.sum(dtype=np.float64)
                is_exact &= bool(np.all(weights < _FLOAT_EXACT))
                if place is folder:
                    shards[f"{split}/{name}" if split else name] = len(weights)
    return round(num_raw), shards, is_exact
