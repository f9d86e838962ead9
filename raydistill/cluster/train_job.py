"""One Ray Train fit: workers, checkpoints in the run folder, workers' lines in the driver's log.

An elastic fit (`num_workers` from least to most) goes on from the newest checkpoint with the
workers that are left when a machine is lost, and takes new ones. Lost machines are replaced without
limit; processes that fail on a machine that stays are replaced three times.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    UserCallback,
)
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Full, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raydistill.cluster.connection import Cluster
from raydistill.cluster.placement import check_gpu
from raydistill.cluster.places import guarded
from raydistill.cluster.worker_exits import MACHINE_LEFT, cause_of, error_line
from raydistill.errors import UserError, WorkError
from raydistill.files import retry
from raydistill.files.folder import Folder
from raydistill.progress import RelayedLines

_STOP_S = 2.0
_MAX_FAILURES = 3  # of workers' processes on machines that stay
_RESIZE_EVERY_S = 60.0  # how often Ray looks whether an elastic fit could have other workers
# Ray starts as many workers as it believes to fit, from a list of machines that it renews every
# 20 s. If there is no place for them, the number of workers of an elastic fit is decided again.
_ELASTIC_START_S = 20.0
_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_SILENCE_S = 60.0  # until a line says what a fit without workers waits for
_WORKING_SILENCE_S = 600.0  # the same while workers are there: they log every 10 s of steps
_CONNECT_S = 3.0
_FORGET_S = 90.0  # Ray notices a machine that was cut off after 64 s (docs/results.md)


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
    use_gpu = bool(cluster.num_gpus and gpus_each)
    if use_gpu:
        check_gpu(gpus_each=gpus_each)
    resources = {"CPU": 1.0, **({"GPU": gpus_each} if use_gpu else {})}
    storage.tried(lambda: storage.filesystem.create_dir(storage.path(), recursive=True))

    stage = f"{name.partition('-')[0]:<9}"

    def reported(config: dict[str, Any]) -> None:
        context, log = ray.train.get_context(), config["log"]
        if context.get_world_rank() == 0:
            log.workers_are_there(True)
            if isinstance(num_workers, tuple):
                begins = "from a checkpoint" if ray.train.get_checkpoint() else "from the start"
                num = f"{context.get_world_size()} of at most {num_workers[1]} workers"
                log(f"{stage} {num}, {begins}")
        try:
            loop(config)
        finally:
            if line := retry.describe_counts():
                log(f"{stage} {line}")

    needs = _needs(num_workers, resources)
    waits = f"{stage} waiting for {needs}"
    with _relay(waits, on_silence=lambda silent_s: f"{stage} {_waiting(needs, silent_s)}") as log:
        trainer = _Trainer(
            guarded(reported),
            train_loop_config={**config, "log": log},
            scaling_config=ScalingConfig(  # type: ignore[call-arg] # typed as of Ray Train v1
                num_workers=num_workers,  # type: ignore[arg-type]
                use_gpu=use_gpu,
                resources_per_worker=resources,
                elastic_resize_monitor_interval_s=_RESIZE_EVERY_S,
            ),
            run_config=RunConfig(
                name=name,
                storage_path=storage.path(),
                storage_filesystem=storage.filesystem,
                checkpoint_config=CheckpointConfig(num_to_keep=num_kept),
                # -1: without limit. Ray counts a machine that leaves without notice as a failure of
                # the workers; the callback tells them apart and sets the limit.
                failure_config=FailureConfig(max_failures=-1),
                callbacks=[FailureLimit(log, stage=stage, most=_MAX_FAILURES)],  # type: ignore[list-item]
            ),
        )
        try:
            with _start_timeout(is_elastic=isinstance(num_workers, tuple)):
                trainer.fit()
        except TrainingFailedError as error:
            raise _in_one_line(error, name=name) from error
        except KeyboardInterrupt:
            trainer.stop()  # before the lease is released
            raise
    (storage / name).delete()


class _Trainer(TorchTrainer):
    """A trainer that leaves SIGINT to the driver: Ray Train's handler ends it without a word."""

    _controller: Any = None

    def _register_sigint_handler(self, controller: Any) -> None:  # noqa: ANN401
        self._controller = controller

    def stop(self) -> None:
        """End the workers; `ray job stop` gives the driver 3 s in all."""
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


class WorkersFailed(WorkError):
    """The failures of workers that end a fit; goes from Ray Train's controller to the driver."""

    def __init__(self, failures: list[BaseException]) -> None:
        """`failures` has at least one."""
        super().__init__("workers failed")
        self.failures = failures

    def __reduce__(self) -> tuple[type[WorkersFailed], tuple[list[BaseException]]]:
        """Pickled with the failures."""
        return WorkersFailed, (self.failures,)


class FailureLimit(UserCallback):
    """Ends a fit at a user's mistake, or when processes failed too often; on Ray's controller.

    A machine that is lost does not count: it is replaced without limit.
    """

    def __init__(self, log: Log, *, stage: str, most: int) -> None:
        """Made on the driver, before the workers start."""
        self._log, self._stage, self._most = log, stage, most
        self._num, self._gone = 0, set(_nodes(is_alive=False))

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ANN401
        """Called by Ray when workers have failed, before it starts new ones."""
        failures: list[BaseException] = list(worker_exceptions.values())
        if any(isinstance(getattr(one, "_base_exc", one), UserError) for one in failures):
            raise WorkersFailed(failures)
        self._log.workers_are_there(False)
        if self._is_machine_lost(failures):
            self._log(f"{self._stage} a machine was lost: it goes on from the newest checkpoint")
            return
        self._num += 1
        if self._num > self._most:
            raise WorkersFailed(failures)
        first = next((one for one in failures if isinstance(one, RayError)), failures[0])
        cause = cause_of(str(first))
        self._log(f"{self._stage} a worker failed ({self._num} of at most {self._most}): {cause}")

    def _is_machine_lost(self, failures: list[BaseException]) -> bool:
        """Whether a machine left since the last failure; waits until Ray has noticed it.

        The workers that are left fail at once, often before Ray knows of the machine: a machine
        whose raylet does not answer is on its way out.
        """
        until_s = time.monotonic() + _FORGET_S
        while any(not _answers(node) for node in _nodes(is_alive=True).values()):
            if time.monotonic() > until_s:
                break
            time.sleep(1.0)
        gone = set(_nodes(is_alive=False))
        is_lost = bool(gone - self._gone) or any(_says_so(failure) for failure in failures)
        self._gone = gone
        return is_lost


def _says_so(failure: BaseException) -> bool:
    """Whether Ray's error says that the process's machine left."""
    cause = getattr(failure, "health_check_failure", failure)
    is_preempted = bool(getattr(cause, "preempted", False))
    return is_preempted or (isinstance(cause, RayError) and cause_of(str(cause)) == MACHINE_LEFT)


def _nodes(*, is_alive: bool) -> dict[str, dict[str, Any]]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node for node in nodes if node["Alive"] == is_alive}


def _answers(node: dict[str, Any]) -> bool:
    """Whether a machine's raylet takes connections."""
    address = (node["NodeManagerAddress"], node["NodeManagerPort"])
    try:
        socket.create_connection(address, timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


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
    machines = len(_nodes(is_alive=True))
    return (
        f"no word of a worker for {silent_s:.0f} s; it needs {needs}, and the cluster has "
        f"{', '.join(parts)} on {machines} machine{'s' if machines > 1 else ''}"
    )


class Log:
    """Sends lines to the driver's log; made on the driver, called on the workers."""

    def __init__(self, queue: Queue) -> None:
        """`queue` is the driver's queue of lines."""
        self._queue = queue

    def __call__(self, line: str) -> None:
        """Send a line; the line is dropped if the queue is full or its actor has ended."""
        self._put(line)

    def workers_are_there(self, there: bool) -> None:
        """Tell the driver's thread whether the fit has workers: it is patient if so."""
        self._put(there)

    def _put(self, item: str | bool) -> None:
        with suppress(RayError, Full):
            self._queue.put_nowait(item)


@contextmanager
def _relay(waiting: str, *, on_silence: Callable[[float], str]) -> Iterator[Log]:
    """A Log whose lines a thread of this process logs when they arrive; before that `waiting`.

    Where none arrives for long, it logs the line of `on_silence`. The queue is on this machine: a
    spot machine that leaves would take it along.
    """
    lines = RelayedLines(waiting)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    over = threading.Event()

    def forward() -> None:
        heard_s = logged_s = time.monotonic()
        most_s = _SILENCE_S
        with suppress(RayError):  # Ray has ended
            while True:
                try:
                    item = queue.get(timeout=1.0)
                except Empty:
                    if over.is_set():
                        return
                    now_s = time.monotonic()
                    if now_s - logged_s >= most_s:
                        lines.add_own(on_silence(now_s - heard_s))
                        logged_s = now_s
                    continue
                if isinstance(item, bool):
                    most_s = _WORKING_SILENCE_S if item else _SILENCE_S
                else:
                    lines.add(item)
                heard_s = logged_s = time.monotonic()

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield Log(queue)
    finally:
        lines.end()
        over.set()
        thread.join(timeout=10)
        queue.shutdown()
