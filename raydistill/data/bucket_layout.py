"""The assignment of pairs to shards by ranges of the query key, and the lookup of existing pairs.

The query keys are divided into equal ranges, the *buckets*; their number follows from the rows of
the first increment. All pairs of a query are in one bucket. A later increment adds only pairs that
no earlier one has, several buckets to a shard if they are few. Shards are sorted by query and title
and never rewritten. Does not use Ray.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.data.pairs import group_keys
from raydistill.files.folder import SHARD_SUFFIX, Folder
from raydistill.files.pieces import PIECE_ROWS
from raydistill.files.schema import WEIGHTS
from raydistill.serving.units.names import Names

FILL = 0.75  # mean fill of a shard: bucket sizes vary, and few then exceed one shard
_HALF = 32  # buckets divide the high half of the keys; the low half determines the split
_32 = np.uint64(32)


@dataclass(frozen=True)
class BucketLayout:
    """The division of the query keys into the shards of an increment: groups of whole buckets."""

    num_buckets: int  # the same in all increments
    num_bucket_groups: int  # in this increment; in the first, each bucket is a bucket group
    increment: int

    def name(self, bucket_group: int) -> str:
        """The common prefix of the names of a bucket group's shards."""
        return (
            f"part-a{self.increment:03d}-{bucket_group:05d}"
            if self.increment
            else f"part-{bucket_group:05d}"
        )

    def first_bucket(self, bucket_group: int) -> int:
        """The first bucket of a bucket group; `num_buckets` for the group after the last."""
        return self.num_buckets * bucket_group // self.num_bucket_groups

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        """The smallest and the largest query key of the bucket groups first..last."""
        low, high = self.first_bucket(first), self.first_bucket(last + 1)
        return _first_key(low, self.num_buckets), _first_key(high, self.num_buckets) - 1

    def overlapping(self, buckets: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
        """Number, first and last bucket of each bucket group that overlaps buckets first..last."""
        first, last = (
            ((at + 1) * self.num_bucket_groups - 1) // self.num_buckets for at in buckets
        )
        for bucket_group in range(first, last + 1):
            yield (
                bucket_group,
                self.first_bucket(bucket_group),
                self.first_bucket(bucket_group + 1) - 1,
            )


def make_layout(
    num_rows: int, *, shard_rows: int, first: BucketLayout | None, increment: int
) -> BucketLayout:
    """The layout of an increment of `num_rows` clean rows; `first`: that of the first increment."""
    num = max(1, round(num_rows / (shard_rows * FILL)))
    if first is None:
        return BucketLayout(num, num, increment)
    return BucketLayout(first.num_buckets, min(num, first.num_buckets), increment)


def _first_key(bucket: int, num_buckets: int) -> int:
    return ((1 << _HALF) * bucket // num_buckets) << _HALF


def bucket_of(keys: NDArray[np.uint64], num_buckets: int) -> NDArray[np.uint64]:
    """The bucket of each query key: the last bucket whose first key is <= the key."""
    return (((keys >> _32) + np.uint64(1)) * np.uint64(num_buckets) - np.uint64(1)) >> _32


def bucket_group_of(name: str) -> str:
    """The prefix that BucketLayout.name gave: a shard's name without its number and suffix."""
    parts = name.removesuffix(SHARD_SUFFIX).split("-")
    return "-".join(parts[: 3 if parts[1:2] and parts[1].startswith("a") else 2])


def shard_name(bucket_group: str, piece: int) -> str:
    """The name of a bucket group's shard; `piece` > 0 if the group needs several shards."""
    return f"{bucket_group}-{piece:03d}{SHARD_SUFFIX}" if piece else f"{bucket_group}{SHARD_SUFFIX}"


@dataclass(frozen=True)
class ExistingPairs:
    """The shards of earlier increments, with their layouts."""

    folder: Folder
    layouts: tuple[BucketLayout, ...]
    extra_units: Names = ()  # the configured units, which query keys depend on

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        bucket_groups: dict[str, list[str]] = {}
        for name in self.folder.shards():
            bucket_groups.setdefault(bucket_group_of(name), []).append(name)
        return bucket_groups

    def shards(self, pairs: pa.Table, *, buckets: tuple[int, int]) -> Iterator[str]:
        """Names of the shards that may contain the given pairs, all from buckets first..last."""
        yield from self.shards_of(group_keys(pairs, extra_units=self.extra_units), buckets=buckets)

    def shards_of(
        self, keys: NDArray[np.uint64], *, buckets: tuple[int, int] | None = None
    ) -> Iterator[str]:
        """Names of the shards that may contain pairs of some query keys, of buckets first..last."""
        num_buckets = self.layouts[0].num_buckets
        wanted = np.unique(bucket_of(keys, num_buckets))
        for names, low, high in self.bucket_groups(buckets or (0, num_buckets - 1)):
            start, stop = np.searchsorted(wanted, [low, high + 1])
            if start < stop:
                yield from names

    def bucket_groups(self, buckets: tuple[int, int]) -> Iterator[tuple[list[str], int, int]]:
        """Shards, first and last bucket of each bucket group that overlaps buckets first..last."""
        for layout in self.layouts:
            for bucket_group, low, high in layout.overlapping(buckets):
                yield self._names.get(layout.name(bucket_group), []), low, high

    def split(self, pairs: pa.Table, *, buckets: tuple[int, int]) -> tuple[pa.Table, pa.Table]:
        """The pairs that no shard has yet, and WEIGHTS rows for the pairs that a shard has.

        Pairs are compared by id and then by text: an id is a 64-bit hash, and among 10^9 pairs two
        share an id with a probability of 3 %.
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
    """For each pair that the shard has: its row in `pairs` and in the shard, in shard order."""
    left = pairs.select(["query", "title"]).append_column("here", pa.array(np.arange(len(pairs))))
    hit = np.flatnonzero(np.isin(there, pairs["pair_id"].to_numpy()))
    right = shard.select(["query", "title"]).take(pa.array(hit))
    right = right.append_column("there", pa.array(hit))
    both = left.join(right, ["query", "title"], join_type="inner").sort_by("there")
    return both["here"].to_numpy(), both["there"].to_numpy()
