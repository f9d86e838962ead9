"""`label` on a cluster: beside engines without Ray, on two machines beside one, and from none.

python tests/bench/cluster.py          made-up pairs, MiniLM with an untrained head; about 8 minutes

The machines are raylets on this one, a core each. What the autoscaler adds is a process: on a
cloud, the start of a machine comes on top.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))
import numpy as np
import pyarrow.parquet as pq
from label import MAX_LENGTH, Pairs, _minilm, ray_efficiency, read_pairs, with_head
from prepared import prepared_run

from raydistill.teachers.cross_encoder import quiet_transformers
from tests.helpers.chains import chain, driver_environment
from tests.helpers.ray_cluster import RayCluster, autoscaler, ray_cluster

SHARD_ROWS = 256
FIRST, LAST = 4, -2  # files between which the rate is taken: all actors work


def label_rate(cluster: RayCluster, teacher: Path, pairs: Pairs, folder: Path) -> float:
    """Pairs a second of `label` on the machines that the cluster has."""
    config, _ = prepared_run(folder, teacher, pairs, shard_rows=SHARD_ROWS)
    command = [sys.executable, "-m", "raydistill", "label", "--config", str(config)]
    command += ["--set", f"label.max_length={MAX_LENGTH}"]
    subprocess.run(command, check=True, capture_output=True, env=driver_environment(cluster))
    files = sorted(folder.glob("logits/*/part-*.parquet"), key=lambda file: file.stat().st_mtime)
    rows = sum(pq.read_metadata(file).num_rows for file in files[FIRST + 1 : LAST + 1])
    return rows / (files[LAST].stat().st_mtime - files[FIRST].stat().st_mtime)


def one_and_two_machines(
    teacher: Path, pairs: Pairs, scratch: Path, *, rounds: int
) -> tuple[float, float]:
    """Pairs a second on one machine of one core, and on two; medians of the rounds."""
    ones, twos = [], []
    with ray_cluster() as cluster:
        for at in range(rounds):
            first = cluster.add_node(core=0)
            ones.append(label_rate(cluster, teacher, pairs, scratch / f"one{at}"))
            second = cluster.add_node(core=1)
            twos.append(label_rate(cluster, teacher, pairs, scratch / f"two{at}"))
            print(f"one machine {ones[-1]:.0f} pairs/s, two {twos[-1]:.0f}", flush=True)
            for node in (first, second):
                node.stop()
            while len(cluster.alive()) > 1:
                time.sleep(0.5)
    return float(np.median(ones)), float(np.median(twos))


def growth(scratch: Path, *, num_nodes: int) -> dict[str, float]:
    """Seconds from the request to the first item in work, to the last machine's, and to none."""
    seconds = [1.0] * 20 + [15.0]
    with autoscaler(max_nodes=num_nodes, node={"CPU": 1, "GPU": 1}) as cluster:
        with chain(cluster, scratch / "growth", seconds, gpus=1, num_actors=num_nodes) as driver:
            driver.finish()
            ended_s = time.time()
            files = sorted((scratch / "growth/began").iterdir(), key=lambda f: f.stat().st_mtime)
            first: dict[str, float] = {}
            for file in files:
                first.setdefault(file.name.split("-")[1], file.stat().st_mtime)
            while len(cluster.alive()) > 1:
                time.sleep(0.2)
            none_s = time.time() - ended_s
    since_s = [began_s - driver.start_s for began_s in first.values()]
    return {
        "machines": float(len(first)),
        "pending_to_working_s": min(since_s),
        "pending_to_all_working_s": max(since_s),
        "end_to_none_s": none_s,
    }


def until_lost_s(*, frozen: bool) -> float:
    """Seconds until a machine counts as lost, by Ray's defaults."""
    with ray_cluster() as cluster:
        node = cluster.add_node()
        time.sleep(6.0)  # Ray's health checks begin 5 s after the start
        start_s = time.monotonic()
        node.freeze() if frozen else node.kill()
        while len(cluster.alive()) > 1:
            time.sleep(0.2)
        seconds = time.monotonic() - start_s
        if frozen:
            node.thaw()
    return seconds


def overhead_ms(scratch: Path, *, num_items: int) -> float:
    """Milliseconds an item through one actor, with nothing to do but write 10 kB."""
    with ray_cluster() as cluster:
        cluster.add_node()
        with chain(cluster, scratch / "overhead", [0.0] * num_items) as driver:
            driver.finish()
        times = [file.stat().st_mtime for file in (scratch / "overhead/done").iterdir()]
    return 1e3 * (max(times) - min(times)) / (num_items - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-pairs", type=int, default=6_144)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    quiet_transformers()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        found = growth(scratch, num_nodes=3)
        found["overhead_ms"] = overhead_ms(scratch, num_items=500)
        found["killed_until_lost_s"] = until_lost_s(frozen=False)
        found["frozen_until_lost_s"] = until_lost_s(frozen=True)
        teacher, pairs = with_head(_minilm(), scratch / "minilm"), read_pairs(None, given.num_pairs)
        one, two = one_and_two_machines(teacher, pairs, scratch, rounds=given.rounds)
        through_ray, bare = ray_efficiency(teacher, pairs, scratch)
    found |= {
        "one_machine_pairs_per_s": one,
        "two_machines_pairs_per_s": two,
        "two_machines_speedup": two / one,
        "ray_pairs_per_s": through_ray,
        "bare_pairs_per_s": bare,
        "ray_efficiency": through_ray / bare,
    }
    for name, value in found.items():
        print(f"{name:<28} {value:10,.2f}")
    figures = {name: round(value, 4) for name, value in found.items()}
    print(json.dumps({"bench": "cluster", "figures": figures}))


if __name__ == "__main__":
    main()
