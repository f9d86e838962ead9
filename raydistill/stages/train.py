"""train: fit the student on the soft labels, and the baseline on judged labels only.

Ray Train workers read pieces of shards and compute n-gram ids themselves. Output: the weights with
the best `train.metric` on the dev split, and the last ones.
Checkpoints are made at ends of windows of pieces; an interrupted fit resumes from the last one, on
any number of workers, and with `num_workers = [1, 4]` the number follows the cluster.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar

from raydistill.cluster.connection import Cluster
from raydistill.cluster.placement import common_dtype, device_of_worker, workers_use
from raydistill.cluster.train_job import run_workers
from raydistill.files.folder import Folder
from raydistill.runs.lexicon_file import has_lexicon, load_lexicon
from raydistill.runs.run_folder import Run
from raydistill.stages.fits.covered import copy_scored
from raydistill.stages.fits.lexicon import write_lexicon
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
_OWNER = "fit.txt"  # in a checkpoint: the fingerprint of its student; named for the state's form


def train_stage(run: Run, cluster: Cluster) -> bool:
    """Fit the students that are not complete; False if all were complete.

    A lexicon that was removed is made again: export and evaluate read it.

    Raises:
        UserError: shards that a teacher has not scored.
    """
    is_fitted = all(run.student(role).success() is not None for role in run.roles)
    if is_fitted and has_lexicon(run):
        return False
    with run.begin("train"):
        if is_fitted:
            write_lexicon(run)
            return True
        return any([train_role(run, role, cluster) for role in run.roles])


def train_role(run: Run, role: str, cluster: Cluster) -> bool:
    """Fit one student; False if it was complete.

    Raises:
        UserError: shards that a teacher has not scored.
    """
    if run.student(role).success() is not None:
        return False
    if role == "student":
        copy_scored(run)
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
    """The function of each Ray Train worker: fit, or resume, the student of `config["fit"]`."""
    fit, context = config["fit"], ray.train.get_context()
    device, rank = device_of_worker(), context.get_world_rank()
    dtype = common_dtype(student_dtype(fit.settings.dtype, device=device))
    use = workers_use(device, dtype=dtype)
    torch.set_num_threads(1)  # a step is too small for two threads, and the loader needs a core
    features = load_features(fit.output)
    num_parts = max(fit.settings.most_workers, context.get_world_size())
    sync = GradientSync(device=device, num_parts=num_parts) if num_parts > 1 else None
    lexicon = load_lexicon(fit.run)
    state = new_state(fit, features, device=device, dtype=dtype, gradient_sync=sync)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            # If a job fits several students in turn, this may be the previous one's checkpoint.
            owner = Path(folder) / _OWNER
            if owner.exists() and owner.read_text() == fit.fingerprint:
                state.load(Path(folder) / "state.pt")
    loader = Loader(fit.folder, fit.targets, spec=fit.spec, lexicon=lexicon)
    go_on = partial(fit_student, fit, state, loader)
    leaving = partial(_is_leaving, fit, log=config["log"] if rank == 0 else None)
    if rank:
        callbacks = FitCallbacks(save=_report_alone, log=lambda line: None, is_leaving=leaving)
        go_on(callbacks=callbacks)
    else:
        with tempfile.TemporaryDirectory() as folder:
            events = Events(Path(folder), fit.output / EVENTS)
            go_on(
                callbacks=FitCallbacks(
                    save=partial(_report, fit),
                    log=config["log"],
                    record=events.add,
                    is_leaving=leaving,
                )
            )
        write_student(fit, state, use=use)
    ray.train.report({"best": state.best_dev[fit.metric]})


def _is_leaving(fit: StudentFit, *, log: Callable[[str], None] | None) -> bool:
    """Whether Ray says that a machine of the fit leaves soon; all workers get the same answer.

    Ray Train does not wait for the workers: it starts again, from the newest checkpoint, when the
    machine has left. Until then a checkpoint at each window's end keeps the loss below a window.
    """
    notice = ray.train.get_preemption_info()
    if notice is not None and log is not None:
        when = ""
        if notice.deadline_ms is not None:
            when = f" in {max(0.0, notice.deadline_ms / 1_000 - time.time()):.0f} s"
        log(f"train     {fit.role} a machine leaves{when}: the state is saved at each window's end")
    return notice is not None


def _report_alone(state: FitState) -> None:
    """Report without a checkpoint: all workers must report, and only rank 0 saves the state."""
    ray.train.report({"epoch": state.epoch, "window": state.window})


def _report(fit: StudentFit, state: FitState) -> None:
    metrics = {"epoch": state.epoch, "window": state.window}
    with tempfile.TemporaryDirectory() as folder:
        state.save(Path(folder) / "state.pt")
        (Path(folder) / _OWNER).write_text(fit.fingerprint)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


class Events:
    """A fit's TensorBoard event file, copied to the run folder after every evaluation."""

    def __init__(self, scratch: Path, target: Folder) -> None:
        """`scratch` is a local folder: event files are appended to, and S3 has no append."""
        self._scratch, self._target = scratch, target
        self._writer = EventsWriter(str(scratch / "events"))

    def add(self, entry: dict[str, float]) -> None:
        """Write the figures of one evaluation; the step is the number of pairs trained on."""
        time_s, step = time.time(), int(entry["pairs"])
        for name, value in entry.items():
            if name != "pairs":
                event = Event(wall_time=time_s, step=step, summary=scalar(name, value))
                self._writer.write_event(event)
        self._writer.flush()
        self._target.upload(self._scratch)
