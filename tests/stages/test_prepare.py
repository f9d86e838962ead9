import gzip
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.errors import UserError
from raydistill.readers import InputFile, read_raw
from raydistill.run import Run
from raydistill.stages import prepare
from raydistill.storage import Folder
from tests.conftest import run_config


def write_messy(folder: Path) -> None:
    """Ten raw pairs: 2 bad rows, 1 bad line, 1 duplicate, 6 distinct; and 120 judged pairs."""
    folder.mkdir()
    (folder / "a.csv").write_text(
        "query,title\nsofa,grey sofa\nsofa,  grey   sofa \n,x\nsofa,blue sofa\none,two,three\n"
    )
    (folder / "b.jsonl").write_text(
        '{"query": "tap", "title": "big tap"}\n{"query": "tap", "title": null}\n'
        '{"query": "tap", "title": "tap"}\n'
    )
    (folder / "c.tsv").write_text('query\ttitle\nrug\t5" rug\nrug\t"red" rug\n')
    queries = [f"judged {n // 2}" for n in range(120)]
    titles, labels = [f"title {n}" for n in range(120)], [float(n % 2) for n in range(120)]
    judged = pa.table({"query": queries, "title": titles, "label": labels})
    pq.write_table(judged, folder / "judged.parquet")


def make(run_dir: Path, raw: Path, **sections: object) -> Run:
    return Run(run_config(run_dir, raw, Path("no-model"), **sections))


def run_without_ray(run: Run) -> None:
    """The same functions that Ray calls, one after the other."""
    judged, pairs = prepare._datasets(run)
    for dataset, held_out in ((judged, None), (pairs, "later")):
        if held_out:
            held_out = prepare._held_out_queries(run)
        files = prepare.check_inputs(run)[dataset.name]
        counts: dict[str, int] = {}
        for at, file in enumerate(files):
            item = {"index": at, "uri": file.uri, "size_bytes": file.size_bytes}
            for name, n in prepare.scatter_file(item, dataset=dataset, held_out=held_out).items():
                counts[name] = counts.get(name, 0) + n
        for bucket in prepare._buckets(dataset, counts):
            prepare.gather_bucket(bucket, dataset=dataset)
        dataset.chunks.delete()


def contents(run: Run) -> dict[str, bytes]:
    root = Path(run.root.uri)
    files = [p for p in root.rglob("*.parquet") if "quarantine" not in p.parts]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(files)}


def test_the_order_of_files_and_rows_does_not_matter(raw_files: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "shuffled"
    (shuffled / "pairs").mkdir(parents=True)
    rows = pa.concat_tables(
        pq.read_table(raw_files / "pairs" / f"part-{n}.parquet") for n in (2, 0, 1)
    )
    order = np.random.default_rng(0).permutation(rows.num_rows)
    pq.write_table(rows.take(order[:1_700]), shuffled / "pairs" / "z.parquet")
    pq.write_table(rows.take(order[1_700:]), shuffled / "pairs" / "a.parquet")
    judged = pq.read_table(raw_files / "judged.parquet")
    pq.write_table(judged.slice(600).select(judged.column_names), shuffled / "judged.parquet")
    pq.write_table(
        pa.concat_tables([judged.slice(600), judged.slice(0, 600)]), shuffled / "judged.parquet"
    )
    first, second = make(tmp_path / "1", raw_files), make(tmp_path / "2", shuffled)
    run_without_ray(first)
    run_without_ray(second)
    assert contents(first) == contents(second)
    assert len(contents(first)) > 6


def test_moved_raw_files_are_the_same_and_other_ones_are_not(
    raw_files: Path, tmp_path: Path
) -> None:
    run = make(tmp_path / "run", raw_files)
    run.root.write_json("prepare.json", {"settings": run.prepare_settings(), "inputs": run.inputs})
    run_without_ray(run)
    shutil.copytree(raw_files, tmp_path / "moved")
    moved = make(tmp_path / "run", tmp_path / "moved")
    assert moved.prepare_fingerprint() == run.prepare_fingerprint()
    prepare.check_inputs(moved)
    shutil.copy(tmp_path / "moved" / "judged.parquet", tmp_path / "moved" / "pairs" / "new.parquet")
    with pytest.raises(UserError, match="3 files then, 4 now"):
        prepare.check_inputs(make(tmp_path / "run", tmp_path / "moved"))


def test_a_split_without_both_kinds_is_named(raw_files: Path, tmp_path: Path) -> None:
    run = make(tmp_path, raw_files, judged={"relevant_at": 0.0})
    run_without_ray(run)
    with pytest.raises(UserError, match=r"judged train split has \d+ pairs, .* needs both kinds"):
        prepare.check_splits(run)


def test_a_killed_gather_goes_on_to_the_same_bytes(raw_files: Path, tmp_path: Path) -> None:
    whole, cut = make(tmp_path / "1", raw_files), make(tmp_path / "2", raw_files)
    run_without_ray(whole)
    run_without_ray(cut)
    for name in list(contents(cut))[::2]:
        (tmp_path / "2" / name).unlink()
    run_without_ray(cut)
    assert contents(whole) == contents(cut)


def test_a_big_bucket_is_cut(raw_files: Path, tmp_path: Path) -> None:
    run = make(tmp_path, raw_files, pairs={"shard_rows": 100})
    run_without_ray(run)
    sizes = {name: run.pairs.read_table(name).num_rows for name in run.pairs.shards()}
    assert max(sizes.values()) == 100
    assert any("-001" in name for name in sizes)


def test_held_out_queries_are_in_no_pair(raw_files: Path, tmp_path: Path) -> None:
    run = make(tmp_path, raw_files)
    run_without_ray(run)
    queries = {
        split: {
            q.lower()
            for name in run.judged(split).shards()
            for q in run.judged(split).read_table(name)["query"].to_pylist()
        }
        for split in ("train", "dev", "test")
    }
    transfer = {
        q.lower() for n in run.pairs.shards() for q in run.pairs.read_table(n)["query"].to_pylist()
    }
    assert not queries["train"] & queries["dev"]
    assert not (queries["train"] | queries["dev"]) & queries["test"]
    assert queries["dev"] and queries["test"]
    assert not transfer & (queries["dev"] | queries["test"])
    assert transfer & queries["train"]


@pytest.mark.ray
def test_messy_files_lose_nothing(local_ray: None, tmp_path: Path) -> None:
    write_messy(tmp_path / "raw")
    raw = [str(tmp_path / "raw" / name) for name in ("a.csv", "b.jsonl", "c.tsv")]
    run = make(
        tmp_path / "run", tmp_path / "raw", pairs={"input": raw, "shard_rows": 4},
    )  # fmt: skip
    assert prepare.run(run)
    done = run.pairs.success()
    assert done is not None
    counts = {k: done[k] for k in ("rows_in", "rows_out", "duplicates", "quarantined", "held_out")}
    assert counts == {
        "rows_in": 10, "rows_out": 6, "duplicates": 1, "quarantined": 3, "held_out": 0,
    }  # fmt: skip
    pairs = {
        (r["query"], r["title"]): r["weight"]
        for n in run.pairs.shards()
        for r in run.pairs.read_table(n).to_pylist()
    }
    assert pairs[("sofa", "grey sofa")] == 2
    assert pairs[("rug", '"red" rug')] == 1
    quarantine = run.root / "quarantine" / "pairs"
    bad = [r for n in quarantine.shards() for r in quarantine.read_table(n).to_pylist()]
    found = {(Path(r["source"]).name, r["row"], r["reason"]) for r in bad}
    assert found == {
        ("a.csv", 2, "query is empty"),
        ("a.csv", 4, "3 fields, not 2"),
        ("b.jsonl", 1, "title is null"),
    }
    assert not prepare.run(run)  # nothing left to do


@pytest.mark.ray
def test_changed_settings_and_inputs_are_refused(local_ray: None, tmp_path: Path) -> None:
    write_messy(tmp_path / "raw")
    raw = {"input": [str(tmp_path / "raw" / "c.tsv")]}
    run = make(tmp_path / "run", tmp_path / "raw", pairs=raw)
    prepare.run(run)
    other = make(tmp_path / "run", tmp_path / "raw", pairs={**raw, "lowercase": True})
    with pytest.raises(UserError, match=r"pairs\.lowercase: False there, True here"):
        prepare.run(other)
    (tmp_path / "raw" / "c.tsv").write_text("query\ttitle\na\tb\n")
    with pytest.raises(UserError, match="have changed since"):
        prepare.run(run)
    shutil.rmtree(tmp_path / "raw")
    assert not prepare.run(run)  # complete, and the raw files are gone


@pytest.mark.ray
def test_a_prepare_cut_off_is_not_continued_with_other_settings(
    local_ray: None, tmp_path: Path
) -> None:
    """Its half-made chunks and shards would be taken for those of the new settings."""
    write_messy(tmp_path / "raw")
    write_cut_off(tmp_path / "raw" / "d.csv.gz")
    raw = {"input": [str(tmp_path / "raw" / "c.tsv"), str(tmp_path / "raw" / "d.csv.gz")]}
    run = make(tmp_path / "run", tmp_path / "raw", pairs=raw)
    with pytest.raises(UserError, match=r"cannot read .*d\.csv\.gz"):  # found by a Ray task
        prepare.run(run)
    assert run.pairs.success() is None
    other = make(tmp_path / "run", tmp_path / "raw", pairs={**raw, "lowercase": True})
    with pytest.raises(UserError, match=r"pairs\.lowercase: False there, True here"):
        prepare.run(other)


def write_cut_off(path: Path) -> None:
    digits = np.random.default_rng(0).bytes(4_000_000).hex()  # too much to be read as a header
    lines = (f"{digits[at : at + 40]},x\n" for at in range(0, len(digits), 40))
    data = gzip.compress(("query,title\n" + "".join(lines)).encode(), compresslevel=1)
    path.write_bytes(data[: len(data) // 2])


def test_a_file_cut_off_in_the_middle_is_named(tmp_path: Path) -> None:
    write_cut_off(tmp_path / "a.csv.gz")
    with pytest.raises(UserError, match=r"cannot read .*a\.csv\.gz as csv"):
        list(read_raw(InputFile(str(tmp_path / "a.csv.gz"), 1)))


@pytest.mark.ray
def test_with_ray_on_s3_as_without_on_disk(
    local_ray: None, s3: str, raw_files: Path, tmp_path: Path
) -> None:
    here = make(tmp_path, raw_files)
    run_without_ray(here)
    there = make(Path("x"), raw_files)
    there = Run(there.config.model_copy(update={"run_dir": f"{s3}/prepare"}))
    assert prepare.run(there)
    assert (there.root / "pairs" / "_chunks").shards() == []
    for name, data in contents(here).items():
        assert Folder(f"{s3}/prepare").read_bytes(name) == data, name
