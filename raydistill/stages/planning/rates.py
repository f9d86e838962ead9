"""Pairs a second of one worker of each teacher: given, of a finished run, or measured."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from raydistill.config.teachers import TREES
from raydistill.errors import UserError
from raydistill.runs.run_folder import Run
from raydistill.stages.planning.measure import Figures, measure_teacher
from raydistill.stages.planning.sample import Sample

logger = logging.getLogger("raydistill")
GIVEN = "given"


@dataclass(frozen=True)
class Rate:
    """Of one worker: a GPU if `on_gpu`, else a core. None: not known, and `source` says why."""

    teacher: str
    pairs_per_s: float | None
    source: str
    on_gpu: bool = False
    device_name: str = ""
    tokenised_per_s: float | None = None  # pairs that a core reads and tokenises a second
    start_s: float = 0.0  # of a worker, before its first pair
    logits_bytes_each: float | None = None

    @property
    def cores_a_gpu(self) -> float | None:
        """The cores that read and tokenise as fast as one GPU scores."""
        if not (self.on_gpu and self.pairs_per_s and self.tokenised_per_s):
            return None
        return self.pairs_per_s / self.tokenised_per_s


def rates_of(
    run: Run,
    sample: Sample,
    *,
    given: Mapping[str, float],
    like: Run,
    seconds: float,
    on_cluster: bool,
) -> dict[str, Rate]:
    """The rate of each teacher; `like`: the run whose finished stages count, often the same.

    `given`: pairs a second of one worker, by teacher. `on_cluster`: measure in a Ray task.
    """
    found = {}
    for name in run.config.teacher_names:
        if name in given:
            on_gpu = scores_on_gpu(run, name)
            found[name] = Rate(name, given[name], GIVEN, on_gpu)
            continue
        rate = _of_finished(like, name) if name in like.config.teacher_names else None
        found[name] = rate or _measured(run, name, sample, seconds=seconds, on_cluster=on_cluster)
    return found


def check_names(run: Run, given: Mapping[str, float]) -> None:
    """Raise UserError if a rate is given for no teacher of the run."""
    unknown = sorted(set(given) - set(run.config.teacher_names))
    if unknown:
        names = ", ".join(run.config.teacher_names)
        raise UserError(f"--pairs-per-s {unknown[0]}: no such teacher; there are {names}")


def scores_on_gpu(run: Run, name: str) -> bool:
    """Whether a teacher takes a GPU where there is one: its model does, trees and files do not."""
    return run.config.teacher_kind(name) not in (TREES, "scores") and run.config.label.num_gpus > 0


def _of_finished(like: Run, name: str) -> Rate | None:
    """The rate of the last attempt of `label`; None if it is not complete, or scored nothing."""
    done: dict[str, Any] | None = like.logits(name).success()
    if done is None or not done.get("rows_per_s") or not done.get("rows_scored"):
        return None
    workers = done.get("actors") or 1
    on_gpu = done.get("device", "cpu") != "cpu"
    gpus = like.config.label.num_gpus if on_gpu else 1
    each = done["rows_per_s"] / workers / gpus
    start_s = max(0.0, done["seconds"] - done["rows_scored"] / done["rows_per_s"])
    rows = done["rows_scored"]
    source = f"as finished: {rows:,} pairs in {done['seconds']:,.0f} s with {workers} workers"
    return Rate(name, each, source, on_gpu, done.get("device_name", ""), start_s=start_s)


def _measured(run: Run, name: str, sample: Sample, *, seconds: float, on_cluster: bool) -> Rate:
    logger.info("plan      %s scores a sample, for %.0f s at most", name, 2 * seconds)
    wants_gpu = scores_on_gpu(run, name)
    if on_cluster:
        from raydistill.stages.planning.remote import measure_in_task

        found = measure_in_task(run, name, sample.pairs, seconds=seconds, wants_gpu=wants_gpu)
    else:
        device = "cuda" if wants_gpu and torch.cuda.is_available() else "cpu"
        found = measure_teacher(run, name, sample.pairs, seconds=seconds, device=device)
    if found is None:
        what = "`label` fits it" if name == TREES else "`label` indexes its files"
        return Rate(name, None, f"not estimated: {what}; --pairs-per-s {name}=N gives it")
    return _rate(run, name, found)


def _rate(run: Run, name: str, found: Figures) -> Rate:
    """On a GPU the cores read and write meanwhile; a core does all steps one after the other."""
    rows, on_gpu = found["rows"], found["device"] == "cuda"
    whole_s = found["read_s"] + found["score_s"] + found["write_s"]
    busy_s = found["score_s"] if on_gpu else whole_s
    # Two actors on one GPU are faster than one, but nobody knows by how much.
    each = rows / busy_s / (max(1.0, run.config.label.num_gpus) if on_gpu else 1)
    source = f"measured: {rows:,} pairs in {busy_s:.1f} s"
    if found["tokens"]:
        source += f", {found['tokens'] / rows:.0f} wordpieces a pair"
    return replace(
        Rate(name, each, source, on_gpu, found.get("device_name", "")),
        tokenised_per_s=rows / max(found["read_s"] + found["write_s"], 1e-9),
        start_s=found["load_s"],
        logits_bytes_each=found["bytes_each"],
    )


def num_cores() -> int:
    """The cores of this machine."""
    return os.cpu_count() or 1
