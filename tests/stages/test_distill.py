"""The complete job on a made-up shop, with Ray and tiny real teachers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raydistill.cli.main import main
from raydistill.config.run_config import RunConfig
from raydistill.config.teachers import TeacherConfig
from raydistill.files.bundles import load_scorer
from raydistill.files.folder import Folder
from raydistill.runs.run_folder import Run
from raydistill.stages import distill
from tests.helpers.runs import run_config


def write_config(config: RunConfig, path: Path) -> str:
    path.write_text(config.to_toml())
    return str(path)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_raw_pairs_to_a_served_student(
    local_ray: None,
    raw_files: Path,
    tiny_bert: Path,
    encoder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two BERTs, one fine-tuned and one ready-made, and the trees; the student on two workers."""
    teachers = {
        "tuned": TeacherConfig(base=str(encoder)),
        "ready": TeacherConfig(model=str(tiny_bert)),
    }
    sections = {"teachers": teachers, "trees": {"enabled": True}, "train": {"num_workers": 2}}
    config = run_config(tmp_path / "run", raw_files, tiny_bert, **sections)
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
    assert (run.root / "_fits").shards() == [] and not list(Path(run.root.uri, "_fits").iterdir())
    before = {p: p.stat().st_mtime_ns for p in Path(run.root.uri).rglob("*") if p.is_file()}
    assert main(["distill", "--config", file]) == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in before} == before
    _score_a_file(run, tmp_path)
    assert main(["distill", "--config", file, "--set", "pairs.lowercase=true"]) == 2
    assert "pairs.lowercase: False there, True here" in capsys.readouterr().err
    assert main(["evaluate", "--config", file, "--set", "soft_labels.temperature=2"]) == 2
    assert "no bundle of the current student" in capsys.readouterr().err
    assert main(["label", "--config", file, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("complete") == 6


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
        assert 0 <= entry["auc"] <= 1 and 0 <= entry["accuracy"] <= 1
        assert entry["num_pairs"] == found["num_pairs"] > 0
    kept = found["scorers"]["student"]["auc_retention"]
    stacked = found["scorers"]["teacher ensemble"]["auc"]
    assert kept == pytest.approx(found["scorers"]["student"]["auc"] / stacked)
    text = run.report.read_bytes("report.md").decode()
    assert f"{found['num_pairs']:,} judged pairs" in text


def _score_a_file(run: Run, tmp_path: Path) -> None:
    (bundle,) = (p for p in Path(run.bundle.uri).iterdir() if p.is_dir())
    golden = json.loads((bundle / "golden.json").read_text())["pairs"]
    scorer = load_scorer(run.bundle.uri)
    found = scorer.score_pairs([g["query"] for g in golden], [g["title"] for g in golden])
    assert found == pytest.approx([g["score"] for g in golden], abs=2e-6)
    pairs = run.pairs.read_table(run.pairs.shards()[0])
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    arguments = ["score", "--bundle", run.bundle.uri, "--input", str(tmp_path / "pairs.parquet")]
    assert main([*arguments, "--output", str(tmp_path / "scores.parquet")]) == 0
    scored = pq.read_table(tmp_path / "scores.parquet")
    assert scored.column_names == [*pairs.column_names, "score"]
    assert np.std(scored["score"].to_numpy()) > 0


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_whole_run_on_s3(
    local_ray: None, s3: str, raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """Inputs, the ready-made teacher, checkpoints, bundle and report all in the bucket."""
    bucket = Folder(s3)
    (bucket / "models" / "tiny").upload(tiny_bert)
    (bucket / "shop").upload(raw_files)
    config = run_config(tmp_path, raw_files, tiny_bert)
    content = config.model_dump()
    content["run_dir"] = f"{s3}/whole"
    content["pairs"]["input"] = [f"{s3}/shop/pairs/*.parquet"]
    content["judged"]["input"] = [f"{s3}/shop/judged.parquet"]
    content["teachers"] = {"tiny": {"model": f"{s3}/models/tiny"}}
    run = Run(RunConfig.model_validate(content))
    assert distill.run_all(run)
    _check_counts(run)
    assert not distill.run_all(run)
    assert load_scorer(f"{s3}/whole/bundle").score("sofa", ["grey sofa"]).shape == (1,)


def test_scoring_without_a_bundle_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raydistill", "score", "--input", "-"]
    found = subprocess.run(
        [*command, "--bundle", str(tmp_path)],
        input="a\tb\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 2
    assert found.stderr.startswith("raydistill: error: no bundle in")
    assert "Traceback" not in found.stderr
