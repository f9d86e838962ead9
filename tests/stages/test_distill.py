"""The complete job on a made-up shop, with Ray and tiny real teachers."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest

from raydistill.cli.main import main
from raydistill.config.run_config import RunConfig
from raydistill.files.folder import Folder
from raydistill.runs.run_folder import Run
from raydistill.serving.scorer import Scorer
from raydistill.stages import distill
from tests.helpers.runs import run_config


def write_config(config: RunConfig, path: Path) -> str:
    path.write_text(config.to_toml())
    return str(path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_raw_pairs_to_a_served_student_on_an_object_store(
    local_ray: None,
    s3: str,
    raw_files: Path,
    tiny_bert: Path,
    encoder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two BERTs, one fine-tuned and one ready-made, and the trees; the student on two workers.

    Inputs, the ready-made teacher, checkpoints, bundle and report are all in the bucket. Then the
    run folder moves to a disk, where it is complete too, and is exported and evaluated again.
    """
    (Folder(s3) / "models" / "tiny").upload(tiny_bert)
    (Folder(s3) / "shop").upload(raw_files)
    teachers = {"tuned": {"base": str(encoder)}, "ready": {"model": f"{s3}/models/tiny"}}
    sections: dict[str, object] = {
        "pairs": {"input": [f"{s3}/shop/pairs/*.parquet"]},
        "judged": {"input": [f"{s3}/shop/judged.parquet"]},
        "teachers": teachers, "trees": {"enabled": True}, "train": {"num_workers": 2},
    }  # fmt: skip
    config = run_config(f"{s3}/whole", raw_files, tiny_bert, **sections)
    file = write_config(config, tmp_path / "run.toml")
    assert main(["distill", "--config", file]) == 0
    out = capsys.readouterr()
    for name in ("tuned", "ready", "trees"):
        assert f"teacher {name}" in out.out
    for name in ("teacher ensemble", "student", "baseline on judged labels only"):
        assert name in out.out
    run = Run(config)
    _check_counts(run)
    _check_report(run)
    before = objects_of(s3, "whole/")
    assert not [name for name in names_of(before) if name.startswith("_fits/")]
    assert main(["distill", "--config", file]) == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert objects_of(s3, "whole/") == before
    assert Scorer.load(run.bundle.uri).score("sofa", ["grey sofa"]).shape == (1,)

    moved = Run(config.model_copy(update={"run_dir": str(tmp_path / "run")}))
    for name, data in {name: run.root.read_bytes(name) for name in names_of(before)}.items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    file = write_config(moved.config, tmp_path / "moved.toml")
    assert main(["distill", "--config", file]) == 0
    assert "nothing left to do" in capsys.readouterr().out
    golden = _golden(moved)
    moved.bundle.delete()
    moved.report.delete()
    assert main(["distill", "--config", file]) == 0
    assert _golden(moved) == golden
    _check_counts(moved)
    _check_report(moved)
    _score_a_file(moved, tmp_path)
    capsys.readouterr()
    assert main(["distill", "--config", file, "--set", "pairs.lowercase=true"]) == 2
    assert "pairs.lowercase: False there, True here" in capsys.readouterr().err
    assert main(["evaluate", "--config", file, "--set", "soft_labels.temperature=2"]) == 2
    assert "no bundle of the current student" in capsys.readouterr().err
    assert main(["label", "--config", file, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("complete") == 6


def objects_of(bucket: str, prefix: str) -> dict[str, tuple[object, str]]:
    """Of every object: when it was written, and the digest of its content."""
    pages = boto3.client("s3").get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=bucket.removeprefix("s3://"), Prefix=prefix)
    return {
        one["Key"]: (one["LastModified"], one["ETag"])
        for page in found
        for one in page.get("Contents", ())
    }


def names_of(objects: Iterable[str]) -> list[str]:
    """The files below the run folder; a key that ends in a slash stands for a folder."""
    return [key.partition("/")[2] for key in objects if not key.endswith("/")]


def _golden(run: Run) -> list[dict[str, object]]:
    (bundle,) = (p for p in Path(run.bundle.uri).iterdir() if p.is_dir())
    pairs: list[dict[str, object]] = json.loads((bundle / "golden.json").read_text())["pairs"]
    return pairs


def _check_counts(run: Run) -> None:
    for stage in distill.STAGES:
        assert distill.is_complete(stage, run)
        for folder in distill.outputs(stage, run):
            done = folder.success()
            assert done is not None
            lost = done.get("duplicates", 0) + done["quarantined"] + done.get("held_out", 0)
            assert done["rows_in"] == done["rows_out"] + lost, folder

    pairs, trained = run.pairs.success(), run.student("student").success()
    assert pairs is not None and trained is not None
    assert (
        trained["rows_in"] == pairs["rows_out"]
    )  # the student sees every pair of the transfer set


def _check_report(run: Run) -> None:
    found = run.report.read_json("metrics.json")
    assert found is not None
    assert found["teacher"] == "teacher ensemble"
    for entry in found["scorers"].values():
        for key in ("auc", "accuracy", "ndcg_10", "query_auc"):
            figure = entry["metrics"][key]
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
        assert entry["num_pairs"] == found["num_pairs"] > 0
    student, stacked = (found["scorers"][name] for name in ("student", "teacher ensemble"))
    kept = student["metrics"]["auc"]["value"] / stacked["metrics"]["auc"]["value"]
    assert student["retention"]["auc"]["value"] == pytest.approx(kept)
    assert found["differences"][0]["other"] == "baseline on judged labels only"
    text = run.report.read_bytes("report.md").decode()
    assert f"{found['num_pairs']:,} judged pairs" in text


def _score_a_file(run: Run, tmp_path: Path) -> None:
    golden = _golden(run)
    scorer = Scorer.load(run.bundle.uri)
    found = scorer.score_pairs([g["query"] for g in golden], [g["title"] for g in golden])
    assert found == pytest.approx([g["score"] for g in golden], abs=2e-6)
    pairs = run.pairs.read_table(run.pairs.shards()[0])
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    arguments = ["score", "--bundle", run.bundle.uri, "--input", str(tmp_path / "pairs.parquet")]
    assert main([*arguments, "--output", str(tmp_path / "scores.parquet")]) == 0
    scored = pq.read_table(tmp_path / "scores.parquet")
    assert scored.column_names == [*pairs.column_names, "score"]
    assert np.std(scored["score"].to_numpy()) > 0


@pytest.mark.slow
def test_scoring_without_a_bundle_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raydistill", "score", "--input", "-"]
    found = subprocess.run(
        [*command, "--bundle", str(tmp_path)],
        input="a\tb\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 2
    assert found.stderr.startswith("raydistill: error: no bundle in")
    assert "Traceback" not in found.stderr
