"""One Ray Train fit: workers, checkpoints in the run folder, workers' lines in the driver's log.

An elastic fit (`num_workers` from least to most) goes on from the newest checkpoint with the
workers that are left when a machine is lost, and takes new ones. Lost machines are replaced without
limit; processes that fail on a machine that stays are replaced three times.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
import ray.train
from ray.exceptions import RayError
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchTrainer

from raydistill.cluster.connection import Cluster
from raydistill.cluster.placement import check_gpu
from raydistill.cluster.places import guarded
from raydistill.cluster.workers.failure_limit import FailureLimit, WorkersFailed, nodes
from raydistill.cluster.workers.worker_exits import error_line
from raydistill.cluster.workers.worker_log import relay
from raydistill.errors import UserError, WorkError
from raydistill.files import retry
from raydistill.files.folder import Folder

_STOP_S = 1.0  # of the 3 s that `ray job stop` gives a driver in all
_MAX_FAILURES = 3  # of workers' processes on machines that stay
_RESIZE_EVERY_S = 60.0  # how often Ray looks whether an elastic fit could have other workers
# Ray starts as many workers as it believes to fit, from a list of machines that it renews every
# 20 s. If there is no place for them, the number of workers of an elastic fit is decided again.
_ELASTIC_START_S = 20.0
_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


def run_workers(
    loop: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    *,
    name: str,
    storage: Folder,
    cluster: Cluster,
    num_workers: int | tuple[int, int],
    gpus_each: float,
    num_kept: int = 2,
) -> None:
    """Run `loop` on the workers; an interrupted fit of the same name resumes.

    `num_workers` (least, most): the number follows the cluster, and the loop must not depend on it.

    The loop gets `config` plus `log`, a function that takes a line. The loop itself writes its
    results; the fit's checkpoints are deleted when it is complete.

    Raises:
        UserError: torch does not see the GPU, or a worker raised it.
        FitError: the workers failed more than 3 times on machines that did not leave.
    """
    workers = _Workers.of(name, num_workers, cluster=cluster, gpus_each=gpus_each)
    if workers.use_gpu:
        check_gpu(gpus_each=gpus_each)
    storage.tried(lambda: storage.filesystem.create_dir(storage.path(), recursive=True))
    with relay(workers.line(f"waiting for {workers.needs}"), on_silence=workers.silent_line) as log:
        trainer = _Trainer(
            guarded(partial(_report_around, loop, workers)),
            train_loop_config={**config, "log": log},
            scaling_config=workers.scaling_config(),
            run_config=RunConfig(
                name=name,
                storage_path=storage.path(),
                storage_filesystem=storage.filesystem,
                checkpoint_config=CheckpointConfig(num_to_keep=num_kept),
                # -1: without limit. Ray counts a machine that leaves without notice as a failure of
                # the workers; the callback tells them apart and sets the limit.
                failure_config=FailureConfig(max_failures=-1),
                callbacks=[FailureLimit(log, stage=workers.stage, most=_MAX_FAILURES)],  # type: ignore[list-item]
            ),
        )
        with _start_timeout(is_elastic=workers.is_elastic):
            _fit(trainer, name=name)
    (storage / name).delete()


@dataclass(frozen=True)
class _Workers:
    """How many workers a fit asks for, what each needs, and the lines about them."""

    stage: str  # as log lines begin
    num: int | tuple[int, int]
    resources: dict[str, float]

    @staticmethod
    def of(
        name: str, num: int | tuple[int, int], *, cluster: Cluster, gpus_each: float
    ) -> _Workers:
        gpus = {"GPU": gpus_each} if cluster.num_gpus and gpus_each else {}
        num = cluster.num_workers(num, gpus_each=gpus_each)
        return _Workers(f"{name.partition('-')[0]:<9}", num, {"CPU": 1.0, **gpus})

    @property
    def use_gpu(self) -> bool:
        return "GPU" in self.resources

    @property
    def is_elastic(self) -> bool:
        return isinstance(self.num, tuple)

    @property
    def needs(self) -> str:
        return _needs(self.num, self.resources)

    def line(self, text: str) -> str:
        return f"{self.stage} {text}"

    def silent_line(self, silent_s: float) -> str:
        return self.line(_waiting(self.needs, silent_s))

    def start_line(self, num: int, *, is_resumed: bool) -> str:
        """Of an elastic fit whose workers start."""
        most = self.num[1] if isinstance(self.num, tuple) else self.num
        begins = "from a checkpoint" if is_resumed else "from the start"
        return self.line(f"{num} of at most {most} workers, {begins}")

    def scaling_config(self) -> ScalingConfig:
        return ScalingConfig(  # type: ignore[call-arg] # typed as of Ray Train v1
            num_workers=self.num,  # type: ignore[arg-type]
            use_gpu=self.use_gpu,
            resources_per_worker=self.resources,
            elastic_resize_monitor_interval_s=_RESIZE_EVERY_S,
        )


def _report_around(
    loop: Callable[[dict[str, Any]], None], workers: _Workers, config: dict[str, Any]
) -> None:
    """The loop on a worker, with lines on its start and on the object store's errors."""
    context, log = ray.train.get_context(), config["log"]
    if context.get_world_rank() == 0:
        log.workers_are_there(True)
        if workers.is_elastic:
            is_resumed = ray.train.get_checkpoint() is not None
            log(workers.start_line(context.get_world_size(), is_resumed=is_resumed))
    try:
        loop(config)
    finally:
        if line := retry.describe_counts():
            log(workers.line(line))


def _fit(trainer: _Trainer, *, name: str) -> None:
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise _in_one_line(error, name=name) from error
    except KeyboardInterrupt:
        trainer.stop()  # before the lease is released
        raise


class _Trainer(TorchTrainer):
    """A trainer that leaves SIGINT to the driver: Ray Train's handler ends it without a word."""

    _controller: Any = None

    def _register_sigint_handler(self, controller: Any) -> None:  # noqa: ANN401
        self._controller = controller

    def stop(self) -> None:
        """End the workers."""
        if self._controller is None:
            return
        with suppress(RayError):  # the controller ends itself, or is late
            ray.get(self._controller.abort.remote(), timeout=_STOP_S)
        ray.kill(self._controller)


class FitError(WorkError, TrainingFailedError):
    """A fit whose workers failed repeatedly; the message is one line."""


def _in_one_line(error: TrainingFailedError, *, name: str) -> Exception:
    """A worker's UserError if there is one, else a FitError with the first worker failure."""
    failures: list[BaseException] = [*getattr(error, "worker_failures", {}).values()]
    failures = failures or [getattr(error, "controller_failure", error)]
    if isinstance(failures[0], WorkersFailed):
        failures = failures[0].failures
    for failure in failures:
        # Ray wraps the worker's exception to show the worker's traceback.
        raised = getattr(failure, "_base_exc", failure)
        if isinstance(raised, UserError):
            return raised
    # If one worker ended, the workers that waited for it raise errors of their own.
    first = next((one for one in failures if isinstance(one, RayError)), failures[0])
    return FitError(f"{name}: {error_line(first)}")


@contextmanager
def _start_timeout(*, is_elastic: bool) -> Iterator[None]:
    """A shorter wait for the workers' machines, after which an elastic fit decides again.

    Ray reads the variable on the driver when a fit begins.
    """
    before = os.environ.get(_START_TIMEOUT)
    if is_elastic:
        os.environ[_START_TIMEOUT] = str(min(float(before or _ELASTIC_START_S), _ELASTIC_START_S))
    try:
        yield
    finally:
        if before is not None:
            os.environ[_START_TIMEOUT] = before
        else:
            os.environ.pop(_START_TIMEOUT, None)


def _needs(num_workers: int | tuple[int, int], resources: dict[str, float]) -> str:
    least, most = num_workers if isinstance(num_workers, tuple) else (num_workers, num_workers)
    num = (
        f"{least} to {most} workers" if most > least else f"{most} worker{'s' if most > 1 else ''}"
    )
    each = " and ".join(f"{value:g} {name}" for name, value in resources.items())
    return f"{num} with {each} each"


def _waiting(needs: str, silent_s: float) -> str:
    """A line for the log while no worker says anything."""
    free = ray.available_resources()  # type: ignore[no-untyped-call]
    all_there = ray.cluster_resources()  # type: ignore[no-untyped-call]
    kinds = [kind for kind in ("CPU", "GPU") if kind in all_there] or ["CPU"]
    parts = [f"{free.get(kind, 0):g} of {all_there.get(kind, 0):g} {kind} free" for kind in kinds]
    machines = len(nodes(is_alive=True))
    return (
        f"no word of a worker for {silent_s:.0f} s; it needs {needs}, and the cluster has "
        f"{', '.join(parts)} on {machines} machine{'s' if machines > 1 else ''}"
    )
