import os
import signal
import subprocess
import sys

import pytest
import ray

from raydistill.cluster.connection import Cluster, _most_store_bytes, _own_sigterm, store_bytes

MB = 1 << 20
GB = 1 << 30


def store(shard_rows: int, *, num_cores: int, most_bytes: int = 100 * GB) -> int:
    return store_bytes(
        shard_rows=shard_rows, max_length=64, num_cores=num_cores, most_bytes=most_bytes
    )


def test_the_object_store_holds_two_tokenised_shards_a_core() -> None:
    block_bytes = 1_048_576 * (64 * 3 + 20)
    assert store(1_048_576, num_cores=16) == 2 * 16 * block_bytes
    assert store(65_536, num_cores=4) == 500 * MB  # 2 x 4 x 14 MB are less
    assert store(1_048_576, num_cores=16, most_bytes=2 * GB) == 2 * GB
    assert store(1_048_576, num_cores=16, most_bytes=100 * MB) == 500 * MB


def test_of_a_range_of_workers_a_local_ray_gives_what_the_machine_has() -> None:
    """Its logical CPUs are at least four; a cluster gives what it has itself, and may grow."""
    laptop = Cluster(num_cores=2, num_gpus=0, is_local=True)
    assert laptop.num_workers((1, 4), gpus_each=0.5) == (1, 2)
    assert laptop.num_workers((3, 4), gpus_each=0.0) == (3, 3)
    assert laptop.num_workers(4, gpus_each=0.0) == 4
    with_gpu = Cluster(num_cores=8, num_gpus=1, is_local=True)
    assert with_gpu.num_workers((1, 4), gpus_each=1.0) == (1, 1)
    assert with_gpu.num_workers((1, 4), gpus_each=0.5) == (1, 2)
    assert Cluster(num_cores=2, num_gpus=0).num_workers((1, 4), gpus_each=0.0) == (1, 4)


def test_ray_does_not_handle_sigterm_while_it_starts() -> None:
    """Its handlers exit with code 15 or 1, after seconds and without the last line."""
    before = signal.getsignal(signal.SIGTERM)
    with _own_sigterm():
        ray._private.utils.set_sigterm_handler(lambda number, frame: sys.exit(number))
        assert signal.getsignal(signal.SIGTERM) == before
    assert ray._private.utils.set_sigterm_handler.__module__ == "ray._private.utils"


@pytest.mark.ray
def test_a_ray_of_our_own_has_the_store_that_its_shards_ask_for() -> None:
    code = (
        "import ray, signal\n"
        "from raydistill.cluster.connection import connect\n"
        "from raydistill.config.run_config import ClusterConfig\n"
        "cluster = connect(ClusterConfig(), shard_rows=800_000, max_length=64)\n"
        "assert cluster.is_local\n"
        "assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL\n"
        "print(ray.cluster_resources()['object_store_memory'])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wanted = store(800_000, num_cores=os.cpu_count() or 1, most_bytes=_most_store_bytes())
    assert wanted > 500 * MB and float(out.stdout) == pytest.approx(wanted, rel=0.05)


_TWICE = """
import os, signal, time
from raydistill.cluster.connection import connect
from raydistill.config.run_config import ClusterConfig
came = []
signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
connect(ClusterConfig())
for _ in range(2):
    os.kill(os.getpid(), signal.SIGTERM)
time.sleep(4)  # Ray's handler aborts after 3 s
print(len(came))
"""


@pytest.mark.ray
def test_after_ray_has_started_sigterm_is_still_ours() -> None:
    """`timeout` sends it twice, to the process and to its group; systemd to each process."""
    out = subprocess.run([sys.executable, "-c", _TWICE], capture_output=True, text=True)
    assert (out.returncode, out.stdout, out.stderr) == (0, "2\n", "")
