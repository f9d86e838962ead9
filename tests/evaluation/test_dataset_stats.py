"""Figures of `raydistill inspect` for raw files and a run, against numbers counted by hand."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.cli.main import main
from raydistill.data.bucket_layout import bucket_of
from raydistill.evaluation.dataset_stats import (
    _is_read,
    _key_share,
    _Tally,
    inspect_files,
    inspect_run,
)
from raydistill.evaluation.tables import data_markdown, data_text
from raydistill.files.pieces import PIECE_ROWS
from raydistill.files.schema import PAIRS
from raydistill.runs.run_folder import Run
from raydistill.stages import prepare
from tests.helpers.runs import run_config

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


def test_two_million_rows_are_read_whatever_a_shard_has(tmp_path: Path) -> None:
    run = Run(run_config(tmp_path / "run", tmp_path, Path("no-model")))
    for shard_rows in (PIECE_ROWS, 100 * PIECE_ROWS):
        for num_shards in (1, 7, 1_000):
            rows = num_shards * shard_rows
            share = _key_share(run, {f"{at}": shard_rows for at in range(num_shards)})
            assert share is not None and share * rows == pytest.approx(min(2_097_152, rows))
    assert _key_share(run, {}) == 1


def test_keys_are_read_by_their_place_among_all() -> None:
    keys = np.random.default_rng(0).integers(1 << 64, size=100_000, dtype=np.uint64)
    assert _is_read(keys, 0.3).mean() == pytest.approx(0.3, abs=0.01)
    assert (bucket_of(keys[_is_read(keys, 0.5)], 5) <= 2).all()  # the first two and half of a third
    assert _is_read(keys, 0.5)[bucket_of(keys, 5) < 2].all()
    assert _is_read(np.array([0, (1 << 64) - 1], np.uint64), 1.0).all()


def test_a_tally_keeps_no_more_of_a_table_than_it_shows() -> None:
    rows = 50_000
    texts = pa.array([f"a title of some words {at}" for at in range(rows)])
    columns = [np.arange(rows), pa.array(["query"] * rows), texts, np.ones(rows, np.float32)]
    tally = _Tally()
    tally.add(pa.table(columns, schema=PAIRS))
    (kept,) = tally.texts
    assert kept.num_rows == 4_096 and kept.get_total_buffer_size() < 300_000


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
    local_ray: None, raw_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(tmp_path / "run", raw_files, Path("no-model"), pairs={"shard_rows": 32})
    run = Run(config.model_copy(update={"teachers": {}}))
    prepare.prepare_stage(run)
    run.root.write_bytes("run.toml", config.to_toml().encode())
    monkeypatch.setattr("raydistill.evaluation.dataset_stats._MOST_ROWS", 1_000)
    found = inspect_run(run)
    read = found["datasets"]["pairs"]
    assert found["num_shards"] > 64 and read["share_read"] < 0.5
    queries = {q for n in run.pairs.shards() for q in run.pairs.read_table(n)["query"].to_pylist()}
    assert read["queries"] == pytest.approx(len(queries), rel=0.35)
    assert "of the pairs were read" in data_text(found)
