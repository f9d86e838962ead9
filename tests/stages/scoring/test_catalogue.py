"""Folders of files to folders of scores: names, rows, resumption, and what is refused."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import ray
from pyarrow import orc

from raydistill.cli.main import main
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS, Folder
from raydistill.files.inputs.csv_dialect import CsvOptions
from raydistill.runs.lease import Lease
from raydistill.serving.scorer import Scorer
from raydistill.stages.scoring import catalogue
from raydistill.stages.scoring.files import score_file
from raydistill.stages.scoring.job import make_job
from raydistill.stages.scoring.rows import Reading
from tests.helpers.bundles import make_bundle

PAIR = Reading("query", "title")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_bundle(tmp_path_factory.mktemp("scoring") / "bundle"))


def rows(num: int, *, first: int = 0) -> pa.Table:
    """Pairs of which each has another score; a fifth has no query, and one a quote."""
    numbers = range(first, first + num)
    return pa.table({
        "id": pa.array(numbers, pa.int64()),
        "query": [None if n % 5 == 3 else f"grey sofa {n % 7}" for n in numbers],
        "title": [f'sofa number {n}, {n % 90}" wide' for n in numbers],
        "price": pa.array([n / 4 for n in numbers]),
    })  # fmt: skip


def write_all(folder: Path) -> None:
    """A file of each format; some in a folder below, one of several row groups."""
    (folder / "more").mkdir(parents=True)
    pq.write_table(rows(90), folder / "a.parquet", row_group_size=20)
    pacsv.write_csv(rows(30, first=90), folder / "b.csv")
    (folder / "c.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows(30, first=120).to_pylist())
    )
    packed = gzip.compress((folder / "b.csv").read_bytes(), mtime=0)
    (folder / "more" / "b.csv.gz").write_bytes(packed)
    lines = ["\t".join(map(str, row.values())) for row in rows(20, first=150).to_pylist()]
    header = "\t".join(rows(0).column_names)
    (folder / "more" / "d.tsv").write_text("\n".join([header, *lines]) + "\n")
    (folder / "more" / "e.json").write_text(json.dumps(rows(20, first=170).to_pylist()))
    orc.write_table(rows(20, first=190), folder / "more" / "f.orc")
    feather.write_feather(rows(20, first=210), folder / "more" / "g.feather")
    pq.write_table(rows(0), folder / "more" / "none.parquet")
    (folder / "more" / "header.csv").write_text("query,title\n")


def command(bundle: str, source: object, output: object, *more: str) -> list[str]:
    return ["score", "--bundle", bundle, "--input", str(source), "--output", str(output), *more]


def inputs_of(folder: object) -> list[str]:
    """JSON beside other files of a folder is metadata about them, unless it is named."""
    return [str(folder), f"{folder}/more/e.json"]


def contents(output: Path) -> dict[str, bytes]:
    """All outputs, without what the job keeps for itself."""
    files = (file for file in output.rglob("*") if file.is_file())
    named = {file.relative_to(output).as_posix(): file for file in files}
    return {name: file.read_bytes() for name, file in named.items() if name[0] not in "._"}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
def test_the_outputs_one_after_another_are_what_one_file_would_be(
    local_ray: None, bundle: str, tmp_path: Path, kind: str
) -> None:
    write_all(tmp_path / "in")
    output, whole = tmp_path / "out", tmp_path / f"whole.{kind}"
    given = ["--input", inputs_of(tmp_path / "in")[1], "--format", kind, "--shard-rows", "40"]
    assert main(command(bundle, tmp_path / "in", output, *given)) == 0
    done = Folder(str(output)).success() or {}
    scorer = Scorer.load(bundle)
    found = score_file(scorer, sources=inputs_of(tmp_path / "in"), target=str(whole), reading=PAIR)
    assert (done["rows_in"], done["rows_out"], done["without_score"]) == (found[0], *found)
    assert done["files"] == 10 and sum(done["outputs"].values()) == found[0]
    names = [
        "a-00000", "a-00001", "a-00002", "b", "c", "more/b", "more/d", "more/e", "more/f",
        "more/g", "more/header", "more/none",
    ]  # fmt: skip
    assert list(done["outputs"]) == [f"{name}.{kind}" for name in names]
    assert [done["outputs"][f"a-0000{n}.{kind}"] for n in range(3)] == [40, 40, 10]
    parts = [output / name for name in done["outputs"]]
    if kind == "parquet":
        tables = [pq.read_table(part) for part in parts]
        assert pa.concat_tables(tables).equals(pq.read_table(whole))
        return
    header = 0 if kind == "jsonl" else 1
    lines = [line for part in parts for line in part.read_bytes().splitlines()[header:]]
    assert lines == whole.read_bytes().splitlines()[header:]


def test_from_bucket_to_bucket(
    local_ray: None, s3: str, bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_all(tmp_path / "in")
    store = Folder(f"{s3}/scoring/dt=1")
    (store / "in").upload(tmp_path / "in")
    (store / "bundle").upload(Path(bundle))
    given = command(f"{store}/bundle", f"{store}/in/**", f"{store}/out/", "--shard-rows", "40")
    assert main(given) == 0
    assert main(given) == 0
    assert f"nothing left to do in {store}/out" in capsys.readouterr().out
    assert main(command(bundle, tmp_path / "in", tmp_path / "out", "--shard-rows", "40")) == 0
    local = contents(tmp_path / "out")
    assert len(local) == 11
    assert {name: (store / "out").read_bytes(name) for name in local} == local


@pytest.mark.slow
def test_killed_at_any_moment_and_submitted_again(
    local_ray: None, bundle: str, tmp_path: Path
) -> None:
    """SIGKILL and SIGTERM after a random number of pieces: the same bytes, no piece twice."""
    source = tmp_path / "in"
    source.mkdir()
    for number in range(60):
        table = rows(40, first=40 * number)
        pq.write_table(table, source / f"part-{number:03d}.parquet")
    pacsv.write_csv(rows(3_000), source / "long.csv")
    given = command(bundle, source, tmp_path / "killed", "--shard-rows", "100")
    chance, done = random.Random(7), tmp_path / "killed" / "_done"
    written: dict[Path, int] = {}
    for number in (signal.SIGKILL, signal.SIGTERM):
        num_due = len(written) + chance.randrange(1, 25)
        driver = subprocess.Popen(
            [sys.executable, "-m", "raydistill", *given],
            env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while len(list(done.glob("*.json"))) < num_due:
            assert driver.poll() is None, driver.communicate()[1][-2_000:]
            time.sleep(0.002)
        driver.send_signal(number)
        said = driver.communicate(timeout=60)[1]
        if number == signal.SIGTERM:
            assert driver.returncode == 143 and "run the same command to resume" in said
            assert not (tmp_path / "killed" / "_leases" / "score.json").exists()
        assert {path: path.stat().st_mtime_ns for path in written} == written  # none again
        written = {path: path.stat().st_mtime_ns for path in done.glob("*.json")}
    assert not (tmp_path / "killed" / SUCCESS).exists()
    assert main(given) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert main(command(bundle, source, tmp_path / "whole", "--shard-rows", "100")) == 0
    found, expected = contents(tmp_path / "killed"), contents(tmp_path / "whole")
    assert found == expected and len(found) == 90
    assert not list((tmp_path / "killed").rglob(".*.tmp"))


def test_a_stream_goes_on_where_it_was(local_ray: None, bundle: str, tmp_path: Path) -> None:
    pacsv.write_csv(rows(1_000), tmp_path / "in.csv")
    packed = gzip.compress((tmp_path / "in.csv").read_bytes())
    (tmp_path / "in.csv.gz").write_bytes(packed)
    given = command(
        bundle, tmp_path / "in.csv.gz", tmp_path / "out", "--shard-rows", "300", "--columns", "id"
    )
    assert main(given) == 0
    whole = contents(tmp_path / "out")
    assert list(whole) and sorted(whole) == [f"in-0000{n}.parquet" for n in range(4)]
    table = pa.concat_tables(pq.read_table(tmp_path / "out" / name) for name in sorted(whole))
    assert table.column_names == ["id", "score"] and table["id"].to_pylist() == [
        str(n) for n in range(1_000)
    ]
    # Killed after the third output: the record of the item and the last output are not there.
    kept = tmp_path / "out" / "in-00002.parquet"
    for name in (SUCCESS, "_done/000000.json", "in-00003.parquet"):
        (tmp_path / "out" / name).unlink()
    before_ns = kept.stat().st_mtime_ns
    assert main(given) == 0
    assert contents(tmp_path / "out") == whole and kept.stat().st_mtime_ns == before_ns
    (tmp_path / "out" / "in-00001.parquet").unlink()  # of a finished job
    assert main(given) == 0
    assert contents(tmp_path / "out") == whole and kept.stat().st_mtime_ns == before_ns


@pytest.fixture
def finished(local_ray: None, bundle: str, tmp_path: Path) -> list[str]:
    """The command of a job that is complete."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        pq.write_table(rows(20), tmp_path / "in" / f"{name}.parquet")
    given = command(bundle, tmp_path / "in", tmp_path / "out")
    assert main(given) == 0
    return given


def test_two_jobs_are_not_mixed(
    finished: list[str], bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(tmp_path / "out")

    def refused(*given: str) -> str:
        assert main([*given]) == 2
        assert contents(tmp_path / "out") == before
        return capsys.readouterr().err

    other = str(make_bundle(tmp_path / "other", threshold=0.4))
    assert "holds scores of another job: bundle" in refused(*finished[:2], other, *finished[3:])
    assert "columns None there, ['id'] here" in refused(*finished, "--columns", "id")
    assert "format 'parquet' there, 'csv' here" in refused(*finished, "--format", "csv")
    pq.write_table(rows(20), tmp_path / "in" / "c.parquet")
    assert "1 input files are new since it began" in refused(*finished)
    (tmp_path / "in" / "c.parquet").unlink()
    pq.write_table(rows(20, first=7), tmp_path / "in" / "b.parquet")
    found = refused(*finished)
    assert "1 input files are changed since it began" in found and "Give another --output" in found
    (tmp_path / "in" / "b.parquet").unlink()
    assert "1 input files are gone since it began" in refused(*finished)
    pq.write_table(rows(20), tmp_path / "in" / "b.parquet")  # as it was, at another time
    assert main(finished) == 0


def test_one_job_at_a_time(
    finished: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    (output / "a.parquet").unlink()
    with Lease(Folder(str(output)) / "_leases", "score"):
        assert main(finished) == 2
        assert "is the work of process" in capsys.readouterr().err
    assert main(finished) == 0 and (output / "a.parquet").exists()


def test_a_file_that_changes_meanwhile(local_ray: None, bundle: str, tmp_path: Path) -> None:
    pq.write_table(rows(20), tmp_path / "a.parquet")
    job = make_job(
        str(tmp_path / "out"), bundle=bundle, bundle_fingerprint=fingerprint_of(bundle),
        inputs=[str(tmp_path / "a.parquet")], reading=PAIR, csv=CsvOptions(), columns=None,
        kind="parquet", shard_rows=100,
    )  # fmt: skip
    pq.write_table(rows(20, first=3), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="was changed while it was scored"):
        catalogue.run(job)
    assert contents(tmp_path / "out") == {}


def fingerprint_of(bundle: str) -> str:
    return str(Scorer.load(bundle).settings["fingerprint"])


def test_rows_without_a_score_keep_their_place(
    local_ray: None, bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_bytes(
        b'query,title,id\nsofa,grey sofa,1\nonly\nsofa,caf\xe9,3\n" ",x,4\n&nbsp;,x,5\nsofa,x,6\n'
    )
    (tmp_path / "in" / "b.jsonl").write_text('{"query": "a", "title": "b"}\n[1]\n{cut\n')
    assert main(command(bundle, tmp_path / "in", tmp_path / "out", "--format", "jsonl")) == 0
    said = capsys.readouterr()
    assert "a.csv: 1 rows cannot be read" in said.err and "b.jsonl: 2 rows" in said.err
    assert "6 of them without a score" in said.out
    lines = (tmp_path / "out" / "a.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [row["id"] for row in found] == ["1", None, "3", "4", "5", "6"]
    assert [row["score"] is None for row in found] == [False, True, True, True, True, False]
    lines = (tmp_path / "out" / "b.jsonl").read_text().splitlines()
    assert [json.loads(line)["score"] is None for line in lines] == [False, True, True]


def test_single_texts_and_titles_of_several_columns(local_ray: None, tmp_path: Path) -> None:
    table = pa.table({"title": ["grey sofa", ""], "brand": ["x", None], "id": [1, 2]})
    pq.write_table(table, tmp_path / "a.parquet")
    single = make_bundle(tmp_path / "bundle", single_texts=True, title=["title", "brand"])
    assert main(command(str(single), tmp_path / "a.parquet", f"{tmp_path}/out.d/")) == 0
    found = pq.read_table(tmp_path / "out.d" / "a.parquet")
    expected = float(Scorer.load(single).score("", ["grey sofa x"])[0])
    assert found["score"].to_pylist() == [pytest.approx(expected), None]


def test_mistakes(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], local_ray: None
) -> None:
    pq.write_table(rows(5), tmp_path / "a.parquet")
    pq.write_table(pa.table({"query": ["a"], "text": ["b"]}), tmp_path / "b.parquet")

    def refused(*given: str) -> str:
        assert main([*given]) == 2
        return capsys.readouterr().err

    source, output = tmp_path / "*.parquet", tmp_path / "out"
    assert f"no column 'title' in {tmp_path}/b.parquet" in refused(*command(bundle, source, output))
    pq.write_table(pa.table({"query": ["a"], "title": [["b"]]}), tmp_path / "b.parquet")
    assert "column 'title' of" in refused(*command(bundle, source, output))
    assert not (output / "_job.json").exists()  # the same folder is free for a repaired file
    one = tmp_path / "a.parquet"
    assert "overlap" in refused(*command(bundle, tmp_path, output))
    assert "give a folder, such as s3://b/x/" in refused(*command(bundle, one, "s3://b/x.csv"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    assert "is no scores folder" in refused(*command(bundle, one, tmp_path / "mine"))
    assert "--format is for an output folder" in refused(
        *command(bundle, one, tmp_path / "x.csv", "--format", "csv")
    )
    lines = command(bundle, "-", tmp_path / "x.tsv")
    assert "--output is not for --input -, whose lines go to the standard output" in refused(*lines)
    assert "--columns is not for --input -" in refused(*lines[:-2], "--columns", "id")
    assert "no input file has a column 'idd'; there are id, query" in refused(
        *command(bundle, one, tmp_path / "out2", "--columns", "idd")
    )
    assert "no bundle in" in refused(*command(str(tmp_path), one, tmp_path / "out3"))
    assert not (tmp_path / "out3").exists()


def test_what_a_dry_run_says(
    finished: list[str], bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "a.parquet").unlink()
    assert main([*finished, "--dry-run"]) == 0
    assert capsys.readouterr().out.strip().endswith("1 of 2 pieces of work are done")
    new = command(bundle, tmp_path / "in", tmp_path / "new", "--dry-run")
    assert main(new) == 0 and "not begun" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()
