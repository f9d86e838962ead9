"""Raw files that are added later, moved, changed or deleted."""

import gzip
import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from raydistill.errors import UserError
from raydistill.files.schema import COUNTS
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import pair_shards
from raydistill.stages import prepare
from raydistill.stages.distill import is_complete
from tests.helpers.raw_files import write_cut_off
from tests.helpers.runs import first_shards, parquet_files, run_over


@pytest.mark.ray
def test_moved_raw_files_are_the_same_and_changed_ones_are_not(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    shutil.copytree(raw_files, tmp_path / "here")
    assert prepare.prepare_stage(run_over(tmp_path / "run", tmp_path / "here"))
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = run_over(tmp_path / "run", tmp_path / "there")
    assert not prepare.prepare_stage(moved)
    pairs = tmp_path / "there" / "pairs"
    shutil.move(pairs / "part-0.parquet", pairs / "renamed.parquet")
    assert not prepare.prepare_stage(run_over(tmp_path / "run", tmp_path / "there"))
    fresh = run_over(tmp_path / "other", tmp_path / "there")
    assert fresh.prepare_fingerprint("pairs") == moved.prepare_fingerprint("pairs")
    shutil.copy(raw_files / "judged.parquet", tmp_path / "there" / "extra.parquet")
    both = {"input": [str(tmp_path / "there" / n) for n in ("judged.parquet", "extra.parquet")]}
    grown = run_over(tmp_path / "run", tmp_path / "there", judged=both)
    with pytest.raises(UserError, match=r"judged\.parquet was added after the judged pairs"):
        prepare.prepare_stage(grown)


def table_of(run: Run) -> dict[tuple[str, str], float]:
    """Weight of every pair of the transfer set, with what later increments found of it."""
    found: dict[tuple[str, str], float] = {}
    for name in run.pairs.shards():
        rows = run.pairs.read_table(name).to_pylist()
        assert rows == sorted(rows, key=lambda row: (row["query"], row["title"]))
        for row in rows:
            key = (row["query"], row["title"])
            assert key not in found
            found[key] = row["weight"]
    for name in (run.pairs / "_weights").shards():
        for delta in (run.pairs / "_weights").read_table(name).to_pylist():
            row = run.pairs.read_table(delta["shard"]).slice(delta["row"], 1).to_pylist()[0]
            found[(row["query"], row["title"])] += delta["weight"]
    return found


@pytest.mark.ray
def test_an_addition_holds_only_what_is_new(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    whole = run_over(tmp_path / "1", raw_files, pairs={"shard_rows": 128})
    prepare.prepare_stage(whole)
    months = [str(raw_files / "pairs" / f"part-{n}.parquet") for n in range(3)]
    for upto in (1, 2, 3):  # the file of a month more each time
        grown = run_over(
            tmp_path / "2", raw_files, pairs={"shard_rows": 128, "input": months[:upto]}
        )  # fmt: skip
        before = parquet_files(grown)
        assert prepare.prepare_stage(grown)
        after = parquet_files(grown)
        assert before.items() <= after.items()  # no earlier file was written again
        assert not prepare.prepare_stage(grown)
    assert table_of(grown) == table_of(whole)
    done, expected = grown.pairs.success(), whole.pairs.success()
    assert done and expected
    assert {n: done[n] for n in COUNTS} == {n: expected[n] for n in COUNTS}
    assert [one["rows_in"] for one in done["increments"]] == [1_000] * 3
    assert done["shards"] == {
        name: grown.pairs.read_table(name).num_rows for name in grown.pairs.shards()
    }
    alone = run_over(tmp_path / "2", raw_files, pairs={"shard_rows": 128, "input": months[2]})
    assert not prepare.prepare_stage(alone)  # the earlier months need not stay


@pytest.mark.ray
def test_an_addition_cut_off_goes_on_to_the_same_bytes(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    months = [str(raw_files / "pairs" / f"part-{n}.parquet") for n in range(3)]
    small = {"shard_rows": 64}
    for name in ("1", "2"):
        prepare.prepare_stage(
            run_over(tmp_path / name, raw_files, pairs={**small, "input": months[:1]})
        )
        prepare.prepare_stage(
            run_over(tmp_path / name, raw_files, pairs={**small, "input": months})
        )
    done = tmp_path / "2" / "pairs" / "_SUCCESS.json"
    summary = json.loads(done.read_text())
    summary["increments"].pop()
    summary["fingerprint"] = "that of the first"
    summary["shards"] = {n: r for n, r in summary["shards"].items() if "a001" not in n}
    done.write_text(json.dumps(summary))
    for name in first_shards(list(parquet_files(run_over(tmp_path / "2", raw_files))))[::2]:
        if "a001" in name:
            (tmp_path / "2" / name).unlink()
    late = run_over(tmp_path / "2", raw_files, pairs={**small, "input": months})
    assert not is_complete("prepare", late)
    assert prepare.prepare_stage(late)
    assert parquet_files(late) == parquet_files(run_over(tmp_path / "1", raw_files))
    assert is_complete("prepare", late)


@pytest.mark.ray
def test_an_input_that_is_not_there_is_an_error_unless_it_was_taken(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    january, february = tmp_path / "january", tmp_path / "february"
    january.mkdir(), february.mkdir()
    shutil.copy(raw_files / "pairs" / "part-0.parquet", january / "a.parquet")
    shutil.copy(raw_files / "pairs" / "part-1.parquet", february / "a.parquet")
    inputs = lambda *names: {"input": [f"{tmp_path}/{name}/*.parquet" for name in names]}  # noqa: E731
    assert prepare.prepare_stage(run_over(tmp_path / "run", raw_files, pairs=inputs("january")))
    shutil.rmtree(january)
    with pytest.raises(UserError, match=r"no such input: .*/febuary/"):
        prepare.prepare_stage(
            run_over(tmp_path / "run", raw_files, pairs=inputs("january", "febuary"))
        )
    both = run_over(tmp_path / "run", raw_files, pairs=inputs("january", "february"))
    assert prepare.prepare_stage(both)
    done = both.pairs.success()
    assert done and done["rows_in"] == 2_000


@pytest.mark.ray
def test_nothing_goes_on_with_a_half_made_addition(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    months = [str(raw_files / "pairs" / f"part-{n}.parquet") for n in range(2)]
    prepare.prepare_stage(run_over(tmp_path, raw_files, pairs={"input": months[:1]}))
    grown = run_over(tmp_path, raw_files, pairs={"input": months})
    assert pair_shards(grown)
    manifest = grown.manifest
    grown.write_manifest(
        manifest.with_increments("pairs", [*manifest.pairs, grown.unknown_files("pairs")])
    )
    with pytest.raises(UserError, match="/pairs is outdated: run `prepare` first"):
        pair_shards(grown)
    assert prepare.prepare_stage(grown)
    assert pair_shards(grown)


@pytest.mark.ray
def test_a_file_that_was_cut_off_may_be_mended(
    local_ray: None, raw_files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.csv").write_text("query,title\nsofa,grey sofa\n")
    write_cut_off(raw / "b.csv.gz")
    given = {"input": str(raw)}
    with pytest.raises(UserError, match=r"cannot read .*b\.csv\.gz"):
        prepare.prepare_stage(run_over(tmp_path / "run", raw_files, pairs=given))
    (raw / "b.csv.gz").write_bytes(gzip.compress(b"query,title\ntap,big tap\n"))
    mended = run_over(tmp_path / "run", raw_files, pairs=given)
    assert prepare.prepare_stage(mended)
    assert "b.csv.gz has changed" in caplog.text and "restarting the increment" in caplog.text
    assert table_of(mended) == {("sofa", "grey sofa"): 1, ("tap", "big tap"): 1}


@pytest.mark.ray
def test_a_file_changed_in_its_place_is_noticed(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("query,title\nsofa,grey sofa\n")
    given = {"input": str(tmp_path / "a.csv")}
    prepare.prepare_stage(run_over(tmp_path / "run", raw_files, pairs=given))
    os.utime(tmp_path / "a.csv", (1, 1))  # touched, and the same
    assert not prepare.prepare_stage(run_over(tmp_path / "run", raw_files, pairs=given))
    (tmp_path / "a.csv").write_text("query,title\nsofa,blue sofa\n")
    with pytest.raises(UserError, match=r"a\.csv has changed since it was prepared"):
        prepare.prepare_stage(run_over(tmp_path / "run", raw_files, pairs=given))


@pytest.mark.ray
def test_a_source_that_comes_later_is_refused(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    first = str(raw_files / "pairs" / "part-0.parquet")
    prepare.prepare_stage(run_over(tmp_path, raw_files, pairs={"input": first}))
    second = {"path": str(raw_files / "pairs" / "part-1.parquet"), "source": "query"}
    with pytest.raises(UserError, match=r"pairs\.source: False there, True here"):
        prepare.prepare_stage(run_over(tmp_path, raw_files, pairs={"input": [first, second]}))


def test_a_run_begun_with_few_pairs_refuses_many_more(raw_files: Path, tmp_path: Path) -> None:
    _, pairs = prepare._datasets(run_over(tmp_path, raw_files))
    first = {"layouts": {"": {"num_buckets": 1, "num_bucket_groups": 1, "increment": 0}}}
    with pytest.raises(UserError, match="1 buckets; these files would put 5,000,000 rows"):
        prepare._layouts(replace(pairs, increment=1), Counter(kept_=5_000_000), [first])


@pytest.mark.parametrize("dataset", ["judged", "pairs"])
def test_a_row_corrected_in_place_is_found_though_size_and_time_are_the_same(
    dataset: str, raw_files: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,title,label\nsofa,grey sofa,0\n")
    os.utime(path, (1, 1))
    given: dict[str, object] = {dataset: {"input": str(path)}}
    begun = run_over(tmp_path / "run", raw_files, **given)
    begun.write_manifest(begun.manifest)
    for name in ("judged", "pairs"):
        (begun.root / name).write_json("_SUCCESS.json", {"increments": [{}], "fingerprint": ""})
    prepare.check_inputs(run_over(tmp_path / "run", raw_files, **given))
    path.write_text("query,title,label\nsofa,grey sofa,1\n")
    os.utime(path, (1, 1))
    with pytest.raises(UserError, match=r"a\.csv has changed since it was prepared"):
        prepare.check_inputs(run_over(tmp_path / "run", raw_files, **given))
