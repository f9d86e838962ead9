"""The stored pairs: buckets, chunks, and pairs of earlier increments; values by hand."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.data.bucket_layout import (
    BucketLayout,
    ExistingPairs,
    bucket_group_of,
    bucket_of,
    make_layout,
    shard_name,
)
from raydistill.data.pairs import to_pairs
from raydistill.files.folder import Folder
from raydistill.files.pieces import PIECE_ROWS
from raydistill.files.schema import PAIRS


@pytest.mark.parametrize(("num_buckets", "num_bucket_groups"), [(1, 1), (7, 7), (7, 3), (1000, 13)])
def test_every_key_is_in_one_bucket_and_every_bucket_in_one_group(
    num_buckets: int, num_bucket_groups: int
) -> None:
    layout = BucketLayout(num_buckets, num_bucket_groups, increment=2)
    ranges = [layout.key_range(group, group) for group in range(num_bucket_groups)]
    assert ranges[0][0] == 0 and ranges[-1][1] == 2**64 - 1
    assert all(high + 1 == low for (_, high), (low, _) in itertools.pairwise(ranges))
    keys = np.random.default_rng(0).integers(0, 2**64, 2_000, np.uint64)
    keys = np.concatenate([keys, np.array([edge for pair in ranges for edge in pair], np.uint64)])
    for key, bucket in zip(keys.tolist(), bucket_of(keys, num_buckets).tolist(), strict=True):
        ((group, first, last),) = layout.overlapping((bucket, bucket))
        assert first <= bucket <= last
        assert ranges[group][0] <= key <= ranges[group][1]
    assert len(list(layout.overlapping((0, num_buckets - 1)))) == num_bucket_groups


def test_the_low_half_of_a_key_never_decides_the_bucket() -> None:
    keys = np.array([(high << 32) | low for high in range(50) for low in (0, 2**32 - 1)], np.uint64)
    buckets = bucket_of(keys * np.uint64(1 << 26), 977)
    assert np.array_equal(buckets[::2], bucket_of(keys[::2] * np.uint64(1 << 26), 977))
    same = bucket_of(np.array([7 << 60, (7 << 60) | 0xFFFFFFFF], np.uint64), 977)
    assert same[0] == same[1]


def test_names() -> None:
    layout = BucketLayout(9, 9, increment=0)
    assert shard_name(layout.name(3), 0) == "part-00003.parquet"
    assert shard_name(layout.name(3), 12) == "part-00003-012.parquet"
    later = BucketLayout(9, 9, increment=4)
    assert shard_name(later.name(3), 1) == "part-a004-00003-001.parquet"
    for name in (layout.name(3), later.name(3)):
        assert [bucket_group_of(shard_name(name, piece)) for piece in (0, 1)] == [name, name]


def test_a_stray_file_belongs_to_no_group() -> None:
    assert bucket_group_of("notes.parquet") == "notes"


def test_a_later_grid_keeps_the_buckets_of_the_first() -> None:
    first = make_layout(75_000, shard_rows=1_000, first=None, increment=0)
    assert (first.num_buckets, first.num_bucket_groups) == (100, 100)
    later = make_layout(7_500, shard_rows=1_000, first=first, increment=1)
    assert (later.num_buckets, later.num_bucket_groups) == (100, 10)
    assert make_layout(10**9, shard_rows=1_000, first=first, increment=2).num_bucket_groups == 100
    assert make_layout(0, shard_rows=1_000, first=None, increment=0).num_bucket_groups == 1


def pairs_of(rows: list[tuple[str, str]], *, ids: list[int] | None = None) -> pa.Table:
    queries, titles = zip(*rows, strict=True)
    table = to_pairs(
        pa.table({"query": list(queries), "title": list(titles)}),
        weights=np.arange(1, len(rows) + 1, dtype=np.float32),
    )
    return table if ids is None else table.set_column(0, "pair_id", pa.array(ids, pa.int64()))


def test_known_pairs_are_known_by_their_texts_and_not_by_their_ids(tmp_path: Path) -> None:
    folder, layout = Folder(str(tmp_path)), BucketLayout(1, 1, increment=0)
    folder.write_table(
        shard_name(layout.name(0), 0), pairs_of([("a", "x"), ("a", "y"), ("b", "x")], ids=[1, 2, 3])
    )
    folder.write_table(shard_name(layout.name(0), 1), pairs_of([("c", "x")], ids=[4]))
    given = pairs_of([("a", "y"), ("b", "z"), ("c", "x"), ("d", "x")], ids=[2, 3, 4, 5])
    new, deltas = ExistingPairs(folder, (layout,)).split(given, buckets=(0, 0))
    assert new["title"].to_pylist() == ["z", "x"]  # (b, z) has the id of (b, x)
    assert new["query"].to_pylist() == ["b", "d"]
    assert deltas.to_pylist() == [
        {"shard": "part-00000-001.parquet", "row": 0, "weight": 3.0},
        {"shard": "part-00000.parquet", "row": 1, "weight": 1.0},
    ]


def test_known_pairs_of_a_large_shard_are_found_in_every_piece(tmp_path: Path) -> None:
    folder, layout, rows = Folder(str(tmp_path)), BucketLayout(1, 1, increment=0), PIECE_ROWS + 10
    titles = pa.array([str(at) for at in range(rows)])
    columns = [np.arange(rows), pa.array(["a"] * rows), titles, np.ones(rows, np.float32)]
    folder.write_table(shard_name(layout.name(0), 0), pa.table(columns, schema=PAIRS))
    wanted = [3, PIECE_ROWS - 1, PIECE_ROWS, rows - 1]
    given = pairs_of([("a", str(at)) for at in (*wanted, rows)], ids=[*wanted, rows])
    new, deltas = ExistingPairs(folder, (layout,)).split(given, buckets=(0, 0))
    assert new["title"].to_pylist() == [str(rows)]
    assert deltas["row"].to_pylist() == wanted


def test_the_shards_of_some_keys_are_those_of_their_buckets_in_every_increment(
    tmp_path: Path,
) -> None:
    folder = Folder(str(tmp_path))
    first, later = BucketLayout(8, 8, increment=0), BucketLayout(8, 2, increment=1)
    for layout in (first, later):
        for group in range(layout.num_bucket_groups):
            folder.write_bytes(shard_name(layout.name(group), 0), b"")
    folder.write_bytes(shard_name(first.name(5), 1), b"")
    keys = np.array([5 << 61, (5 << 61) + 7], np.uint64)  # the sixth eighth of the keys
    found = list(ExistingPairs(folder, (first, later)).shards_of(keys))
    assert found == ["part-00005-001.parquet", "part-00005.parquet", "part-a001-00001.parquet"]
    assert list(ExistingPairs(folder, (first, later)).shards_of(keys[:0])) == []
