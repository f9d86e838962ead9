"""Stage prepare on files as users have them: all lines are counted, or the run stops early."""

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.errors import UserError
from raydistill.files.schema import COUNTS
from raydistill.runs.run_folder import Run
from raydistill.stages import prepare
from tests.helpers.runs import run_config

LONE_QUOTE = (
    "query,title\nlamp,Lamp\n"
    'tv,"55 inch tv\n'
    + "".join(f"sofa {n},Sofa no {n}\n" for n in range(20))
    + 'tv,"55" tv\ntv,"32\\" tv, ""flat"""\nrug,"a\nlong\nrug"\npan,"12 inch pan"\n'
)


def write_judged(folder: Path, labels: list[object]) -> Path:
    queries = [f"judged {n // 4}" for n in range(len(labels))]
    titles = [f"title {n}" for n in range(len(labels))]
    path = folder / "judged.parquet"
    pq.write_table(pa.table({"query": queries, "title": titles, "label": labels}), path)
    return path


def make(folder: Path, pairs: object, **sections: object) -> Run:
    if not (folder / "judged.parquet").exists():
        write_judged(folder, [float(n % 2) for n in range(200)])
    given = {"pairs": {"input": pairs}, **sections}
    return Run(run_config(folder / "run", folder, Path("no-model"), **given))


def rejects(run: Run, dataset: str) -> list[tuple[int, int | None, str]]:
    folder = run.root / "quarantine" / dataset
    rows = [row for name in folder.shards() for row in folder.read_table(name).to_pylist()]
    return [(row["row"], row["line"], row["reason"]) for row in rows]


def pairs_of(run: Run) -> set[tuple[str, str]]:
    return {
        (row["query"], row["title"])
        for name in run.pairs.shards()
        for row in run.pairs.read_table(name).to_pylist()
    }


@pytest.mark.ray
def test_a_lone_quote_costs_no_line(
    local_ray: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pairs.csv").write_text(LONE_QUOTE + "one\n")
    run = make(tmp_path, str(tmp_path / "pairs.csv"))
    logging.getLogger("raydistill").propagate = True
    with caplog.at_level(logging.WARNING, logger="raydistill"):
        assert prepare.prepare_stage(run)
    done = run.pairs.success()
    assert done is not None
    assert [done[name] for name in COUNTS] == [27, 26, 0, 1, 0]
    assert (done["lines_in"], done["mended"]) == (29, 3)
    assert rejects(run, "pairs") == [(26, 30, "1 fields, not 2")]
    assert {("tv", '"55 inch tv'), ("tv", '"55" tv'), ("tv", '32" tv, "flat"'),
            ("rug", "a long rug")} <= pairs_of(run)  # fmt: skip
    assert any("3 rows are not RFC 4180" in line for line in caplog.messages)


@pytest.mark.ray
def test_how_a_file_is_read_is_part_of_what_it_is(local_ray: None, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("query;title\nsofa;'a; b'\ntap;x\n")
    given = {"path": str(tmp_path / "pairs.csv"), "csv": {"quote": "'"}}
    run = make(tmp_path, given)
    assert prepare.prepare_stage(run)
    assert pairs_of(run) == {("sofa", "a; b"), ("tap", "x")}
    assert not prepare.prepare_stage(make(tmp_path, given))
    with pytest.raises(UserError, match=r"pairs\.csv was prepared with \{'quote': \"'\"\}, not"):
        prepare.prepare_stage(make(tmp_path, {**given, "csv": {"quote": ""}}))
    by_section = make(tmp_path, str(tmp_path / "pairs.csv"))
    by_section = Run(
        run_config(
            tmp_path / "run", tmp_path, Path("no-model"),
            pairs={"input": str(tmp_path / "pairs.csv"), "csv": {"quote": "'"}},
        )
    )  # fmt: skip
    assert not prepare.prepare_stage(by_section)  # the same, said elsewhere


@pytest.mark.ray
def test_labels_that_are_something_else_stop_before_anything_is_written(
    local_ray: None, tmp_path: Path
) -> None:
    (tmp_path / "pairs.csv").write_text("query,title\nsofa,x\n")
    write_judged(tmp_path, [n % 4 for n in range(200)])
    with pytest.raises(UserError, match=r"labels from 0 to 3, 100 of the 200 outside 0\.\.1: "):
        prepare.prepare_stage(make(tmp_path, str(tmp_path / "pairs.csv")))
    assert not (tmp_path / "run").exists()
    scaled = make(tmp_path, str(tmp_path / "pairs.csv"), judged={"scale": [0, 3]})
    assert prepare.prepare_stage(scaled)
    labels = {
        round(row["label"], 4)
        for split in ("train", "dev", "test")
        for name in scaled.judged(split).shards()
        for row in scaled.judged(split).read_table(name).to_pylist()
    }
    assert labels == {0.0, 0.3333, 0.6667, 1.0}
    other = make(tmp_path, str(tmp_path / "pairs.csv"), judged={"scale": [0, 4]})
    with pytest.raises(UserError, match=r"was prepared with \{'scale': \[0\.0, 3\.0\]\}"):
        prepare.prepare_stage(other)


@pytest.mark.ray
def test_too_many_rows_in_quarantine_stop_the_run_and_other_settings_may_follow(
    local_ray: None, tmp_path: Path
) -> None:
    lines = [f"sofa {n},title" if n % 4 else f"sofa {n},title, blue" for n in range(100)]
    (tmp_path / "pairs.csv").write_text("query,title\n" + "\n".join(lines) + "\n")
    run = make(tmp_path, str(tmp_path / "pairs.csv"))
    words = (
        r"25 of the 100 rows of pairs\.input \(25\.0%\) cannot be used, pairs\.max_bad_fraction "
        r'allows 5\.0%; the commonest reason, of 25 rows: "3 fields, not 2", as line 2 of .*csv'
    )
    with pytest.raises(UserError, match=words):
        prepare.prepare_stage(run)
    assert len(rejects(run, "pairs")) == 25
    given = {"path": str(tmp_path / "pairs.csv"), "csv": {"delimiter": ";"}}
    with pytest.raises(UserError, match="no column 'query'"):
        prepare.prepare_stage(make(tmp_path, given))
    more = {"max_bad_fraction": 0.3, "input": str(tmp_path / "pairs.csv"), "lowercase": True}
    again = Run(run_config(tmp_path / "run", tmp_path, Path("no-model"), pairs=more))
    assert prepare.prepare_stage(again)
    done = again.pairs.success()
    assert done and [done[name] for name in COUNTS] == [100, 75, 0, 25, 0]
    assert len(rejects(again, "pairs")) == 25


@pytest.mark.ray
def test_no_pair_left_names_the_commonest_reason(local_ray: None, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_bytes(b"query,title\ncaf\xe9,a\nth\xe9,b\n,c\n")
    words = (
        r"no pair is left of the 3 rows .* the commonest reason, of 2 rows: "
        r'"query is not UTF-8, perhaps Windows-1252 \(Latin-1\)", as line 2 of'
    )
    with pytest.raises(UserError, match=words):
        prepare.prepare_stage(make(tmp_path, str(tmp_path / "pairs.csv")))
    given = {"path": str(tmp_path / "pairs.csv"), "csv": {"encoding": "latin-1"}}
    run = make(tmp_path, given)
    assert prepare.prepare_stage(run)
    assert pairs_of(run) == {("café", "a"), ("thé", "b")}
