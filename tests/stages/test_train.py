import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.train
from tensorboardX.proto import event_pb2

from raydistill.cluster.connection import Cluster
from raydistill.cluster.train_job import FitError, run_workers
from raydistill.files.folder import Folder
from raydistill.runs.run_folder import Run
from raydistill.stages import train
from raydistill.student import fit_files
from tests.helpers.fits import run_fit, start
from tests.helpers.runs import with_train


def test_the_loss_curve_goes_to_tensorboard(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    events = train.Events(tmp_path / "scratch", Folder(str(tmp_path / "run")))
    events.add({"pairs": 100.0, "loss": 0.5})
    events.add({"pairs": 200.0, "loss": 0.25})
    (file,) = (tmp_path / "run").glob("events.out.tfevents.*")
    found = [
        (event.step, value.tag, value.simple_value)
        for event in read_events(file)
        for value in event.summary.value
    ]
    assert found == [(100, "loss", 0.5), (200, "loss", 0.25)]


def read_events(file: Path) -> Iterator[event_pb2.Event]:
    """A record is its length, a checksum of that, the event, a checksum of it."""
    data, at = file.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_worker_is_replaced_and_one_worker_ends_what_two_began(
    local_ray: None, labeled: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both workers die with the first and are replaced; die again; one goes on from there."""
    run = with_train(labeled, checkpoint_every_windows=1, window_rows=1, dtype="float32")
    fit, alone = start(run)
    run_fit(fit, alone)
    monkeypatch.setattr("raydistill.cluster.train_job._MAX_FAILURES", 1)

    def loop(config: dict[str, Any]) -> None:
        say, attempts = config["log"], list(tmp_path.glob("attempt-*"))
        context = ray.train.get_context()
        begun = ray.train.get_checkpoint() is not None
        if context.get_world_rank() == 0:
            name = f"attempt-{len(attempts)}-workers-{context.get_world_size()}-resumed-{begun}"
            (tmp_path / name).touch()

        def log(line: str) -> None:
            say(line)
            if "dev AUC" in line and len(attempts) < 2:
                os.kill(os.getpid(), signal.SIGKILL)

        train.train_loop({**config, "log": log})

    def go(num_workers: int) -> None:
        run_workers(
            loop, {"fit": fit}, name="killed", storage=run.root / "_fits",
            cluster=Cluster(num_cores=2, num_gpus=0), num_workers=num_workers, gpus_each=0.0,
        )  # fmt: skip

    with pytest.raises(FitError, match=r"^killed: .*killed or crashed.*process \d+ on .*log ") as e:
        go(2)
    assert len(str(e.value).splitlines()) == 1
    go(1)
    assert sorted(path.name for path in tmp_path.glob("attempt-*")) == [
        "attempt-0-workers-2-resumed-False",
        "attempt-1-workers-2-resumed-True",
        "attempt-2-workers-1-resumed-True",
    ]
    result = fit.output.read_json(fit_files.RESULT) or {}
    assert result["pairs"] == fit.num_pairs
    assert result["device"] == "cpu" and result["device_name"] and result["dtype"]
    found = [entry["dev_auc"] for entry in result["evaluations"]]
    assert found == pytest.approx([entry["dev_auc"] for entry in alone.history], abs=0.02)
