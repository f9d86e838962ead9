"""train: fit the student on the soft labels, and another one on the judged labels alone.

Ray Train workers read pieces of shards and make n-gram ids themselves. The weights with the best
AUC on the judged dev split are kept, and the last ones. A fit that was cut off goes on at the next
window of pieces, on any number of workers.
"""

from __future__ import annotations

import logging
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from raydistill.cluster.connection import Cluster
from raydistill.cluster.placement import device_of_worker, workers_use
from raydistill.cluster.train_job import run_workers
from raydistill.files.folder import Folder
from raydistill.runs.fingerprints import ROLES
from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import Run
from raydistill.stages.lexicon import write_lexicon
from raydistill.student.batches import Loader
from raydistill.student.fit import FitCallbacks, FitState, StudentFit, fit_student, new_state
from raydistill.student.fit_files import (
    FEATURES,
    load_features,
    measure_features,
    student_fit,
    write_student,
    write_success,
)
from raydistill.student.gradient_sync import GradientSync
from raydistill.teachers.transformer.device import student_dtype

logger = logging.getLogger("raydistill")
EVENTS = "tensorboard"
_OWNER = "student.txt"  # in a checkpoint: whose state it is


def train_stage(run: Run, cluster: Cluster) -> bool:
    """Fit the students that are not there yet; False if none was left.

    Raises:
        UserError: shards that a teacher has not scored.
    """
    if all(run.student(role).success() is not None for role in ROLES):
        return False
    with run.begin("train"):
        return any([train_role(run, role, cluster) for role in ROLES])


def train_role(run: Run, role: str, cluster: Cluster) -> bool:
    """Fit one student; False if it is there.

    Raises:
        UserError: shards that a teacher has not scored.
    """
    if run.student(role).success() is not None:
        return False
    _train(student_fit(run, role), cluster)
    return True


def _train(fit: StudentFit, cluster: Cluster) -> None:
    settings = fit.run.config.train
    start_s = time.monotonic()
    if not fit.output.exists(FEATURES):
        write_lexicon(fit.run)
        measure_features(fit)
    run_workers(
        train_loop,
        {"fit": fit},
        name=f"train-{fit.role}-{fit.fingerprint}",
        storage=fit.run.root / "_fits",
        cluster=cluster,
        num_workers=settings.num_workers,
        gpus_each=settings.num_gpus,
        num_kept=settings.keep_checkpoints,
    )
    write_success(fit, seconds=time.monotonic() - start_s)


def train_loop(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    fit, context = config["fit"], ray.train.get_context()
    device, num_workers = device_of_worker(), context.get_world_size()
    use = workers_use(device, dtype=student_dtype(fit.settings.dtype, device=device))
    torch.set_num_threads(1)  # a step is too small to be shared, and the loader wants a core
    features = load_features(fit.output)
    gradient_sync = GradientSync(device=device) if num_workers > 1 else None
    lexicon = load_lexicon(fit.run)
    state = new_state(fit, features, device=device, gradient_sync=gradient_sync)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            # Where several students are fitted one after the other, it may be of the one before.
            if (Path(folder) / _OWNER).read_text() == fit.fingerprint:
                state.load(Path(folder) / "state.pt")
    loader = Loader(fit.folder, fit.targets, spec=fit.spec, lexicon=lexicon)
    rank = context.get_world_rank()
    go_on = partial(fit_student, fit, state, loader, rank=rank, num_workers=num_workers)
    if rank:
        go_on(callbacks=FitCallbacks(save=_report_alone, log=lambda line: None))
    else:
        with tempfile.TemporaryDirectory() as folder:
            events = Events(Path(folder), fit.output / EVENTS)
            go_on(
                callbacks=FitCallbacks(
                    save=partial(_report, fit), log=config["log"], record=events.add
                )
            )
        write_student(fit, state, use=use)
    ray.train.report({"dev_auc": state.best_auc})


def _report_alone(state: FitState) -> None:
    """All workers report; the first one alone carries the checkpoint."""
    ray.train.report({"epoch": state.epoch, "window": state.window})


def _report(fit: StudentFit, state: FitState) -> None:
    metrics = {"epoch": state.epoch, "window": state.window}
    with tempfile.TemporaryDirectory() as folder:
        state.save(Path(folder) / "state.pt")
        (Path(folder) / _OWNER).write_text(fit.fingerprint)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


class Events:
    """TensorBoard's event file of a fit, copied to the run folder at every evaluation."""

    def __init__(self, scratch: Path, target: Folder) -> None:
        """`scratch` is a local folder: event files are appended to, which S3 cannot do."""
        self._scratch, self._target = scratch, target
        name = f"events.out.tfevents.{time.time_ns()}.raydistill"
        self._writer = RecordWriter(str(scratch / name))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, entry: dict[str, float]) -> None:
        """One evaluation, at its number of pairs."""
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in entry.items()
            if name != "pairs"
        ]
        step = int(entry["pairs"])
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._target.upload(self._scratch)

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()
