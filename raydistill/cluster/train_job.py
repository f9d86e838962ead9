"""One Ray Train fit: workers, checkpoints in the run folder, workers' lines in the driver's log."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ray.exceptions import RayError
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Full, Queue

from raydistill.cluster.connection import Cluster
from raydistill.cluster.placement import check_gpu
from raydistill.cluster.worker_exits import error_line
from raydistill.errors import UserError, WorkError
from raydistill.files import retry
from raydistill.files.folder import Folder

logger = logging.getLogger("raydistill")
_MAX_FAILURES = 3  # of workers: how often a lost spot machine is replaced


def run_workers(
    loop: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    *,
    name: str,
    storage: Folder,
    cluster: Cluster,
    num_workers: int,
    gpus_each: float,
    num_kept: int = 2,
) -> None:
    """Run `loop` on the workers; an interrupted fit of the same name resumes.

    The loop gets `config` plus `log`, a function that takes a line. The loop itself writes its
    results; the fit's checkpoints are deleted when it is complete.

    Raises:
        UserError: torch does not see the GPU, or a worker raised it.
        FitError: the workers failed more than 3 times.
    """
    use_gpu = bool(cluster.num_gpus and gpus_each)
    if use_gpu:
        check_gpu(gpus_each=gpus_each)
    resources = {"CPU": 1.0, **({"GPU": gpus_each} if use_gpu else {})}
    storage.tried(lambda: storage.filesystem.create_dir(storage.path(), recursive=True))

    def reported(config: dict[str, Any]) -> None:
        try:
            loop(config)
        finally:
            if line := retry.describe_counts():
                config["log"](f"{name.partition('-')[0]:<9} {line}")

    with _relay() as log:
        trainer = TorchTrainer(
            reported,
            train_loop_config={**config, "log": log},
            scaling_config=ScalingConfig(
                num_workers=num_workers, use_gpu=use_gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=name,
                storage_path=storage.path(),
                storage_filesystem=storage.filesystem,
                checkpoint_config=CheckpointConfig(num_to_keep=num_kept),
                failure_config=FailureConfig(max_failures=_MAX_FAILURES),
            ),
        )
        try:
            with _own_signals():
                trainer.fit()
        except TrainingFailedError as error:
            raise _in_one_line(error, name=name) from error
    (storage / name).delete()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restore Python's SIGINT handler: Ray Train replaces it and does not restore it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class FitError(WorkError, TrainingFailedError):
    """A fit whose workers failed repeatedly; the message is one line."""


def _in_one_line(error: TrainingFailedError, *, name: str) -> Exception:
    """A worker's UserError if there is one, else a FitError with the first worker failure."""
    failures: list[BaseException] = [*getattr(error, "worker_failures", {}).values()]
    failures = failures or [getattr(error, "controller_failure", error)]
    for failure in failures:
        # Ray wraps the worker's exception to show the worker's traceback.
        raised = getattr(failure, "_base_exc", failure)
        if isinstance(raised, UserError):
            return raised
    # If one worker ended, the workers that waited for it raise errors of their own.
    first = next((one for one in failures if isinstance(one, RayError)), failures[0])
    return FitError(f"{name}: {error_line(first)}")


class Log:
    """Sends lines to the driver's log; made on the driver, called on the workers."""

    def __init__(self, queue: Queue) -> None:
        """`queue` is the driver's queue of lines."""
        self._queue = queue

    def __call__(self, line: str) -> None:
        """Send a line; the line is dropped if the queue is full or its actor has ended."""
        with suppress(RayError, Full):
            self._queue.put_nowait(line)


@contextmanager
def _relay() -> Iterator[Log]:
    """A Log whose lines a thread of this process logs when they arrive."""
    queue = Queue(actor_options={"num_cpus": 0})
    over = threading.Event()

    def forward() -> None:
        while True:
            try:
                logger.info(queue.get(timeout=1.0))
            except Empty:
                if over.is_set():
                    return
            except RayError:  # the queue's machine is lost; workers continue without lines
                return

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield Log(queue)
    finally:
        over.set()
        thread.join(timeout=10)
        queue.shutdown()
