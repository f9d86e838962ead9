"""train: fit the student on the soft labels, and another one on the judged labels alone.

Ray Train workers read whole shards and make n-gram ids themselves. The epoch with the best AUC on
the judged dev split is kept. A fit that was cut off goes on at the next window of shards, on any
number of workers.
"""

from __future__ import annotations

import io
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from numpy.typing import NDArray

from raydistill.cluster import Cluster
from raydistill.errors import UserError
from raydistill.loader import Loader, Targets, Window, count_idf, plan_windows
from raydistill.metrics import auc
from raydistill.ngrams import Features, NgramSpec, concatenate
from raydistill.progress import rate_line
from raydistill.run import ROLES, Run
from raydistill.shards import judged_shards, missing_shards, pair_shards
from raydistill.stages.fit import device_of_worker, fit
from raydistill.storage import SUCCESS, Folder
from raydistill.student import Student, make_optimizer, predict, to_inputs, train_step

logger = logging.getLogger("raydistill")
WEIGHTS, FEATURES, RESULT = "weights.pt", "features.npz", "result.json"
_LINE_EVERY_S = 10.0


@dataclass
class State:
    """Everything a fit needs to go on: what a checkpoint holds."""

    student: Student
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    window: int = 0  # the next one of the epoch
    best_auc: float = float("nan")
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the state to one file."""
        torch.save(
            {
                "student": self.student.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "position": (self.epoch, self.window),
                "best": (self.best_auc, self.best),
                "history": self.history,
            },
            path,
        )

    def load(self, path: Path, *, device: str) -> None:
        """Take up the state in the file."""
        saved = torch.load(path, map_location=device, weights_only=True)
        self.student.load_state_dict(saved["student"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.epoch, self.window = saved["position"]
        self.best_auc, self.best = saved["best"]
        self.history = saved["history"]


@dataclass(frozen=True)
class Job:
    """What one student is fitted on."""

    run: Run
    role: str
    folder: Folder
    shards: Mapping[str, int]
    targets: Targets
    num_epochs: int

    @property
    def spec(self) -> NgramSpec:
        """How texts become ids."""
        return spec_of(self.run)

    @property
    def output(self) -> Folder:
        """Where the student goes."""
        return self.run.student(self.role)


def spec_of(run: Run) -> NgramSpec:
    """How texts become ids in this run."""
    return NgramSpec(run.config.ngrams.preset, run.config.ngrams.hash_bits)


def run(run: Run, cluster: Cluster) -> bool:
    """Fit the students that are not there yet; False if none was left.

    Raises:
        UserError: shards that a teacher has not scored.
    """
    left = [role for role in ROLES if run.student(role).success() is None]
    for role in left:
        _train(make_job(run, role), cluster)
    return bool(left)


def make_job(run: Run, role: str) -> Job:
    """Find the shards and the targets of a student.

    Raises:
        UserError: nothing to train on, or shards that a teacher has not scored.
    """
    settings = run.config.train
    if role == "judged_only":
        shards = judged_shards(run, "train")
        return Job(run, role, run.judged("train"), shards, Targets(), settings.judged_epochs)
    shards = pair_shards(run)
    if not shards:
        raise UserError(f"no pair in {run.pairs}: nothing to train on")
    for teacher in run.config.teachers:
        missing = missing_shards(run, teacher)
        if missing:
            raise UserError(
                f"teacher {teacher} has not scored {len(missing)} of the shards: run `label` first"
            )
    weights = run.config.stacking_weights()
    targets = Targets(
        logits=tuple(run.logits(name) for name in weights),
        weights=tuple(weights.values()),
        bias=run.config.labels.bias,
        temperature=run.config.labels.temperature,
    )
    return Job(run, role, run.pairs, shards, targets, settings.epochs)


def _train(job: Job, cluster: Cluster) -> None:
    settings, rows = job.run.config.train, sum(job.shards.values())
    start_s = time.monotonic()
    if not job.output.exists(FEATURES):
        _measure_features(job)
    fit(
        train_loop,
        {"job": job},
        name=f"train-{job.role}-{job.run.train_fingerprint(job.role)}",
        storage=job.run.root / "_fits",
        cluster=cluster,
        num_workers=settings.num_workers,
        gpus_each=settings.num_gpus,
    )
    result = job.output.read_json(RESULT)
    assert result is not None, "the loop writes it before it returns"
    seconds = time.monotonic() - start_s
    summary = {
        "fingerprint": job.run.train_fingerprint(job.role),
        "rows_in": rows,
        "rows_out": rows,
        "quarantined": 0,
        "seconds": round(seconds, 1),
        "rows_per_s": round(rows * job.num_epochs / seconds),
        **result,
    }
    job.output.write_json(SUCCESS, summary)
    logger.info("train     %s: best dev AUC %.4f, %.0f s", job.role, result["dev_auc"], seconds)


def _measure_features(job: Job) -> None:
    """IDF from the transfer set's titles, and the scale of the dense features from one shard."""
    idf_V = count_idf(job.run.pairs, pair_shards(job.run), spec=job.spec)
    loader = Loader(job.folder, job.targets, spec=job.spec, idf_V=idf_V)
    sample, _ = loader.shard(max(job.shards, key=lambda name: job.shards[name]))
    dense = sample.dense_BF.astype(np.float64)
    std = dense.std(axis=0)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        idf=idf_V,
        dense_mean=dense.mean(axis=0).astype(np.float32),
        dense_std=np.where(std > 1e-6, std, 1.0).astype(np.float32),  # a constant stays 0
    )
    job.output.write_bytes(FEATURES, buffer.getvalue())


def load_features(folder: Folder) -> dict[str, NDArray[np.float32]]:
    """`idf`, `dense_mean` and `dense_std` of a student."""
    with np.load(io.BytesIO(folder.read_bytes(FEATURES))) as arrays:
        return dict(arrays)


def train_loop(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    job, context = config["job"], ray.train.get_context()
    device = device_of_worker()
    state = new_state(job, device=device)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state.load(Path(folder) / "state.pt", device=device)
    is_first = context.get_world_rank() == 0
    fit_student(
        job,
        state,
        rank=context.get_world_rank(),
        num_workers=context.get_world_size(),
        device=device,
        save=partial(_report, is_first=is_first),
        log=config["log"] if is_first else lambda line: None,
    )
    if is_first:
        _write_student(job, state)
    ray.train.report({"dev_auc": state.best_auc})


def _report(state: State, *, is_first: bool) -> None:
    metrics = {"epoch": state.epoch, "window": state.window}
    if not is_first:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        state.save(Path(folder) / "state.pt")
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _write_student(job: Job, state: State) -> None:
    buffer = io.BytesIO()
    torch.save(state.best, buffer)
    job.output.write_bytes(WEIGHTS, buffer.getvalue())
    job.output.write_json(RESULT, {"dev_auc": state.best_auc, "epochs": state.history})


def new_state(job: Job, *, device: str) -> State:
    """An untrained student; the same on every worker, since the seed is."""
    torch.manual_seed(job.run.config.train.seed)
    features = load_features(job.output)
    student = Student(job.spec, job.run.config.student)
    student.standardise(mean_F=features["dense_mean"], std_F=features["dense_std"])
    student.to(device)
    rate = job.run.config.train.learning_rate
    return State(student, make_optimizer(student, learning_rate=rate))


def fit_student(
    job: Job,
    state: State,
    *,
    rank: int,
    num_workers: int,
    device: str,
    save: Callable[[State], None],
    log: Callable[[str], None],
) -> None:
    """Train from where `state` is to the end; `save` gets the state now and then. No Ray."""
    settings = job.run.config.train
    loader = Loader(job.folder, job.targets, spec=job.spec, idf_V=load_features(job.output)["idf"])
    dev = _dev_split(job.run, loader)
    meter = _Meter(job, state, log=log)
    while state.epoch < job.num_epochs:
        windows = plan_windows(
            job.shards, seed=settings.seed, epoch=state.epoch, window_shards=settings.window_shards
        )
        left = windows[state.window :]
        batches = loader.batches(
            left, rank=rank, num_workers=num_workers, batch_rows=settings.batch_rows,
            seed=settings.seed,
        )  # fmt: skip
        for window, steps in batches:
            # Dropout goes by the window, so that a resumed fit draws what it would have drawn.
            torch.manual_seed(hash((settings.seed, window.epoch, window.index, rank)))
            for batch in steps:
                inputs = to_inputs(batch.features, device=device)
                targets_B = torch.from_numpy(batch.targets_B).to(device)
                loss = train_step(
                    state.student, state.optimizer, inputs, targets_B, num_global=batch.num_global
                )
                meter.step(loss, num_pairs=len(batch.targets_B), num_global=batch.num_global)
            state.window = window.index + 1
            if _is_checkpoint(state, windows, every=settings.checkpoint_every_windows):
                save(state)
        _end_epoch(job, state, dev, device=device, meter=meter)
        save(state)


def _is_checkpoint(state: State, windows: list[Window], *, every: int) -> bool:
    return state.window % every == 0 and state.window < len(windows)


def _end_epoch(
    job: Job,
    state: State,
    dev: tuple[Features, NDArray[np.float32]],
    *,
    device: str,
    meter: _Meter,
) -> None:
    """Measure on the dev split, keep the weights if they are the best, go to the next epoch."""
    features, labels = dev
    logits = predict(state.student, features, device=device)
    dev_auc = auc(logits, labels, relevant_at=job.run.config.judged.relevant_at)
    if not dev_auc <= state.best_auc:  # also when there was none
        state.best_auc = dev_auc
        state.best = {k: v.detach().cpu().clone() for k, v in state.student.state_dict().items()}
    done = {"epoch": state.epoch + 1, "dev_auc": dev_auc, "loss": meter.mean_loss()}
    meter.epoch_done(dev_auc)  # before the epoch is the next one
    state.history.append(done)
    state.epoch, state.window = state.epoch + 1, 0


class _Meter:
    """Loss and speed of a fit, as lines now and then."""

    def __init__(self, job: Job, state: State, *, log: Callable[[str], None]) -> None:
        self.job, self.state, self.log = job, state, log
        self.start_s = self.last_s = time.monotonic()
        self.num_seen = self.num_summed = 0
        self.loss_sum = 0.0
        before = state.epoch * sum(job.shards.values())
        self.num_left = job.num_epochs * sum(job.shards.values()) - before

    def step(self, loss: float, *, num_pairs: int, num_global: int) -> None:
        """Count one step."""
        self.loss_sum += loss
        self.num_summed += num_pairs
        self.num_seen += num_global
        now_s = time.monotonic()
        if now_s - self.last_s >= _LINE_EVERY_S:
            self.last_s = now_s
            self.log(self._line(f"loss {self.mean_loss():.4f}"))

    def mean_loss(self) -> float:
        """Mean loss of this worker since the epoch began."""
        return self.loss_sum / max(self.num_summed, 1)

    def epoch_done(self, dev_auc: float) -> None:
        """Say what the epoch gave, and begin the next sum."""
        self.log(self._line(f"loss {self.mean_loss():.4f}, dev AUC {dev_auc:.4f}"))
        self.loss_sum, self.num_summed = 0.0, 0

    def _line(self, note: str) -> str:
        done = rate_line(
            self.num_seen, num_total=self.num_left, seconds=time.monotonic() - self.start_s
        )
        epoch = f"epoch {self.state.epoch + 1}/{self.job.num_epochs}"
        return f"train     {self.job.role} {epoch}  {done}  {note}"


def _dev_split(run: Run, loader: Loader) -> tuple[Features, NDArray[np.float32]]:
    """Features and labels of the judged dev split."""
    judged = Loader(run.judged("dev"), Targets(), spec=loader.spec, idf_V=loader.idf_V)
    parts = [judged.shard(name) for name in judged_shards(run, "dev")]
    return concatenate([f for f, _ in parts]), np.concatenate([labels for _, labels in parts])
