"""train: fit the student on the soft labels, and another one on the judged labels alone.

Ray Train workers read pieces of shards and make n-gram ids themselves. The weights with the best
AUC on the judged dev split are kept, and the last ones. A fit that was cut off goes on at the next
window of pieces, on any number of workers.
"""

from __future__ import annotations

import hashlib
import io
import logging
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from numpy.typing import NDArray
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from raydistill.cluster.connection import Cluster
from raydistill.cluster.placement import device_of_worker, workers_use
from raydistill.cluster.train_job import fit
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS, Folder
from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import ROLES, Run
from raydistill.runs.shards import judged_shards, missing_shards, pair_shards
from raydistill.stages.lexicon import write_lexicon
from raydistill.student.batches import Loader, scale_features
from raydistill.student.fit import Job, State, Watcher, copy_arrays, fit_student, new_state
from raydistill.student.gradient_sync import Exchange
from raydistill.teachers.judged_logits import stack_of, targets_of
from raydistill.teachers.soft_labels import Targets
from raydistill.teachers.transformer.device import student_dtype, use_text

logger = logging.getLogger("raydistill")
WEIGHTS, LAST, FEATURES, RESULT = "weights.pt", "last.pt", "features.npz", "result.json"
EVENTS = "tensorboard"
_OWNER = "student.txt"  # in a checkpoint: whose state it is


def run(run: Run, cluster: Cluster) -> bool:
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
    _train(make_job(run, role), cluster)
    return True


def make_job(run: Run, role: str) -> Job:
    """Find the shards and the targets of a student.

    Raises:
        UserError: nothing to train on, or shards that a teacher has not scored.
    """
    settings = run.config.train
    if not judged_shards(run, "dev"):
        raise UserError(
            "no judged dev pair to choose the best weights by: give more judged pairs or a larger "
            f"judged.dev_share (now {run.config.judged.dev_share})"
        )
    if role == "judged_only":
        shards = judged_shards(run, "train")
        return Job(run, role, run.judged("train"), shards, Targets(), settings.judged_epochs)
    shards = pair_shards(run)
    if not shards:
        raise UserError(f"no pair in {run.pairs}: nothing to train on")
    for teacher in run.config.teacher_names:
        missing = missing_shards(run, teacher)
        if missing:
            raise UserError(
                f"teacher {teacher} has not scored {len(missing)} of the shards: run `label` first"
            )
    return Job(run, role, run.pairs, shards, targets_of(run, stack_of(run)), settings.epochs)


def _train(job: Job, cluster: Cluster) -> None:
    settings = job.run.config.train
    start_s = time.monotonic()
    if not job.output.exists(FEATURES):
        measure_features(job)
    fit(
        train_loop,
        {"job": job},
        name=f"train-{job.role}-{job.fingerprint}",
        storage=job.run.root / "_fits",
        cluster=cluster,
        num_workers=settings.num_workers,
        gpus_each=settings.num_gpus,
        num_kept=settings.keep_checkpoints,
    )
    write_success(job, seconds=time.monotonic() - start_s)


def write_success(job: Job, *, seconds: float) -> None:
    """Say that the student is complete, and what the fit came to."""
    result = job.output.require_json(RESULT, stage="train")
    rows = sum(job.shards.values())
    summary = {
        "fingerprint": job.fingerprint,
        "rows_in": rows,
        "rows_out": rows,
        "quarantined": 0,
        "seconds": round(seconds, 1),
        "rows_per_s": round(result["pairs"] / seconds),
        **result,
    }
    job.output.write_json(SUCCESS, summary)
    logger.info(
        "train     %s: best dev AUC %.4f, %.0f s, on %s",
        job.role,
        result["dev_auc"],
        seconds,
        use_text(result),
    )


def measure_features(job: Job) -> None:
    """The run's lexicon if it is not there yet, and the scale of the dense features."""
    write_lexicon(job.run)
    loader = Loader(job.folder, job.targets, spec=job.spec, lexicon=load_lexicon(job.run))
    buffer = io.BytesIO()
    np.savez(buffer, **scale_features(loader, job.shards))  # type: ignore[arg-type]
    job.output.write_bytes(FEATURES, buffer.getvalue())


def load_features(folder: Folder) -> dict[str, NDArray[np.float32]]:
    """`dense_mean` and `dense_std` of a student."""
    with np.load(io.BytesIO(folder.read_bytes(FEATURES))) as arrays:
        return dict(arrays)


def train_loop(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    job, context = config["job"], ray.train.get_context()
    device, num_workers = device_of_worker(), context.get_world_size()
    use = workers_use(device, dtype=student_dtype(job.settings.dtype, device=device))
    torch.set_num_threads(1)  # a step is too small to be shared, and the loader wants a core
    features = load_features(job.output)
    exchange = Exchange(device=device) if num_workers > 1 else None
    lexicon = load_lexicon(job.run)
    state = new_state(job, features, lexicon=lexicon, device=device, exchange=exchange)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            # Where several students are fitted one after the other, it may be of the one before.
            if (Path(folder) / _OWNER).read_text() == job.fingerprint:
                state.load(Path(folder) / "state.pt")
    loader = Loader(job.folder, job.targets, spec=job.spec, lexicon=lexicon)
    rank = context.get_world_rank()
    fit = partial(fit_student, job, state, loader, rank=rank, num_workers=num_workers)
    if rank:
        fit(watcher=Watcher(save=_report_alone, log=lambda line: None))
    else:
        with tempfile.TemporaryDirectory() as folder:
            events = Events(Path(folder), job.output / EVENTS)
            fit(watcher=Watcher(save=partial(_report, job), log=config["log"], record=events.add))
        write_student(job, state, use=use)
    ray.train.report({"dev_auc": state.best_auc})


def _report_alone(state: State) -> None:
    """All workers report; the first one alone carries the checkpoint."""
    ray.train.report({"epoch": state.epoch, "window": state.window})


def _report(job: Job, state: State) -> None:
    metrics = {"epoch": state.epoch, "window": state.window}
    with tempfile.TemporaryDirectory() as folder:
        state.save(Path(folder) / "state.pt")
        (Path(folder) / _OWNER).write_text(job.fingerprint)
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


def write_student(job: Job, state: State, *, use: dict[str, str]) -> None:
    """The best weights, the last ones where they are kept; the fit's course, and its devices."""
    if job.keeps_last:
        job.output.write_bytes(LAST, _to_bytes(copy_arrays(state.student)))
    best = _to_bytes(state.best)
    job.output.write_bytes(WEIGHTS, best)
    found = {"dev_auc": state.best_auc, "pairs": state.num_pairs, "evaluations": state.history}
    weights = hashlib.blake2b(best, digest_size=8).hexdigest()
    job.output.write_json(RESULT, {"weights": weights, **found, **use})


def _to_bytes(arrays: dict[str, torch.Tensor]) -> memoryview:
    buffer = io.BytesIO()
    torch.save(arrays, buffer)
    return buffer.getbuffer()


def load_student(folder: Folder) -> dict[str, torch.Tensor]:
    """The best weights of a student, as `Student.load` takes them."""
    found: dict[str, torch.Tensor]
    found = torch.load(io.BytesIO(folder.read_bytes(WEIGHTS)), weights_only=True)
    return found
