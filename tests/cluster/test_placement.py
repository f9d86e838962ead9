"""A GPU that Ray assigns but torch cannot use: one error line, exit code 2, no work on a CPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import ray
import torch

from raydistill.cluster.workers import assigned_gpu
from raydistill.errors import UserError
from tests.helpers.runs import run_config


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_gpu_that_ray_gave(monkeypatch: pytest.MonkeyPatch, is_seen: bool) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: [3])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_seen)
    if is_seen:
        assert assigned_gpu.has_gpu()
        return
    with pytest.raises(
        UserError, match=r"Ray gave a worker on .* the GPU 3, but torch sees no"
    ) as e:
        assigned_gpu.has_gpu()
    assert "label.num_gpus" in str(e.value) and len(str(e.value).splitlines()) == 1
    monkeypatch.setenv(assigned_gpu.ALLOW_CPU, "1")
    assert not assigned_gpu.has_gpu()


def test_where_ray_gave_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # as on a head with a GPU
    assert not assigned_gpu.has_gpu()
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    assert not assigned_gpu.has_gpu()


# Ray believes in two GPUs that are not there.
CODE = """
import os, sys, time
import raydistill.cluster.connection, ray
ray.init(num_cpus=3, num_gpus=2, include_dashboard=False, log_to_driver=False,
         logging_level="error", object_store_memory=100 * 2**20)
from raydistill.cli.main import main
from raydistill.cluster.connection import Cluster, connect
from raydistill.cluster.tasks import run_chain
from raydistill.cluster.train_job import run_workers
from raydistill.config.cluster import ClusterConfig
from raydistill.errors import UserError
from raydistill.files.folder import Folder

print("label", main(["label", "--config", sys.argv[1]]))
try:
    run_workers(print, {}, name="none", storage=Folder(sys.argv[2]), cluster=Cluster(3, 1),
                num_workers=1, gpus_each=1.0)
except UserError as error:
    print("fit", error, file=sys.stderr)

# Four actors of half a GPU each, tasks beside them.
cluster = connect(ClusterConfig())
print("actors", cluster.num_gpus, cluster.num_actors(gpus_each=0.5))

def read(item, data):
    return {"read": os.getpid()}, b"tokens"

def make():
    def work(item, data):
        time.sleep(0.3)
        gpus = [int(gpu) for gpu in ray.get_gpu_ids()]
        return {**item, "gpus": gpus, "scored": os.getpid()}, bytes(data) + b" scored"
    return work

def write(item, data):
    return {**item, "written": os.getpid(), "data": bytes(data).decode()}, b""

done = list(run_chain([{}] * 12, before=read, make=make, after=write, num_actors=4, gpus=0.5))
actors = {item["scored"] for item in done}
others = {item[name] for item in done for name in ("read", "written")}
print("gpus", sorted({tuple(item["gpus"]) for item in done}), len(done), actors & others)
print("data", {item["data"] for item in done})
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU is there")
def test_gpus_that_are_not_there_stop_label_and_fits_and_share_out_actors(
    prepared_dir: Path, raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(run_config(prepared_dir, raw_files, tiny_bert).to_toml())
    command = [sys.executable, "-c", CODE, str(config), str(tmp_path / "fits")]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "label 2\n" in out.stdout, out.stderr[-2000:]
    lines = [line for line in out.stderr.splitlines() if "torch sees no GPU" in line]
    assert [line.split()[0] for line in lines] == ["raydistill:", "fit"]
    assert "Traceback" not in out.stderr + out.stdout
    assert not list(prepared_dir.glob("logits/*/*.parquet"))
    assert not (tmp_path / "fits").exists()  # no group of workers was started
    printed = out.stdout.splitlines()  # Ray prints beside it what its processes report
    for line in ("actors 2 4", "gpus [(0,), (1,)] 12 set()", "data {'tokens scored'}"):
        assert printed.count(line) == 1, out.stdout
