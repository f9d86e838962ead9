"""The fit of one student: training steps, evaluations on dev, and the state for a checkpoint.

Input: shards, targets and a `Loader`. Output: a `FitState` with the best weights. No Ray:
`stages/train.py` runs this on every worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raydistill.config.student import TrainConfig
from raydistill.files.folder import Folder
from raydistill.files.prefetch import prefetch
from raydistill.progress import rate_line
from raydistill.runs.lexicon_file import spec_of
from raydistill.runs.run_folder import Run
from raydistill.serving.feature_spec import NgramSpec
from raydistill.student.batches import Batch, Loader, Window, plan_windows
from raydistill.student.dev_split import DevSplit, dev_split, is_better, shown_metric
from raydistill.student.gradient_sync import GradientSync
from raydistill.student.loss_line import LossLine
from raydistill.student.network import Student, predict, to_inputs
from raydistill.student.trainer import Part, Trainer, rate_at
from raydistill.teachers.soft_labels import Targets
from raydistill.teachers.transformer.device import student_dtype

_LINE_EVERY_S = 5.0
BATCHES_AHEAD = 8  # a few MB; hides the time of a batch that takes longer than a step


@dataclass(frozen=True)
class StudentFit:
    """The inputs of one student's fit: run, role, shards, targets and number of epochs."""

    run: Run
    role: str
    folder: Folder
    shards: Mapping[str, int]
    targets: Targets
    num_epochs: int
    also_measured: tuple[str, ...] = ()  # metrics on dev besides the one that chooses the weights

    @property
    def metric(self) -> str:
        """The metric on dev that chooses the weights, under its name in files."""
        return self.run.config.dev_metric

    @property
    def spec(self) -> NgramSpec:
        """The specification of n-gram ids and match features."""
        return spec_of(self.run)

    @property
    def settings(self) -> TrainConfig:
        """The `[train]` table of the run file."""
        return self.run.config.train

    @property
    def output(self) -> Folder:
        """The student's folder in the run folder."""
        return self.run.student(self.role)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of everything that determines the student."""
        return self.run.train_fingerprint(self.role)

    @property
    def keeps_last(self) -> bool:
        """Whether the last weights are stored in addition to the best."""
        return True

    @property
    def num_pairs(self) -> int:
        """Pairs of all epochs together."""
        return self.num_epochs * sum(self.shards.values())


@dataclass
class Average:
    """The mean of the weights at some evaluations (Izmailov et al. 2018, arXiv 1803.05407)."""

    student: Student
    num: int = 0

    def add(self, arrays: Mapping[str, Tensor]) -> None:
        """Include the weights of one more evaluation in the mean."""
        self.num += 1
        for name, mean in self.student.arrays().items():
            mean.lerp_(arrays[name], 1 / self.num)
        self.student.refresh()


# The fields of a FitState that are saved as they are.
_PLAIN = (
    *("epoch", "window", "num_pairs", "loss_sum", "loss_pairs"),
    *("best_dev", "best", "num_worse", "history"),
)


@dataclass
class FitState:
    """The state from which a fit resumes: the content of a checkpoint."""

    trainer: Trainer
    average: Average | None = None
    epoch: int = 0
    window: int = 0  # index of the next window of the epoch
    num_pairs: int = 0  # of all parts, in all epochs
    loss_sum: float = 0.0  # of this worker's first part, since the last evaluation
    loss_pairs: int = 0
    best_dev: dict[str, float] = field(default_factory=dict)  # figures of the best weights
    best: dict[str, Tensor] = field(default_factory=dict)
    num_worse: int = 0  # evaluations since the best one
    history: list[dict[str, float]] = field(default_factory=list)
    line: LossLine = field(default_factory=LossLine)

    @property
    def student(self) -> Student:
        """The student in training."""
        return self.trainer.student

    def save(self, path: Path) -> None:
        """Write the state to one file."""
        content = {name: getattr(self, name) for name in _PLAIN}
        content |= {"trainer": self.trainer.state(), "line": asdict(self.line)}
        if self.average is not None:
            content["average"] = (self.average.num, self.average.student.arrays())
        torch.save(content, path)

    def load(self, path: Path) -> None:
        """Replace the state by the one in the file."""
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        for name in _PLAIN:
            setattr(self, name, saved[name])
        self.line = LossLine(**saved.get("line", {}))  # older checkpoints have none
        # Copies: the loaded arrays refer to the memory-mapped file.
        self.best = {name: value.clone() for name, value in self.best.items()}
        self.trainer.load(saved["trainer"])
        if self.average is not None:
            self.average.num, arrays = saved["average"]
            self.average.student.load(arrays)


def new_state(
    fit: StudentFit,
    features: Mapping[str, NDArray[np.float32]],
    *,
    device: str,
    dtype: torch.dtype | None = None,
    gradient_sync: GradientSync | None = None,
) -> FitState:
    """The state of an untrained student; the seed makes it equal on every worker.

    `features` has the mean and the standard deviation of each dense feature. `dtype` is the type of
    the matrix products, by default that of the settings on this device.
    """
    settings = fit.settings

    def untrained() -> Student:
        torch.manual_seed(settings.seed)
        low = dtype or student_dtype(settings.dtype, device=device)
        student = Student(fit.spec, fit.run.config.student, device=device, dtype=low)
        student.standardise(mean_F=features["dense_mean"], std_F=features["dense_std"])
        return student

    trainer = Trainer(untrained(), settings, gradient_sync=gradient_sync, target=fit.targets.target)
    average = None if settings.average_from is None else Average(untrained())
    return FitState(trainer, average)


@dataclass(frozen=True)
class FitCallbacks:
    """Callbacks of a fit.

    `save` receives the state every `checkpoint_every_windows` windows, `log` each progress line,
    `record` the figures of each evaluation. `is_leaving` is asked at the end of each window by all
    workers: whether a machine is about to leave, and the state is to be saved at once.
    """

    save: Callable[[FitState], None]
    log: Callable[[str], None]
    record: Callable[[dict[str, float]], None] = lambda entry: None
    is_leaving: Callable[[], bool] = lambda: False


def fit_student(
    fit: StudentFit, state: FitState, loader: Loader, *, callbacks: FitCallbacks
) -> None:
    """Train from `state` to the end of the last epoch, or until `is_over`; updates `state`.

    This worker computes the parts of each batch that the trainer's `gradient_sync` gives it. The
    result depends on the number of parts and not on the number of workers.
    """
    dev = dev_split(fit.run, loader)
    device = str(state.student.table_VD.device)
    fit_logger = _FitLogger(fit, state, log=callbacks.log)
    steps = prefetch(_steps(fit, state, loader, device=device), depth=BATCHES_AHEAD)
    num_windows = [len(_windows(fit, epoch)) for epoch in range(fit.num_epochs)]
    window: Window | None = None
    for batch, parts in fit_logger.waiting(steps):
        if batch.window is not window:
            window = batch.window
            # One dropout seed a window: a resumed fit draws the same masks as an uninterrupted one.
            state.trainer.seed_dropout(fit.settings.seed, window.epoch, window.index)
        middle = state.num_pairs + batch.num_global / 2  # at the ends the rate may be 0
        rate = rate_at(fit.settings, done_share=middle / fit.num_pairs)
        loss = state.trainer.step_parts(parts, num_global=batch.num_global, rate=rate)
        fit_logger.step(loss, num_pairs=len(batch.targets_B), num_global=batch.num_global)
        ends_epoch = batch.is_last and window.index + 1 == num_windows[window.epoch]
        if ends_epoch or _is_due(state.num_pairs, batch, every=fit.settings.evaluate_every_pairs):
            _evaluate(fit, state, dev, device=device)
            fit_logger.evaluated()
            callbacks.record(state.history[-1])
        if batch.is_last:
            _next_window(state, window, ends_epoch=ends_epoch)
            num_done = sum(num_windows[: state.epoch]) + state.window
            is_due = num_done % fit.settings.checkpoint_every_windows == 0
            if callbacks.is_leaving() or is_due:
                callbacks.save(state)
        if is_over(fit, state):
            return


def is_over(fit: StudentFit, state: FitState) -> bool:
    """Whether all epochs are done, or the last `patience` evaluations were not better."""
    patience = fit.settings.patience
    return state.epoch >= fit.num_epochs or (patience is not None and state.num_worse >= patience)


def _steps(
    fit: StudentFit, state: FitState, loader: Loader, *, device: str
) -> Iterator[tuple[Batch, list[Part]]]:
    """The remaining batches of all epochs: of each step the first own part's, and all own parts."""
    left = [w for epoch in range(state.epoch, fit.num_epochs) for w in _windows(fit, epoch)]
    if is_over(fit, state):
        left = []
    of_parts = [
        loader.batches(
            left[state.window :],
            part=part,
            num_parts=state.trainer.num_parts,
            batch_rows=fit.settings.batch_rows,
            seed=fit.settings.seed,
        )
        for part in state.trainer.parts
    ]
    for batches in zip(*of_parts, strict=True):
        yield batches[0], [_to_part(batch, device=device) for batch in batches]


def _to_part(batch: Batch, *, device: str) -> Part:
    inputs = to_inputs(batch.lookup, batch.dense_BF, device=device)
    return Part(inputs, torch.from_numpy(batch.targets_B).to(device))


def _windows(fit: StudentFit, epoch: int) -> list[Window]:
    settings = fit.settings
    return plan_windows(
        fit.shards, seed=settings.seed, epoch=epoch, window_rows=settings.window_rows
    )


def _is_due(num_pairs: int, batch: Batch, *, every: int | None) -> bool:
    """Whether the pair count reached a multiple of `every` with this batch."""
    return every is not None and num_pairs // every > (num_pairs - batch.num_global) // every


def _next_window(state: FitState, window: Window, *, ends_epoch: bool) -> None:
    state.epoch, state.window = (
        (window.epoch + 1, 0) if ends_epoch else (window.epoch, window.index + 1)
    )


def _evaluate(fit: StudentFit, state: FitState, dev: DevSplit, *, device: str) -> None:
    """Measure the student, and the mean if there is one; copy the weights with the best figures."""
    done_share = state.num_pairs / fit.num_pairs
    found, student = _measure(fit, state, state.student, dev, device=device), state.student
    entry = {
        "epoch": state.epoch + 1.0,
        "pairs": float(state.num_pairs),
        "loss": state.loss_sum / max(state.loss_pairs, 1),
        "learning_rate": fit.settings.learning_rate * rate_at(fit.settings, done_share=done_share),
        **{f"dev_{name}": value for name, value in found.items()},
    }
    start = fit.settings.average_from
    if state.average is not None and start is not None and done_share >= start:
        state.average.add(student.arrays())
        of_mean = _measure(fit, state, state.average.student, dev, device=device)
        entry |= {f"dev_{name}_average": value for name, value in of_mean.items()}
        if is_better(of_mean, found, metric=fit.metric):
            found, student = of_mean, state.average.student
    state.num_worse += 1
    if is_better(found, state.best_dev, metric=fit.metric):
        state.best_dev, state.num_worse = found, 0
        state.best = copy_arrays(student)
    state.history.append(entry)
    state.loss_sum, state.loss_pairs = 0.0, 0


def _measure(
    fit: StudentFit, state: FitState, student: Student, dev: DevSplit, *, device: str
) -> dict[str, float]:
    """Figures on dev; all workers get the first one's."""
    logits_B = predict(student, dev.features, device=device)
    keys = (fit.metric, *fit.also_measured)
    found = dev.figures(logits_B, temperature=fit.targets.temperature, keys=keys)
    if state.trainer.gradient_sync is not None:
        values = state.trainer.gradient_sync.broadcast_first(list(found.values()))
        found = dict(zip(found, values, strict=True))
    return found


def copy_arrays(student: Student) -> dict[str, Tensor]:
    """A copy of the current weights, on the CPU."""
    return {name: value.cpu().clone() for name, value in student.arrays().items()}


class _FitLogger:
    """Log lines of a fit: loss, speed and share of time spent waiting for batches.

    One line every 5 s, and one for each evaluation.
    """

    def __init__(self, fit: StudentFit, state: FitState, *, log: Callable[[str], None]) -> None:
        self.fit, self.state, self.log = fit, state, log
        self.start_s = self.last_s = time.monotonic()
        self.waited_s, self.before = 0.0, state.num_pairs

    def waiting(
        self, steps: Iterator[tuple[Batch, list[Part]]]
    ) -> Iterator[tuple[Batch, list[Part]]]:
        """The same steps; adds up the time until each is available."""
        while True:
            start_s = time.monotonic()
            item = next(steps, None)
            self.waited_s += time.monotonic() - start_s
            if item is None:
                return
            yield item

    def step(self, loss: Tensor, *, num_pairs: int, num_global: int) -> None:
        """Count one step."""
        state, total = self.state, float(loss)
        state.loss_sum += total
        state.loss_pairs += num_pairs
        state.num_pairs += num_global
        state.line.add(total, num_pairs=num_pairs, done=state.num_pairs, of=self.fit.num_pairs)
        now_s = time.monotonic()
        if now_s - self.last_s >= _LINE_EVERY_S:
            self.last_s = now_s
            mean = self.state.loss_sum / max(self.state.loss_pairs, 1)
            self.log(self._line(f"loss {mean:.4f}"))

    def evaluated(self) -> None:
        """Log the result of the last evaluation."""
        entry, metric = self.state.history[-1], self.fit.metric
        shown = shown_metric(metric, relevant_at=self.fit.run.config.relevant_at("dev"))
        self.log(self._line(f"loss {entry['loss']:.4f}, {shown} {entry[f'dev_{metric}']:.4f}"))

    def _line(self, note: str) -> str:
        seconds = time.monotonic() - self.start_s
        done = rate_line(
            self.state.num_pairs - self.before,
            num_total=self.fit.num_pairs - self.before,
            seconds=seconds,
        )
        epoch = f"epoch {self.state.epoch + 1}/{self.fit.num_epochs}"
        waited = f"waited {self.waited_s / max(seconds, 1e-9):.1%}"
        return f"train     {self.fit.role} {epoch}  {done}  {note}, {waited}"
