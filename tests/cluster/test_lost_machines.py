"""Machines that are lost, frozen, drained and added while items are in work."""

import random
from pathlib import Path

import pytest

from tests.helpers.chains import Driver, chain, expected
from tests.helpers.ray_cluster import ray_cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow]
# A machine that does not answer counts as lost after 3 s instead of 64 s.
FAST_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


def check(driver: Driver, seconds: list[float], *, most_wasted: int) -> None:
    """Each item is done once, its bytes are those of a quiet run, and little was done twice."""
    end = driver.finish()
    good = {at for at, s in enumerate(seconds) if s >= 0}
    assert sorted(driver.done) == sorted(good)
    files = {file.name: file.read_bytes() for file in (driver.folder / "done").iterdir()}
    assert files == expected(seconds)
    assert len([at for at in end["wasted"] if at in good]) <= most_wasted
    begun = [at for at, _ in driver.began() if at in good]
    assert len(begun) - len(good) <= most_wasted
    assert set(map(int, end["failed"])) == {at for at, s in enumerate(seconds) if s < 0}


@pytest.mark.parametrize("work", ["cores", "gpus", "tasks"])
def test_machines_lost_and_added_at_random(tmp_path: Path, work: str) -> None:
    draw = random.Random(work)
    seconds = [0.4] * 24
    settings: dict[str, object] = {"tasks": True, "cpus": 2}
    if work != "tasks":
        seconds[5] = -1.0  # ends its process each time, whatever the machines do
        settings = {"gpus": int(work == "gpus")}
    with ray_cluster(environment=FAST_CHECKS) as cluster:
        nodes = [cluster.add_node(num_gpus=int(work == "gpus")) for _ in range(2)]
        with chain(cluster, tmp_path / "run", seconds, **settings) as driver:
            for _ in range(3):
                driver.wait_for(len(driver.done) + draw.randrange(1, 6))
                nodes.pop(draw.randrange(2)).kill()
                nodes.append(cluster.add_node(num_gpus=int(work == "gpus")))
            # With GPUs, a shard that is scored is written by a task, maybe of the same machine.
            check(driver, seconds, most_wasted=6 if work == "gpus" else 3)
            assert len(driver.end["machines"]) <= 3


def test_a_notice_then_no_machine_then_a_frozen_one(tmp_path: Path) -> None:
    seconds = [1.0] * 16
    with ray_cluster(environment=FAST_CHECKS) as cluster:
        leaving = cluster.add_node()
        with chain(cluster, tmp_path / "run", seconds) as driver:
            driver.wait_for(3)
            num_began = len(driver.began())
            cluster.drain(leaving, deadline_s=60)
            frozen = cluster.add_node()
            cluster.add_node()
            driver.wait_for(8)
            of_leaving = [at for at, node in driver.began() if node == leaving.node_id]
            assert len(of_leaving) <= num_began + 3  # the state of the machines is 2 s old at most
            frozen.freeze()
            check(driver, seconds, most_wasted=1)
            assert driver.end["machines"] == [frozen.node_id]
            frozen.thaw()
