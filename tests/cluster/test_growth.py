"""Ray's autoscaler: from no machine to three and back, while the stages and chains work."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raydistill.runs.run_folder import Run
from raydistill.runs.shards import shards_to_score
from tests.helpers.chains import chain, driver_environment, expected
from tests.helpers.logits import logits_of
from tests.helpers.ray_cluster import RayCluster, autoscaler
from tests.helpers.runs import run_config

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]
NONE_S = 30.0  # until machines without work are away; they may idle for 3 s


@contextmanager
def counted(cluster: RayCluster) -> Iterator[list[int]]:
    """The number of machines beside the head, whenever it changes."""
    counts, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            if counts[-1] != (now := len(cluster.alive()) - 1):
                counts.append(now)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


def wait_for(counts: list[int], num: int) -> None:
    until_s = time.monotonic() + NONE_S
    while counts[-1] != num and time.monotonic() < until_s:
        time.sleep(0.1)
    assert counts[-1] == num, counts


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """No machine at first, three at most, each with a core and a GPU that only Ray believes in."""
    variables = {"RAYDISTILL_ALLOW_CPU_AS_GPU": "1"}
    node = {"CPU": 1, "GPU": 1}
    with autoscaler(max_nodes=3, node=node, environment=variables) as started:
        yield started


@pytest.mark.parametrize("tasks", [False, True])
def test_a_cluster_grows_for_items_and_shrinks_at_their_end(
    cluster: RayCluster, tmp_path: Path, tasks: bool
) -> None:
    """All machines come; those without an item go while the last item is in work, then all."""
    seconds = [1.0] * 24 + [15.0]
    settings = {"tasks": True, "cpus": 3} if tasks else {"gpus": 1, "cpus": 3}
    with (
        counted(cluster) as counts,
        chain(cluster, tmp_path / "run", seconds, stay_s=60, **settings) as driver,
    ):
        driver.wait_for(24)
        assert max(counts) == 3
        wait_for(counts, 1)
        assert len(driver.done) == 24
        driver.finish()
        wait_for(counts, 0)  # while the driver does other work
    files = {file.name: file.read_bytes() for file in (tmp_path / "run/done").iterdir()}
    assert files == expected(seconds)


def test_prepare_and_label_from_no_machine(
    cluster: RayCluster, raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """So little data is done before the last machine is up; the end is that of any other run."""
    config = run_config(tmp_path / "run", raw_files, tiny_bert)
    path = tmp_path / "run.toml"
    path.write_text(config.to_toml())
    for stage in ("prepare", "label"):
        with counted(cluster) as counts:
            command = [
                *(sys.executable, "-m", "raydistill", stage, "--config", str(path)),
                *("--set", "cluster.cpus=3", "--set", "cluster.gpus=3"),
                *("--set", f"cluster.shared_paths=['{tmp_path.parent}', '{raw_files.parent}']"),
            ]
            out = subprocess.run(
                command, env=driver_environment(cluster), capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert out.returncode == 0, out.stderr[-3_000:]
            assert max(counts) >= 1, out.stderr[-3_000:]
            wait_for(counts, 0)
    run = Run(config)
    assert set(logits_of(run)) == {shard.target for shard in shards_to_score(run)}
    success = run.logits("tiny").success()
    assert success and success["wasted_rows"] == success["lost_machines"] == 0
