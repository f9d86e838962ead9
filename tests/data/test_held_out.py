"""Splits drawn from the transfer set: whole queries, the same for any parts of the files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.config.data import PairsConfig
from raydistill.data.held_out import cut, draw
from raydistill.data.held_out.draw import Draw, draw_part, merge, plan_draw
from raydistill.data.manifest import find_files, read_identities
from raydistill.data.pairs import query_keys, split_of
from raydistill.data.prepare_steps import Dataset
from raydistill.files.folder import Folder

NUM_QUERIES, NUM_TITLES = 60, 5


def table(keys: list[int], titles: list[str]) -> pa.Table:
    queries = [f"query {key}" for key in keys]
    return pa.table({"query": queries, "title": titles, cut.KEY: pa.array(keys, pa.uint64())})


def test_the_lowest_queries_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "MOST_PAIRS", 4)
    # The low 32 bits decide: the key 2^32 + 1 is at position 1.
    rows = table([3, 1 << 32 | 1, 2, 2, 2, 3, 1 << 32 | 1], ["a", "b", "a", "a", "b", "b", "a"])
    found = cut.lowest(rows)
    assert sorted(found[cut.KEY].to_pylist()) == [2, 2, 2, (1 << 32) + 1, (1 << 32) + 1]
    assert cut.lowest(rows.slice(0, 4)).equals(rows.slice(0, 4))  # few enough: as they are


def test_a_first_query_that_is_too_large_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "MOST_PAIRS", 2)
    rows = table([1, 1, 1, 1, 5], ["c", "a", "a", "b", "a"])
    assert cut.lowest(rows)["title"].to_pylist() == ["a", "a", "b"]


def write_files(folder: Path, *, num_files: int) -> PairsConfig:
    queries = [f"word{n} sofa" for n in range(NUM_QUERIES) for _ in range(NUM_TITLES)]
    titles = [f"Title {n}" for _ in range(NUM_QUERIES) for n in range(NUM_TITLES)]
    pairs = pa.table({"query": queries * 2, "title": titles * 2})  # each pair twice
    order = np.random.default_rng(num_files).permutation(pairs.num_rows)
    folder.mkdir()
    for number, rows in enumerate(np.array_split(order, num_files)):
        pq.write_table(pairs.take(pa.array(rows)), folder / f"{number}.parquet")
    return PairsConfig.model_validate({"input": [str(folder)], "dev_share": 0.2, "test_share": 0.2})


def drawn(folder: Path, *, num_files: int, taken: list[int] | None = None) -> dict[str, pa.Table]:
    rules = write_files(folder / f"raw-{num_files}", num_files=num_files)
    return draw_from(folder, f"out-{num_files}", rules, taken=taken)


def draw_from(
    folder: Path, out: str, rules: PairsConfig, *, taken: list[int] | None = None
) -> dict[str, pa.Table]:
    here = Folder(str(folder / out))
    pairs = Dataset("pairs", rules, here, here, ("",), shard_rows=10, dedupe=True)
    keys = np.array(taken or [], np.uint64)
    splits = ("dev", "test")
    task = Draw(pairs, here, splits, rules.dev_share, rules.test_share, keys)
    items = plan_draw(read_identities(find_files(rules)))
    chunks = [draw_part(item, draw=task)["chunk"] for item in items]
    made = merge({"chunks": chunks}, draw=task)
    found = {split: (here / split).read_table("part-00000.parquet") for split in splits}
    assert made["shards"] == {f"{s}/part-00000.parquet": t.num_rows for s, t in found.items()}
    assert made["rows_in"] == 2 * sum(made["shards"].values())
    return found


@pytest.mark.parametrize("most", [15, 1_000])
def test_parts_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(cut, "MOST_PAIRS", most)
    one, three = drawn(tmp_path, num_files=1), drawn(tmp_path, num_files=3)
    for number, split in enumerate(("dev", "test"), 1):
        assert one[split].equals(three[split])
        found = one[split]
        keys = query_keys(found["query"])
        assert set(split_of(keys, dev_share=0.2, test_share=0.2).tolist()) == {number}
        assert found["weight"].to_pylist() == [2.0] * found.num_rows
        assert found.num_rows == NUM_TITLES * len(np.unique(keys))  # whole queries
        assert (found.num_rows == most) == (most == 15)


@pytest.mark.slow
def test_many_small_files_are_all_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "_BATCH", 7)
    one, many = drawn(tmp_path, num_files=1), drawn(tmp_path, num_files=80)  # 7 or 8 rows each
    assert all(one[split].equals(many[split]) for split in ("dev", "test"))


def test_of_many_rows_a_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = write_files(tmp_path / "raw", num_files=10)  # 60 rows each
    files = read_identities(find_files(rules))
    for most, num_parts in ((1, 1), (60, 1), (61, 2), (600, 10)):
        monkeypatch.setattr(draw, "MOST_ROWS", most)
        assert len(plan_draw(files)) == num_parts
    (tmp_path / "raw" / "a.csv").write_text("query,title\n" + "sofa,grey\n" * 64)  # 652 bytes
    csv = find_files(PairsConfig.model_validate({"input": str(tmp_path / "raw" / "a.csv")}))
    monkeypatch.setattr(draw, "MOST_ROWS", 11)  # 652 / 64 = 10 rows
    assert len(plan_draw([*csv, *csv, *csv])) == 2


def test_another_content_is_another_chunk(tmp_path: Path) -> None:
    """As after a kill in the draw and the repair of a file, under the same name."""
    before = drawn(tmp_path, num_files=1)["dev"]
    (path,) = (tmp_path / "raw-1").iterdir()
    pairs = pq.read_table(path)
    titles = pa.array([f"Better {title}" for title in pairs["title"].to_pylist()])
    pq.write_table(pairs.set_column(1, "title", titles), tmp_path / "better.parquet")
    after = draw_from(tmp_path, "out-1", PairsConfig.model_validate(
        {"input": str(tmp_path / "better.parquet"), "dev_share": 0.2, "test_share": 0.2}
    ))["dev"]  # fmt: skip
    assert after["title"].to_pylist() == [
        f"Better {title}" for title in before["title"].to_pylist()
    ]


def test_judged_queries_are_not_drawn(tmp_path: Path) -> None:
    before = drawn(tmp_path, num_files=1)["dev"]
    taken = query_keys(before["query"])[:1].tolist()
    after = drawn(tmp_path, num_files=2, taken=taken)["dev"]
    assert after.num_rows == before.num_rows - NUM_TITLES
