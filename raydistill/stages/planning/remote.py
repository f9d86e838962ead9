"""The measurement of a teacher in a Ray task with the resources of an actor of `label`."""

from __future__ import annotations

import time

import pyarrow as pa
import ray
from ray.exceptions import RayError

from raydistill.cluster.placement import has_gpu
from raydistill.cluster.worker_exits import error_line
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
        problem, found = ray.get(task.remote(run, name, pairs, seconds))
    except RayError as error:
        cause = error_line(error, since_s=start_s)
        raise WorkError(f"teacher {name} could not be measured: {cause}") from error
    if problem:
        raise UserError(problem)
    return found


def _measure(run: Run, name: str, pairs: pa.Table, seconds: float) -> tuple[str, Figures | None]:
    """(error text or "", figures): Ray would add pages of its own stack to an exception."""
    device = "cuda" if has_gpu() else "cpu"
    try:
        return "", measure_teacher(run, name, pairs, seconds=seconds, device=device)
    except UserError as error:
        return str(error), None
