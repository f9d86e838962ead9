"""The measurement of a teacher in a Ray task with the resources of an actor of `label`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pyarrow as pa
import ray
from ray.exceptions import RayError

from raydistill.cluster.places import guarded
from raydistill.cluster.workers.assigned_gpu import has_gpu
from raydistill.cluster.workers.worker_exits import error_line
from raydistill.errors import UserError, WorkError
from raydistill.runs.run_folder import Run
from raydistill.stages.planning.measure import Figures, measure_teacher


def measure_in_task(
    run: Run, name: str, pairs: pa.Table, *, seconds: float, wants_gpu: bool
) -> Figures | None:
    """As `measure_teacher`, on a machine of the cluster.

    Raises:
        UserError: the teacher cannot score there.
        WorkError: the task's process ended.
    """
    has_gpus = bool(ray.cluster_resources().get("GPU")) or bool(run.config.cluster.gpus)  # type: ignore[no-untyped-call]
    gpus_each = run.config.label.num_gpus if wants_gpu and has_gpus else 0
    resources = {"num_gpus": gpus_each, "num_cpus": 0} if gpus_each else {"num_cpus": 1}
    task = ray.remote(max_retries=0, **resources)(_measure)
    start_s = time.time()
    try:
        work = guarded(partial(_measured, run, name, pairs, seconds))
        problem, found = ray.get(task.remote(work))
    except RayError as error:
        cause = error_line(error, since_s=start_s)
        raise WorkError(f"teacher {name} could not be measured: {cause}") from error
    if problem:
        raise UserError(problem)
    return found


def _measured(run: Run, name: str, pairs: pa.Table, seconds: float) -> Figures | None:
    """As `measure_teacher`, on the device of this worker."""
    device = "cuda" if has_gpu() else "cpu"
    return measure_teacher(run, name, pairs, seconds=seconds, device=device)


def _measure(work: Callable[[], Figures | None]) -> tuple[str, Figures | None]:
    """(error text or "", figures): Ray would add pages of its own stack to an exception."""
    try:
        return "", work()
    except UserError as error:
        return str(error), None
