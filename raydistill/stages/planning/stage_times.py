"""The time of each stage with a number of workers: arithmetic on sizes and rates, nothing else.

What is neither measured nor known of a finished run has no time, and a line says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from raydistill.config.evaluation import PricesConfig
from raydistill.config.teachers import TREES
from raydistill.errors import UserError
from raydistill.runs.run_folder import Run
from raydistill.stages.evaluation.costs import stage_folders, workers_of
from raydistill.stages.planning.rates import Rate
from raydistill.stages.planning.sample import Sample
from raydistill.stages.planning.sizes import Sizes

HOUR_S = 3_600
# Scoring passes that a pair takes which is learned, on cores: MiniLM scores 690 pairs/s on two and
# learns 89 (docs/results.md). On a GPU the Trainer leaves it idle, and no such ratio holds.
_PASSES = 8
# Ray, its workers and compiled code take a minute or two to start: a shorter stage says nothing of
# one with more than twice its rows.
_SHORT_S, _MOST_TIMES = 300, 2
_UNKNOWN = "not estimated: no finished run tells it (--like FOLDER names one)"


@dataclass(frozen=True)
class StageTime:
    """`seconds` None: not estimated, as `how` says. `gpus`, `cores`: busy all that time."""

    stage: str
    seconds: float | None
    how: str
    gpus: float = 0.0
    cores: float = 0.0

    @property
    def gpu_hours(self) -> float:
        """GPU hours."""
        return self.gpus * (self.seconds or 0.0) / HOUR_S

    @property
    def cpu_hours(self) -> float:
        """Hours of cores; where GPUs work, their cores are in the GPU's price."""
        return 0.0 if self.gpus else self.cores * (self.seconds or 0.0) / HOUR_S


@dataclass(frozen=True)
class Workers:
    """What the stages work with: GPUs with the cores beside each, or cores alone."""

    num_gpus: int
    num_cores: int

    @property
    def size(self) -> int:
        """The number in the table."""
        return self.num_gpus or self.num_cores


def finished_stages(run: Run) -> dict[str, dict[str, Any]]:
    """The _SUCCESS.json of each finished stage, by its name in the report.

    Without the teachers' models, which may be on other machines, their folders are not known: then
    of `prepare` alone.
    """
    try:
        folders = {**stage_folders(run), "evaluate": run.report}
    except UserError:
        folders = {f"prepare {name}": run.root / name for name in run.config.datasets}
    found = {name: folder.success() for name, folder in folders.items()}
    return {name: done for name, done in found.items() if done is not None}


@dataclass(frozen=True)
class Estimator:
    """The inputs of all times; `like`: the run whose finished stages count."""

    run: Run
    like: Run
    sizes: Sizes
    rates: dict[str, Rate]
    sample: Sample | None

    @cached_property
    def _finished(self) -> dict[str, dict[str, Any]]:
        """The _SUCCESS.json of each finished stage, by its name in the report."""
        return finished_stages(self.like)

    def times(self, workers: Workers) -> list[StageTime]:
        """All stages in their order."""
        return [
            self._prepare(workers), *self._finetunes(workers), *self._trees(),
            *(self._label(rate, workers) for rate in self.rates.values()),
            *self._trains(), self._constant("export"), self._constant("evaluate"),
        ]  # fmt: skip

    def _prepare(self, workers: Workers) -> StageTime:
        done = self._finished.get("prepare pairs")
        if done is not None:
            others = [one for name, one in self._finished.items() if name.startswith("prepare ")]
            found = self._scaled("prepare", done, self.sizes.num_raw, by="rows")
            if found.seconds is not None:
                seconds = found.seconds + sum(one["seconds"] for one in others) - done["seconds"]
                return replace(found, seconds=seconds, cores=1)
            if self.sample is None or self.sample.core_us is None:
                return found
        if self.sample is None or self.sample.core_us is None:
            return StageTime("prepare", None, _UNKNOWN)
        num_rows = self.sizes.num_raw + sum(self.sizes.num_judged.values())
        seconds = num_rows * self.sample.core_us / 1e6 / workers.num_cores
        how = (
            f"measured: {self.sample.core_us:.1f} µs of a core a row, on {workers.num_cores} cores"
        )
        return StageTime("prepare", seconds, how, cores=workers.num_cores)

    def _scaled(self, stage: str, done: dict[str, Any], num_rows: int, *, by: str) -> StageTime:
        """A finished stage's time for another number of rows; None if most of it was its start."""
        before, seconds = done["rows_in"], done["seconds"]
        if seconds < _SHORT_S and num_rows > _MOST_TIMES * before:
            how = f"not estimated: {seconds:,.0f} s for {before:,} {by} are mostly the start"
            return StageTime(stage, None, f"{how}; --like a larger run")
        return StageTime(stage, seconds * num_rows / max(before, 1), self._as(by))

    def _finetunes(self, workers: Workers) -> Iterator[StageTime]:
        for name, teacher in self.run.config.teachers.items():
            if teacher.base is not None:
                yield self._finetune(name, workers)

    def _finetune(self, name: str, workers: Workers) -> StageTime:
        stage, settings = f"finetune {name}", self.run.config.finetune
        on_gpu = bool(workers.num_gpus and settings.num_gpus)
        gpus = settings.num_workers * settings.num_gpus if on_gpu else 0.0
        done = self._finished.get(stage)
        rows = self.sizes.num_judged.get("train", 0)
        if self.run.config.teachers[name].learns_from is not None:
            rows = min(settings.max_pairs, self.sizes.num_pairs)
        if done is not None:
            found = self._scaled(stage, done, rows, by="pairs")
            return replace(found, gpus=gpus, cores=done.get("cores", 1))
        rate = self.rates[name]
        if not rate.pairs_per_s or rate.on_gpu or on_gpu or not rows:
            return StageTime(stage, None, _UNKNOWN)
        passes = settings.epochs * (_PASSES * rows + self.sizes.num_judged.get("dev", 0))
        # A worker uses all cores of its machine.
        seconds = passes / rate.pairs_per_s / workers.num_cores
        how = f"about: {settings.epochs} x {rows:,} pairs, each as {_PASSES} that are scored"
        return StageTime(stage, seconds, how, cores=workers.num_cores)

    def _trees(self) -> Iterator[StageTime]:
        if self.run.config.has_trees:
            yield self._constant(f"fit {TREES}")

    def _label(self, rate: Rate, workers: Workers) -> StageTime:
        stage, num = f"label {rate.teacher}", self.sizes.num_scored
        if not rate.pairs_per_s:
            return StageTime(stage, None, rate.source)
        if workers.num_gpus and rate.on_gpu:
            speed, how = rate.pairs_per_s * workers.num_gpus, rate.source
            most = (rate.tokenised_per_s or float("inf")) * workers.num_cores
            if most < speed:
                how = f"{how}; limited by the cores that tokenise"
            seconds = num / min(speed, most) + rate.start_s
            return StageTime(stage, seconds, how, workers.num_gpus, workers.num_cores)
        is_of_gpu = rate.teacher in self.run.config.teachers and workers.num_gpus and (
            self.run.config.teacher_kind(rate.teacher) != "scores"
        )  # fmt: skip
        if is_of_gpu and self.run.config.label.num_gpus:
            where = rate.device_name or "a core"
            how = f"not estimated on GPUs: {rate.pairs_per_s:,.0f} pairs/s on a core of {where}"
            return StageTime(stage, None, f"{how}; --pairs-per-s {rate.teacher}=N gives it")
        seconds = num / (rate.pairs_per_s * workers.num_cores) + rate.start_s
        return StageTime(stage, seconds, rate.source, cores=workers.num_cores)

    def _trains(self) -> Iterator[StageTime]:
        rows = {
            "student": self.sizes.num_pairs,
            "judged_only": self.sizes.num_judged.get("train", 0),
        }
        names = {"student": "train student", "judged_only": "train baseline on judged labels only"}
        for role in self.run.roles:
            done = self._finished.get(names[role])
            shown = "train baseline" if role == "judged_only" else names[role]
            if done is None:
                yield StageTime(shown, None, _UNKNOWN)
                continue
            num, each = workers_of(self.like, names[role], done)
            gpus = num * each if done.get("device", "cpu") != "cpu" else 0.0
            yield replace(self._scaled(shown, done, rows[role], by="pairs"), gpus=gpus, cores=num)

    def _constant(self, stage: str) -> StageTime:
        """A stage whose time does not grow with the transfer set."""
        done = self._finished.get(stage)
        if done is None:
            return StageTime(stage, None, _UNKNOWN)
        cores = done.get("cores", 1)
        return StageTime(stage, done["seconds"], self._as(), cores=cores)

    def _as(self, by: str = "") -> str:
        """Where the time of a finished stage is from; `by`: what it grows with."""
        where = "here" if self.like.root.uri == self.run.root.uri else f"in {self.like.root}"
        return f"as finished {where}{', by ' if by else ''}{by}"


@dataclass(frozen=True)
class Total:
    """All stages with some workers, one after the other."""

    workers: Workers
    stages: list[StageTime]

    @property
    def seconds(self) -> float:
        """The sum of what is estimated."""
        return sum(one.seconds or 0.0 for one in self.stages)

    @property
    def label_seconds(self) -> float | None:
        """The time of all teachers; None if one is not estimated."""
        found = [one.seconds for one in self.stages if one.stage.startswith("label ")]
        known = [seconds for seconds in found if seconds is not None]
        return sum(known) if len(known) == len(found) else None

    @property
    def bottleneck(self) -> str:
        """The stage that takes longest."""
        return max(self.stages, key=lambda one: one.seconds or 0.0).stage

    def bill(self, prices: PricesConfig) -> tuple[float | None, float | None]:
        """Money and energy of what is estimated."""
        gpu_hours = sum(one.gpu_hours for one in self.stages)
        cpu_hours = sum(one.cpu_hours for one in self.stages)
        return (
            prices.money(gpu_hours=gpu_hours, cpu_hours=cpu_hours),
            prices.kwh(gpu_hours=gpu_hours, cpu_hours=cpu_hours),
        )
