"""Project files other than code: the cluster file, the jobs, the recipes."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from raydistill.config.loading import load_config
from raydistill.runs.run_folder import STAGES

ROOT = Path(__file__).parent.parent


@pytest.mark.ray
def test_the_cluster_file_is_what_ray_expects() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    validate_config(config)
    with pytest.raises(Exception, match="max_wokers"):  # the check can fail
        validate_config({**config, "max_wokers": 1})


@pytest.mark.parametrize("file", [*ROOT.glob("jobs/*.toml"), *ROOT.glob("docs/recipes/*.toml")])
def test_every_run_file_is_valid(file: Path) -> None:
    assert load_config(str(file)).teachers


@pytest.mark.parametrize("stage", [*STAGES, "tune", "distill"])
def test_every_stage_has_a_job(stage: str) -> None:
    assert (ROOT / "jobs" / f"{stage}.py").is_file()


@pytest.mark.ray
def test_a_job_runs_from_the_checkout(raw_files: Path) -> None:
    command = [
        sys.executable, "-m", "jobs.label", "--config", "jobs/demo.toml", "--dry-run",
        "--set", f"pairs.input={raw_files}/pairs",
        "--set", f"judged.input={raw_files}/judged.parquet",
    ]  # fmt: skip
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "shard_rows = 4096" in found.stdout
