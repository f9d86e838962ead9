import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.data.passes.scatter import plan_scatter, scatter_parts
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.inputs.input_files import InputFile
from raydistill.files.inputs.readers import read_raw
from raydistill.files.schema import CONFLICTS, COUNTS
from raydistill.runs.run_folder import Run
from raydistill.serving.text.cleaning import normalise
from raydistill.stages import prepare
from tests.helpers.raw_files import write_cut_off
from tests.helpers.runs import first_shards, parquet_files, run_over


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


@pytest.mark.ray
def test_the_order_of_files_and_rows_does_not_matter(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
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
    first, second = run_over(tmp_path / "1", raw_files), run_over(tmp_path / "2", shuffled)
    prepare.prepare_stage(first)
    prepare.prepare_stage(second)
    assert parquet_files(first) == parquet_files(second)
    assert len(parquet_files(first)) > 6
    for run in (first, second):  # not in the order of a set, which each process has anew
        assert list(run.manifest.patterns) == sorted(run.patterns)


@pytest.mark.ray
def test_a_prepare_cut_off_anywhere_goes_on_to_the_same_bytes(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    """As a kill leaves it: some parts without their counts, some groups without first shard."""
    whole, cut = run_over(tmp_path / "1", raw_files), run_over(tmp_path / "2", raw_files)
    assert prepare.prepare_stage(whole)
    cut.write_manifest(cut.manifest)
    judged, pairs = prepare._datasets(cut)
    for dataset in (judged, pairs):
        assert not dataset.begin_chunks()
    for part in plan_scatter(judged, cut.manifest.judged[0]):
        scatter_parts(part, dataset=judged, held_out=prepare._held_out(cut, judged))
    for part in plan_scatter(pairs, cut.manifest.pairs[0])[1:]:
        scatter_parts(part, dataset=pairs, held_out=prepare._held_out(whole, pairs))
    (tmp_path / "2" / "pairs" / "_chunks" / "0" / "part-00002.json").unlink()
    assert prepare.prepare_stage(run_over(tmp_path / "2", raw_files))
    assert parquet_files(whole) == parquet_files(cut)
    done = whole.pairs.success()
    for name in first_shards(list(parquet_files(cut)))[::2]:
        (tmp_path / "2" / name).unlink()
    for dataset in ("pairs", "judged"):
        (tmp_path / "2" / dataset / "_SUCCESS.json").unlink()
    assert prepare.prepare_stage(run_over(tmp_path / "2", raw_files))
    assert parquet_files(whole) == parquet_files(cut)
    again = cut.pairs.success()
    assert done and again and all(done[n] == again[n] for n in ("shards", *COUNTS))
    first, second = ((run.root / "judged").success() for run in (whole, cut))
    assert first and second and first[CONFLICTS] == second[CONFLICTS]


@pytest.mark.ray
def test_a_run_that_an_older_version_began_goes_on_to_the_same_bytes(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    """Its parts have chunks of another form and no entries for an index; its shards are kept."""
    whole, older = run_over(tmp_path / "1", raw_files), run_over(tmp_path / "2", raw_files)
    assert prepare.prepare_stage(whole)
    shutil.copytree(tmp_path / "1", tmp_path / "2", dirs_exist_ok=True)
    chunks, names = older.pairs / "_chunks" / "0", older.pairs.shards()
    for number in range(3):
        counts = {"rows_in": 1, "kept_": 1, "quarantined": 0, "held_out": 0}
        part = {"counts": counts, "shards": {}, "uri": "part.parquet"}
        chunks.write_json(f"part-{number:05d}.json", part)
        (chunks / "all").write_bytes(f"part-{number:05d}-000.arrow", b"of another form")
    rejects = older.root / "quarantine" / "pairs"
    rejects.write_bytes("part-00099.parquet", b"of a part that there is no more")
    for name in first_shards(names)[1::2]:
        older.pairs.delete_file(name)
    older.pairs.delete_file("_SUCCESS.json")
    kept = older.pairs.shards()[0]
    time_ns = (tmp_path / "2" / "pairs" / kept).stat().st_mtime_ns
    assert prepare.prepare_stage(run_over(tmp_path / "2", raw_files))
    assert parquet_files(older) == parquet_files(whole)
    assert (tmp_path / "2" / "pairs" / kept).stat().st_mtime_ns == time_ns
    first, second = whole.pairs.success(), older.pairs.success()
    assert first and second and all(first[n] == second[n] for n in ("shards", *COUNTS))
    assert not (older.pairs / "_chunks").exists() and "part-00099.parquet" not in rejects.shards()


@pytest.mark.ray
def test_a_big_bucket_is_cut(local_ray: None, raw_files: Path, tmp_path: Path) -> None:
    run = run_over(tmp_path, raw_files, pairs={"shard_rows": 100})
    prepare.prepare_stage(run)
    sizes = {name: run.pairs.read_table(name).num_rows for name in run.pairs.shards()}
    assert max(sizes.values()) == 100
    assert any("-001" in name for name in sizes)


@pytest.mark.ray
def test_messy_files_lose_nothing(local_ray: None, tmp_path: Path) -> None:
    write_messy(tmp_path / "raw")
    raw = [str(tmp_path / "raw" / name) for name in ("a.csv", "b.jsonl", "c.tsv")]
    run = run_over(
        tmp_path / "run", tmp_path / "raw", pairs={"input": raw, "shard_rows": 4},
    )  # fmt: skip
    assert prepare.prepare_stage(run)
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
    assert not prepare.prepare_stage(run)  # nothing left to do


@pytest.mark.ray
def test_changed_settings_and_inputs_are_refused(local_ray: None, tmp_path: Path) -> None:
    write_messy(tmp_path / "raw")
    raw = {"input": [str(tmp_path / "raw" / "c.tsv")]}
    run = run_over(tmp_path / "run", tmp_path / "raw", pairs=raw)
    prepare.prepare_stage(run)
    other = run_over(tmp_path / "run", tmp_path / "raw", pairs={**raw, "lowercase": True})
    with pytest.raises(UserError, match=r"pairs\.lowercase: False there, True here"):
        prepare.prepare_stage(other)
    (tmp_path / "raw" / "c.tsv").write_text("query\ttitle\na\tb\n")
    with pytest.raises(UserError, match=r"c\.tsv has changed since it was prepared"):
        prepare.prepare_stage(run_over(tmp_path / "run", tmp_path / "raw", pairs=raw))
    shutil.rmtree(tmp_path / "raw")
    gone = run_over(tmp_path / "run", tmp_path / "raw", pairs=raw)
    assert not prepare.prepare_stage(gone)  # complete, and the raw files are gone


@pytest.mark.ray
def test_a_prepare_cut_off_is_not_continued_with_other_settings(
    local_ray: None, tmp_path: Path
) -> None:
    """Its half-made chunks and shards would be taken for those of the new settings."""
    write_messy(tmp_path / "raw")
    write_cut_off(tmp_path / "raw" / "d.csv.gz")
    raw = {"input": [str(tmp_path / "raw" / "c.tsv"), str(tmp_path / "raw" / "d.csv.gz")]}
    run = run_over(tmp_path / "run", tmp_path / "raw", pairs=raw)
    with pytest.raises(UserError, match=r"cannot read .*d\.csv\.gz"):  # found by a Ray task
        prepare.prepare_stage(run)
    assert run.pairs.success() is None
    other = run_over(tmp_path / "run", tmp_path / "raw", pairs={**raw, "lowercase": True})
    with pytest.raises(UserError, match=r"pairs\.lowercase: False there, True here"):
        prepare.prepare_stage(other)


@pytest.mark.slow
def test_a_file_cut_off_in_the_middle_is_named(tmp_path: Path) -> None:
    write_cut_off(tmp_path / "a.csv.gz")
    with pytest.raises(UserError, match=r"cannot read .*a\.csv\.gz as csv"):
        list(read_raw(InputFile(str(tmp_path / "a.csv.gz"), 1)))


@pytest.mark.ray
def test_with_ray_on_s3_as_without_on_disk(
    local_ray: None, s3: str, raw_files: Path, tmp_path: Path
) -> None:
    here = run_over(tmp_path, raw_files)
    prepare.prepare_stage(here)
    there = run_over(Path("x"), raw_files)
    there = Run(there.config.model_copy(update={"run_dir": f"{s3}/prepare"}))
    assert prepare.prepare_stage(there)
    assert not (there.root / "pairs" / "_chunks").exists()
    for name, data in parquet_files(here).items():
        assert Folder(f"{s3}/prepare").read_bytes(name) == data, name


@pytest.mark.ray
def test_without_dedupe_every_row_stays(local_ray: None, raw_files: Path, tmp_path: Path) -> None:
    run = run_over(
        tmp_path, raw_files, pairs={"dedupe": False, "shard_rows": 300, "hold_out": False}
    )
    assert prepare.prepare_stage(run)
    done = run.pairs.success()
    assert done and done["rows_in"] == done["rows_out"] == sum(done["shards"].values()) == 3_000
    assert max(done["shards"].values()) == 300
    raw = [
        (row["query"], row["title"])
        for n in range(3)
        for row in pq.read_table(raw_files / "pairs" / f"part-{n}.parquet").to_pylist()
    ]
    found = [
        (row["query"], row["title"])
        for name in run.pairs.shards()
        for row in run.pairs.read_table(name).to_pylist()
    ]
    clean = normalise(pa.array([f"{q}\t{t}" for q, t in raw])).to_pylist()
    assert sorted(f"{q} {t}" for q, t in found) == sorted(clean)


@pytest.mark.ray
def test_inputs_have_their_own_columns_and_their_source(local_ray: None, tmp_path: Path) -> None:
    write_messy(tmp_path / "raw")
    mine, yours = tmp_path / "raw" / "mine.csv", tmp_path / "raw" / "yours.csv"
    mine.write_text("q,name,shop\nsofa,red sofa,north\nsofa,red sofa,east\nsofa,x,south\n")
    yours.write_text("query,title\nsofa,red sofa\nsofa,y\n")
    inputs = [
        {"path": str(mine), "query": "q", "title": "name", "source": "shop"},
        {"path": str(yours)},
    ]
    run = run_over(tmp_path / "run", tmp_path / "raw", pairs={"input": inputs})
    assert prepare.prepare_stage(run)
    rows = [row for name in run.pairs.shards() for row in run.pairs.read_table(name).to_pylist()]
    assert [(r["title"], r["weight"], r["source"]) for r in rows] == [
        ("red sofa", 3.0, "east"), ("x", 1.0, "south"), ("y", 1.0, None),
    ]  # fmt: skip


@pytest.mark.ray
def test_near_identical_queries_are_held_out_too(local_ray: None, tmp_path: Path) -> None:
    write_messy(tmp_path / "raw")
    first = run_over(
        tmp_path / "1", tmp_path / "raw", pairs={"input": str(tmp_path / "raw" / "c.tsv")}
    )
    prepare.prepare_stage(first)
    queries = {
        split: first.judged(split).read_table(name)["query"].to_pylist()
        for split in ("train", "dev", "test")
        for name in first.judged(split).shards()
    }
    odd = {split: f"{queries[split][0].split()[1]}  JUDGEDS" for split in queries}
    lines = "".join(f"{query},x\n" for query in odd.values())
    (tmp_path / "raw" / "odd.csv").write_text("query,title\n" + lines)
    raw = {"input": str(tmp_path / "raw" / "odd.csv")}
    run = run_over(tmp_path / "2", tmp_path / "raw", pairs=raw)
    prepare.prepare_stage(run)
    kept = [q for n in run.pairs.shards() for q in run.pairs.read_table(n)["query"].to_pylist()]
    assert kept == [" ".join(odd["train"].split())]
    free = run_over(tmp_path / "3", tmp_path / "raw", pairs={**raw, "hold_out": False})
    prepare.prepare_stage(free)
    done = free.pairs.success()
    assert done and done["rows_out"] == 3 and done["held_out"] == 0


@pytest.mark.ray
def test_a_kill_at_the_very_end_leaves_chunks_that_go(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    run = run_over(tmp_path, raw_files)
    prepare.prepare_stage(run)
    (run.pairs / "_chunks" / "0").write_bytes("part-00000.json", b"{}")
    assert not prepare.prepare_stage(run_over(tmp_path, raw_files))
    assert not (run.pairs / "_chunks").exists()


@pytest.mark.ray
def test_no_pair_at_all_is_an_error(local_ray: None, raw_files: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query,title\n,x\n,y\n")
    run = run_over(tmp_path / "run", raw_files, pairs={"input": str(tmp_path / "a.csv")})
    with pytest.raises(UserError, match=r"no pair is left of the 2 rows of pairs\.input: 2 are in"):
        prepare.prepare_stage(run)


def test_one_file_in_two_inputs_is_named(raw_files: Path, tmp_path: Path) -> None:
    path = str(raw_files / "pairs" / "part-0.parquet")
    inputs = [{"path": path}, {"path": path, "title": "query"}]
    with pytest.raises(UserError, match="is in two inputs, with other columns"):
        prepare.check_inputs(run_over(tmp_path, raw_files, pairs={"input": inputs}))
