"""kill -9 of a job's driver while it works: the next job goes on, to the same bytes.

tests/bench/kill_label.py, kill_tune.py and same_bytes.py kill more, and other processes too.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from raydistill.cluster.connection import Cluster
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import shards_to_score
from raydistill.stages import label, prepare
from tests.helpers.logits import label_without_ray, logits_of
from tests.helpers.runs import parquet_files, run_config, run_over

ONE = Cluster(num_cores=1, num_gpus=0)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run_until(stage: str, run: Run, is_due: Callable[[], bool]) -> None:
    """Start a stage as a user does, on the session's Ray, and kill its driver when `is_due`."""
    file = Path(f"{run.root.uri}.toml")
    file.write_text(run.config.to_toml())
    driver = subprocess.Popen(
        [sys.executable, "-m", "raydistill", stage, "--config", str(file)],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not is_due():
        assert driver.poll() is None, driver.communicate()[1][-2_000:]
        time.sleep(0.01)
    driver.kill()
    driver.communicate()


def test_ctrl_c_during_a_fit_says_how_to_go_on(labeled: Run) -> None:
    """Ray Train has a handler of its own, which ended the driver with 1 and without a word."""
    file, root = Path(f"{labeled.root.uri}.toml"), Path(labeled.root.uri)
    file.write_text(labeled.config.to_toml())
    driver = subprocess.Popen(
        [sys.executable, "-m", "raydistill", "train", "--config", str(file)],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not list(root.glob("_fits/train-*/*")):
        assert driver.poll() is None, driver.communicate()[1][-2_000:]
        time.sleep(0.05)
    time.sleep(1)  # the controller, which has made that folder, is about to start the workers
    driver.send_signal(signal.SIGINT)
    said = driver.communicate(timeout=60)[1]
    assert driver.returncode == 130, said
    assert said.strip().splitlines()[-1] == "raydistill: stopped; run the same command to resume"
    assert not (root / "_leases" / "train.json").exists()
    assert labeled.student("student").success() is None


def has_files(folder: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any(folder.glob(pattern))


def test_prepare_goes_on_to_the_same_bytes(
    local_ray: None, raw_files: Path, tmp_path: Path
) -> None:
    small = {"pairs": {"shard_rows": 64}}
    whole = run_over(tmp_path / "whole", raw_files, **small)
    prepare.prepare_stage(whole)
    folder = tmp_path / "killed"
    killed = run_over(folder, raw_files, **small)
    for dataset in ("judged", "pairs"):
        run_until("prepare", killed, has_files(folder, f"{dataset}/_chunks/*/*"))
        assert (killed.root / dataset).success() is None
    assert prepare.prepare_stage(run_over(folder, raw_files, **small))
    assert parquet_files(killed) == parquet_files(whole)
    assert not (killed.pairs / "_chunks").exists()


def test_label_scores_what_is_missing_and_nothing_again(
    raw_files: Path, tiny_bert: Path, prepared_dir: Path
) -> None:
    config = run_config(prepared_dir, raw_files, tiny_bert)
    killed, logits = Run(config), Path(Run(config).logits("tiny").uri)
    run_until("label", killed, has_files(logits, "part-*.parquet"))
    times = {path: path.stat().st_mtime_ns for path in logits.glob("**/part-*.parquet")}
    assert 0 < len(times) < len(shards_to_score(killed))
    assert label.label_stage(Run(config), ONE)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    done = killed.logits("tiny").success() or {}
    num_left = sum(s.num_rows for s in shards_to_score(killed) if logits / s.target not in times)
    assert done["rows_scored"] == num_left
    assert (done["device"], done["dtype"], done["out_of_memory"]) == ("cpu", "float32", 0)
    assert done["device_name"]
    assert not list(logits.glob("**/.*.tmp"))
    found = logits_of(killed)
    killed.logits("tiny").delete()
    label_without_ray(Run(config))
    assert found == logits_of(killed)
