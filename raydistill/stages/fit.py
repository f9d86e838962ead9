"""One Ray Train fit: workers, checkpoints in the run folder, lines on the driver's log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ray.exceptions import RayError
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Full, Queue

from raydistill import retry
from raydistill.cluster import Cluster
from raydistill.errors import UserError
from raydistill.stages.placement import check_gpu
from raydistill.storage import Folder

logger = logging.getLogger("raydistill")
_MAX_FAILURES = 3  # of workers: a spot machine that goes is replaced so many times


def fit(
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
    """Run `loop` on the workers; a fit of that name that was cut off goes on where it was.

    The loop gets `config` and in it `log`, which takes a line to show. What it learned it writes
    itself; its checkpoints are deleted when it is through.

    Raises:
        UserError: a GPU that torch does not see, or what a worker raised.
        WorkerGroupError: workers failed again and again.
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
            trainer.fit()
        except WorkerGroupError as error:
            mistake = _mistake(error)
            if mistake is None:
                raise
            raise mistake from error
    (storage / name).delete()


def _mistake(error: WorkerGroupError) -> UserError | None:
    """The user's mistake that a worker found, if that is what ended the fit."""
    # Ray wraps what a worker raised, to show the worker's traceback.
    failures = [getattr(one, "_base_exc", one) for one in error.worker_failures.values()]
    return next((one for one in failures if isinstance(one, UserError)), None)


class Log:
    """Sends a line to the driver's log; made on the driver, called on the workers."""

    def __init__(self, queue: Queue) -> None:
        """`queue` is the driver's."""
        self._queue = queue

    def __call__(self, line: str) -> None:
        """Send a line; a queue that is gone or full is no reason to stop."""
        with suppress(RayError, Full):
            self._queue.put_nowait(line)


@contextmanager
def _relay() -> Iterator[Log]:
    """A Log whose lines are logged here, by a thread, as they come."""
    queue = Queue(actor_options={"num_cpus": 0})
    over = threading.Event()

    def forward() -> None:
        while True:
            try:
                logger.info(queue.get(timeout=1.0))
            except Empty:
                if over.is_set():
                    return
            except RayError:  # its machine is gone; the workers go on without lines
                return

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield Log(queue)
    finally:
        over.set()
        thread.join(timeout=10)
        queue.shutdown()
