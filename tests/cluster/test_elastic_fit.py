"""A fit on several raylets: nodes are killed, drained and added, and the student stays the same."""

import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raydistill.runs.run_folder import Run
from raydistill.student import fit_files
from raydistill.student.fit import FitState
from raydistill.student.gradient_sync import GradientSync
from tests.helpers.fits import again, run_fit, start
from tests.helpers.ray_cluster import RayCluster, ray_cluster
from tests.helpers.runs import with_train

# Each window takes as long as the test needs to change the cluster between two of them; the later
# ones of a group of workers take longer, as they wait for a machine that starts.
DRIVER = """
import logging, os, pickle, sys, time
from pathlib import Path
from ray import cloudpickle
import raydistill.cluster.connection, ray
from raydistill.cluster import train_job
from raydistill.cluster.workers import worker_log
from raydistill.cluster.connection import Cluster
from raydistill.stages import train

address, folder = sys.argv[1], Path(sys.argv[2])
ray.init(address=address, log_to_driver=False, logging_level="error")
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s", force=True)
logging.getLogger("ray").setLevel(logging.ERROR)
train_job._RESIZE_EVERY_S, worker_log._SILENCE_S = 4.0, 3.0
fit = pickle.loads((folder / "fit.pickle").read_bytes())

def loop(config):
    context, original, ended = ray.train.get_context(), train._is_leaving, []
    def slow(*arguments, **named):
        ended.append(None)
        if context.get_world_rank() == 0:
            with (folder / "windows").open("a") as file:
                file.write(f"{context.get_world_size()}\\n")
        if not (folder / "hurry").exists():
            time.sleep(0.7 if len(ended) < 5 else 3.0)
        return original(*arguments, **named)
    train._is_leaving = slow
    train.train_loop(config)

train_job.run_workers(
    loop, {"fit": fit}, name="elastic", storage=fit.run.root / "_fits",
    cluster=Cluster(num_cores=4, num_gpus=0), num_workers=fit.settings.num_workers, gpus_each=0.0,
)
groups = ray.util.placement_group_table().values()
print("groups", {group["state"] for group in groups}, flush=True)
"""


def undisturbed(run: Run) -> FitState:
    """The state at the end of the same fit on one worker."""
    fit, _ = start(run)
    state = again(fit, GradientSync(num_parts=fit.settings.most_workers))
    run_fit(fit, state)
    return state


def wait_for(seen: Callable[[], bool], driver: subprocess.Popen[str], *, what: str) -> None:
    until_s = time.monotonic() + 240
    while not seen():
        assert driver.poll() is None, f"the driver ended before {what}"
        assert time.monotonic() < until_s, f"timeout: {what}"
        time.sleep(0.1)


def windows(folder: Path) -> list[int]:
    """The number of workers at each window's end, in the order of time."""
    path = folder / "windows"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def begin(run: Run, cluster: RayCluster, folder: Path) -> subprocess.Popen[str]:
    (folder / "fit.pickle").write_bytes(pickle.dumps(fit_files.student_fit(run, "student")))
    command = [sys.executable, "-c", DRIVER, cluster.address, str(folder)]
    with (folder / "log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, text=True, env=cluster.environment)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nodes_come_and_go_and_the_student_stays_the_same(labeled: Run, tmp_path: Path) -> None:
    """It waits for two nodes; one is killed, one is added, one leaves after a notice."""
    run = with_train(
        labeled, num_workers=[1, 4], epochs=4, window_rows=1, checkpoint_every_windows=2,
        dtype="float32", evaluate_every_pairs=1_000,
    )  # fmt: skip
    run = Run(run.config.model_copy(
        update={"student": run.config.student.model_copy(update={"dropout": 0.1})}
    ))  # fmt: skip
    alone = undisturbed(run)
    with ray_cluster(environment={"PYTHONPATH": ":".join(sys.path)}) as cluster:
        driver = begin(run, cluster, tmp_path)
        try:
            says = tmp_path / "log"
            wait_for(lambda: "no word of a worker" in says.read_text(), driver, what="a line")
            first, second = cluster.add_node(), cluster.add_node()
            wait_for(lambda: windows(tmp_path).count(2) > 2, driver, what="two workers")
            second.kill()
            wait_for(lambda: 1 in windows(tmp_path), driver, what="one worker")
            third = cluster.add_node()
            wait_for(lambda: windows(tmp_path)[-1] == 2, driver, what="two workers again")
            cluster.drain(first, deadline_s=6.0)
            time.sleep(6.0)
            first.kill()
            (tmp_path / "hurry").touch()
            driver.wait(timeout=300)
        finally:
            driver.kill()
        log = (tmp_path / "log").read_text()
        assert driver.returncode == 0, log
        assert third.node_id in cluster.alive()
    assert "a machine was lost: it goes on from the newest checkpoint" in log
    assert "a machine leaves in" in log and "of at most 4 workers, from a checkpoint" in log
    assert "groups {'REMOVED'}" in log
    found = fit_files.load_student(run.student("student"))
    assert all(torch.equal(found[name], value) for name, value in alone.best.items())
    result = run.student("student").read_json(fit_files.RESULT) or {}
    assert result["evaluations"] == alone.history
    assert "it needs 1 to 4 workers with 1 CPU each, and the cluster has 0 of 0 CPU free" in log
    # Lost at each of 4 events: at most 2 windows since a checkpoint, one begun, and those that end
    # before Ray knows of the checkpoint.
    num_planned = 4 * len(fit_files.student_fit(run, "student").shards)
    assert num_planned <= len(windows(tmp_path)) <= num_planned + 4 * (2 + 1 + 3)
