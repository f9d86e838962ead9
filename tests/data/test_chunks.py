"""Chunks: sorted by key, cut into ranges, gathered; values by hand."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.data.bucket_layout import BucketLayout, bucket_of
from raydistill.data.chunks import BLOCK_ROWS, KeyRange, gather, sort_rows, write_chunk, write_index
from raydistill.data.pairs import collapse, group_keys
from raydistill.files.folder import Folder
from tests.helpers.proxy import proxy_of


def some_rows(num: int, *, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "query": [f"query {n}" for n in rng.integers(0, num // 4, num)],
            "title": [f"title {n}" for n in rng.integers(0, 3, num)],
        }
    )


@pytest.mark.parametrize("dedupe", [True, False])
def test_chunks_gathered_are_all_rows_collapsed(tmp_path: Path, dedupe: bool) -> None:
    folder = Folder(str(tmp_path))
    tables = [some_rows(num, seed=num) for num in (12_000, 40, 9_000)]
    chunks = [
        write_chunk(folder, f"{at}.chunk", sort_rows(rows, group_keys(rows), dedupe=dedupe))
        for at, rows in enumerate(tables)
    ]
    sizes = [len(folder.read_bytes(name)) for name in folder.files()]
    assert write_index(folder, "index", chunks) == sum(sizes)
    layout = BucketLayout(11, 11, increment=0)
    found = []
    for first, last in ((0, 3), (4, 9), (10, 10)):
        chunk_range = KeyRange(folder, "index", *layout.key_range(first, last))
        for group in range(first, last + 1):
            start = group - (group - first) % 2  # two groups are decoded at a time
            pieces = chunk_range.rows(*layout.key_range(start, min(start + 1, last)))
            gathered = gather(pieces, *layout.key_range(group, group), dedupe=dedupe)
            assert gathered is not None
            part, num_raw = gathered
            assert num_raw == part["weight"].to_numpy().sum()
            assert set(bucket_of(group_keys(part), 11).tolist()) == {group}
            found.append(part)
    expected = collapse(pa.concat_tables(tables), dedupe=dedupe)
    order = [("query", "ascending"), ("title", "ascending")]
    assert pa.concat_tables(found).sort_by(order).equals(expected.sort_by(order))


def test_a_pair_asked_for_again_and_again_leaves_a_chunk_as_one_row() -> None:
    rows = pa.table({"query": ["sofa"] * 5_000 + ["tap"], "title": ["grey sofa"] * 5_000 + ["x"]})
    chunk = sort_rows(rows, group_keys(rows), dedupe=True)
    assert sorted(chunk["weight"].to_pylist()) == [1.0, 5_000.0]


def test_raw_rows_are_counted_exactly_where_a_weight_is_rounded() -> None:
    """A float32 holds 2^24 and not 2^24 + 1."""
    one = pa.table({"query": ["sofa"], "title": ["grey sofa"], "key": pa.array([5], pa.uint64())})
    often, again = (one.append_column("weight", pa.array([w], pa.float32())) for w in (2**24, 1))
    gathered = gather([often, again], 0, 9, dedupe=True)
    assert gathered is not None
    assert gathered[1] == 2**24 + 1 and gathered[0]["weight"].to_pylist() == [2**24]


def keyed(keys: list[int]) -> pa.Table:
    return pa.table({"key": pa.array(keys, pa.uint64()), "row": range(len(keys))})


def test_a_key_may_begin_in_the_block_before(tmp_path: Path) -> None:
    """The index has the first key of a block alone: one key fills the ends of two blocks."""
    folder, num = Folder(str(tmp_path)), BLOCK_ROWS
    rows = keyed([*range(num - 1), *[9_000] * (num + 5), 9_001, *[9_002] * num])
    chunks = [write_chunk(folder, "a.chunk", rows), write_chunk(folder, "b.chunk", keyed([9_003]))]
    write_index(folder, "index", chunks)
    for low, high in ((9_000, 9_000), (9_001, 9_001), (0, 3), (9_002, 9_500), (9_004, 9_005)):
        found = KeyRange(folder, "index", low, high).rows(low, high)
        keys = np.concatenate([np.empty(0), *(table["key"].to_numpy() for table in found)])
        here = [key for key in [*rows["key"].to_pylist(), 9_003] if low <= key <= high]
        assert keys.tolist() == here, (low, high)


def test_an_index_without_chunks_has_no_rows(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert write_index(folder, "index", []) == 0
    assert KeyRange(folder, "index", 0, 2**64 - 1).rows(0, 9) == []


@pytest.mark.server
def test_a_range_takes_one_request_a_chunk(s3: str) -> None:
    """At 10^9 rows there are 1,000 chunks and 140 tasks: docs/operations.md has the arithmetic."""
    with proxy_of(os.environ["AWS_ENDPOINT_URL"], bucket="bucket") as proxy:
        base, mark, options = proxy.uri.partition("?")
        folder = Folder(f"{base}/one-request{mark}{options}")
        chunks = [
            write_chunk(folder, f"{at}.chunk", keyed(list(range(at, 9 * BLOCK_ROWS, 5))))
            for at in range(5)
        ]
        write_index(folder, "index", chunks)
        proxy.fail(0, (200, ""))  # forgets the requests so far
        found = KeyRange(folder, "index", 4_000, 11_999)
        assert proxy.requests.count("GET") == 1 + len(chunks)
        proxy.fail(0, (200, ""))
        for low in range(4_000, 12_000, 1_000):
            rows = pa.concat_tables(found.rows(low, low + 999))
            assert sorted(rows["key"].to_pylist()) == list(range(low, low + 1_000))
        assert not proxy.requests
