"""What `raydistill inspect` says of a run and of raw files, against numbers counted by hand."""

import json
from pathlib import Path

import pytest

from raydistill.cli import main
from raydistill.inspection import inspect_files, inspect_run
from raydistill.report import data_markdown, data_text
from raydistill.run import Run
from raydistill.stages import prepare
from tests.conftest import run_config

RAW = """query,title
sofa,grey sofa
Sofas,grey  sofa
sofa,grey sofa
tap,a very long tap
,x
,y
tap,one,more
"""


def test_raw_files_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text(RAW)
    found = inspect_files(str(tmp_path / "a.csv"), query="query", title="title")
    assert found["rows"]["pairs"] == {
        "rows_in": 7, "rows_out": 3, "duplicates": 1, "quarantined": 3, "held_out": 0,
    }  # fmt: skip
    pairs = found["datasets"]["pairs"]
    assert (pairs["pairs_read"], pairs["queries"], pairs["titles_read"]) == (3, 2, 2)
    assert pairs["words"] == {"query": [1, 1, 1], "title": [2, 4, 4]}
    assert [(one["reason"], one["rows"]) for one in found["rejects"]["pairs"]] == [
        ("query is empty", 2), ("3 fields, not 2", 1),
    ]  # fmt: skip
    assert main(["inspect", str(tmp_path / "a.csv")]) == 0
    assert "3 fields, not 2" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "a.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["inspect", str(tmp_path / "a.csv"), "--query", "q"]) == 2
    assert "no column 'q' in" in capsys.readouterr().err


@pytest.mark.ray
def test_a_run(prepared_dir: Path, raw_files: Path, tiny_bert: Path) -> None:
    run = Run(run_config(prepared_dir, raw_files, tiny_bert))
    found = inspect_run(run)
    done = run.pairs.success()
    assert done
    assert found["rows"]["pairs"]["rows_out"] == found["datasets"]["pairs"]["pairs_read"]
    queries = {q for n in run.pairs.shards() for q in run.pairs.read_table(n)["query"].to_pylist()}
    assert 0.8 * len(queries) < found["datasets"]["pairs"]["queries"] <= len(queries)
    assert found["datasets"]["pairs"]["rows_a_pair"] == pytest.approx(
        (done["rows_in"] - done["held_out"] - done["quarantined"]) / done["rows_out"], abs=1e-3
    )
    assert found["overlap"]["dev"]["queries"] == found["overlap"]["test"]["queries"] == 0
    assert found["overlap"]["train"]["queries"] > 0.5
    pieces = found["datasets"]["pairs"]["wordpieces"]["pair"]
    words = found["datasets"]["pairs"]["words"]
    assert pieces[0] >= words["query"][0] + words["title"][0] + 2  # [CLS] and [SEP]s
    for text in (data_text(found), data_markdown(found)):
        assert "judged train" in text and "held out" in text


@pytest.mark.ray
def test_a_run_of_many_shards_is_read_in_part(
    local_ray: None, raw_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(tmp_path / "run", raw_files, Path("no-model"), pairs={"shard_rows": 32})
    run = Run(config.model_copy(update={"teachers": {}}))
    prepare.run(run)
    run.root.write_bytes("run.toml", config.to_toml().encode())
    found = inspect_run(run)
    read = found["datasets"]["pairs"]
    assert found["num_shards"] > 64 and read["share_read"] < 0.5
    queries = {q for n in run.pairs.shards() for q in run.pairs.read_table(n)["query"].to_pylist()}
    assert read["queries"] == pytest.approx(len(queries), rel=0.35)
    assert "of the pairs were read" in data_text(found)
