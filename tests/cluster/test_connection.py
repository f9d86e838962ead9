import os
import subprocess
import sys

import pytest

from raydistill.cluster.connection import _most_store_bytes, store_bytes

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


@pytest.mark.ray
def test_a_ray_of_our_own_has_the_store_that_its_shards_ask_for() -> None:
    code = (
        "import ray\n"
        "from raydistill.cluster.connection import connect\n"
        "from raydistill.config.run_config import ClusterConfig\n"
        "connect(ClusterConfig(), shard_rows=800_000, max_length=64)\n"
        "print(ray.cluster_resources()['object_store_memory'])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wanted = store(800_000, num_cores=os.cpu_count() or 1, most_bytes=_most_store_bytes())
    assert wanted > 500 * MB and float(out.stdout) == pytest.approx(wanted, rel=0.05)
