"""Chunks: sorted by key, cut into ranges, gathered; values by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.data.bucket_layout import BucketLayout, bucket_of
from raydistill.data.chunks import gather, read_range, sort_rows, write_chunk
from raydistill.data.pairs import collapse, group_keys
from raydistill.files.folder import Folder


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
    for at, rows in enumerate(tables):
        write_chunk(folder, f"{at}.arrow", sort_rows(rows, group_keys(rows), dedupe=dedupe))
    layout = BucketLayout(11, 11, increment=0)
    names = folder.files()
    found = []
    for first, last in ((0, 3), (4, 9), (10, 10)):
        pieces = read_range(folder, names, *layout.key_range(first, last))
        for group in range(first, last + 1):
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
