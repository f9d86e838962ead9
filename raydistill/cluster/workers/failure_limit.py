"""When failures of workers end a fit: a user's mistake, or processes that fail too often."""

from __future__ import annotations

import socket
import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import UserCallback

from raydistill.cluster.workers.worker_exits import MACHINE_LEFT, cause_of
from raydistill.cluster.workers.worker_log import Log
from raydistill.errors import UserError, WorkError

_CONNECT_S = 3.0
_FORGET_S = 90.0  # Ray notices a machine that was cut off after 64 s (docs/results.md)


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
        self._num, self._gone = 0, set(nodes(is_alive=False))

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
        while any(not _answers(node) for node in nodes(is_alive=True).values()):
            if time.monotonic() > until_s:
                break
            time.sleep(1.0)
        gone = set(nodes(is_alive=False))
        is_lost = bool(gone - self._gone) or any(_says_so(failure) for failure in failures)
        self._gone = gone
        return is_lost


def _says_so(failure: BaseException) -> bool:
    """Whether Ray's error says that the process's machine left."""
    cause = getattr(failure, "health_check_failure", failure)
    is_preempted = bool(getattr(cause, "preempted", False))
    return is_preempted or (isinstance(cause, RayError) and cause_of(str(cause)) == MACHINE_LEFT)


def nodes(*, is_alive: bool) -> dict[str, dict[str, Any]]:
    """Ray's nodes by id: those that are alive, or those that are not."""
    every = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node for node in every if node["Alive"] == is_alive}


def _answers(node: dict[str, Any]) -> bool:
    """Whether a machine's raylet takes connections."""
    address = (node["NodeManagerAddress"], node["NodeManagerPort"])
    try:
        socket.create_connection(address, timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True
