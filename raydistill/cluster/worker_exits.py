"""The cause of a Ray worker process's end, in one line: memory, exit code or a lost machine.

Sources: the error of a task or an actor, and the worker table of Ray's control store, which also
lists processes whose work was retried.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.core.generated import common_pb2 as _common_pb2
from ray.core.generated import gcs_pb2 as _gcs_pb2
from ray.exceptions import NodeDiedError, RayError, RayTaskError, WorkerCrashedError
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

gcs_pb2: Any = _gcs_pb2  # generated, without types
common_pb2: Any = _common_pb2
_BAD_EXITS = ("SYSTEM_ERROR", "USER_ERROR", "NODE_OUT_OF_MEMORY")
_SPACE = b"raydistill"
_MEMORY = re.compile(r"was ([\d.]+)\s?GB used / ([\d.]+)\s?GB")
_EXIT_CODE = re.compile(r"exits? with an exit code (-?\d+)")
_NODE = re.compile(r"\bnode\b.{0,80}\b(died|dead|preempt\w*|terminated|removed)", re.DOTALL)
_KILLED = ("Worker unexpectedly exits", "unrecoverable failure", "worker died unexpectedly")
_PROCESS = re.compile(r"\bpid[:=]\s*(\d+)", re.IGNORECASE)
_WRAPPED = "The above exception was the direct cause"
_FATAL = re.compile(r"^Fatal Python error: .*", re.MULTILINE)
_MOST_CHARS = 300
_NUM_LOOKS, _LOOK_EVERY_S = 30, 0.3


def cause_of(detail: str) -> str:
    """The cause of a process's end in Ray's text `detail`, in one line.

    Ray does not get the status of a process that is killed or calls `os._exit`.
    """
    memory = _MEMORY.search(detail)
    if memory or "low on memory" in detail:
        used = "used {} of {} GiB".format(*memory.groups()) if memory else "was low on memory"
        return (
            f"killed for memory: its machine {used}; use smaller shards (pairs.shard_rows), fewer "
            "actors at once, or a larger machine"
        )
    code = _EXIT_CODE.search(detail)
    if code:
        return f"exit code {code.group(1)}"
    if any(words in detail for words in _KILLED):
        return (
            "its process was killed or crashed (often signal 9 of the kernel's out-of-memory "
            "killer: `dmesg` of its machine says so)"
        )
    if _NODE.search(detail):
        return "its machine left the cluster"
    return _one_line(detail) or "Ray does not say why"


def error_line(error: BaseException, *, since_s: float = 0.0) -> str:
    """A Ray error in one line: our code's error, or why its process ended, with the log's path.

    `since_s` is the time at which the work began: earlier ends of processes are ignored.
    """
    if isinstance(error, RayTaskError):  # Ray Data's text follows the text of our error
        return _last_line(str(error).partition(_WRAPPED)[0])
    if isinstance(error, NodeDiedError):
        return "its machine left the cluster"
    text = str(error)
    if "error raised in its creation task" in text:
        return _last_line(text)
    if isinstance(error, RayError) or "Worker exit" in text:
        pid = _PROCESS.search(text)
        found = _wait_for(partial(exit_of_process, int(pid.group(1)))) if pid else None
        if found is None and isinstance(error, WorkerCrashedError):
            found = _wait_for(partial(last_exit, since_s=since_s))
        return str(found) if found else cause_of(text)
    return _error_text(error)


@dataclass(frozen=True)
class WorkerExit:
    """The end of a worker process."""

    pid: int
    address: str
    cause: str
    log: str
    end_ms: int

    def __str__(self) -> str:
        """One line, with the path of the log."""
        return f"{self.cause} (process {self.pid} on {self.address}, log {self.log})"


def note_worker(key: str) -> None:
    """Called by a worker: record that it works on the driver's item `key`."""
    context = ray.get_runtime_context()
    worker = f"{context.get_worker_id()} {context.get_node_id()}"
    _internal_kv_put(key.encode(), worker.encode(), namespace=_SPACE)


def forget_workers(keys: list[str]) -> None:
    """Called by the driver at the end: delete the records of `note_worker`."""
    for key in keys:
        _internal_kv_del(key.encode(), namespace=_SPACE)


def exit_of_noted(key: str) -> str:
    """Why the worker that last worked on `key` ended, in one line."""
    note = _internal_kv_get(key.encode(), namespace=_SPACE)
    if note is None:
        return "no worker began with it"
    worker_id, node_id = note.decode().split()
    ended = _wait_for(partial(_exit_of_worker, worker_id))
    if _has_left(node_id):
        return f"its machine left the cluster (worker {worker_id[:12]}, logs {_log_folder()})"
    return str(ended) if ended else f"its worker was lost (logs {_log_folder()})"


def _exit_of_worker(worker_id: str) -> WorkerExit | None:
    rows = [one for one in _table() if one.worker_address.worker_id.hex() == worker_id]
    return next((_to_exit(row) for row in rows if not row.is_alive), None)


def exit_of_process(pid: int) -> WorkerExit | None:
    """The newest end of a worker process with that pid; None: not in Ray's table."""
    ends = [_to_exit(one) for one in _table() if one.pid == pid and not one.is_alive]
    return max(ends, key=lambda one: one.end_ms, default=None)


def last_exit(*, since_s: float) -> WorkerExit | None:
    """The newest abnormal end of a worker since `since_s`; None: there is none."""
    bad = [common_pb2.WorkerExitType.Value(name) for name in _BAD_EXITS]
    ends = [_to_exit(one) for one in _table() if not one.is_alive and one.exit_type in bad]
    ends = [one for one in ends if one.end_ms >= 1_000 * since_s]
    return max(ends, key=lambda one: one.end_ms, default=None)


def _wait_for(find: Callable[[], WorkerExit | None]) -> WorkerExit | None:
    """The result of `find`, polled for up to 9 s: the store records an exit with a delay."""
    for _ in range(_NUM_LOOKS):
        found = find()
        if found is not None:
            return found
        time.sleep(_LOOK_EVERY_S)
    return None


def _to_exit(row: Any) -> WorkerExit:  # noqa: ANN401 - generated by protobuf
    worker = row.worker_address.worker_id.hex()
    log = f"worker-{worker}-*-{row.pid}.err"
    return WorkerExit(
        pid=row.pid,
        address=row.worker_address.ip_address,
        cause=_fatal_error(log) or cause_of(row.exit_detail),
        log=f"{_log_folder()}/{log}",
        end_ms=row.end_time_ms,
    )


def _fatal_error(log: str) -> str:
    """`Fatal Python error: ...` from a log on this machine; "" if there is none."""
    for path in Path(_log_folder()).glob(log):
        found = _FATAL.search(path.read_text(errors="replace"))
        if found:
            return found.group()
    return ""


def _table() -> list[Any]:
    """All workers that this cluster had; Ray's public listing of them needs a dashboard."""
    rows = ray._private.state.state._connect_and_get_accessor().get_worker_table()
    return [gcs_pb2.WorkerTableData.FromString(row) for row in rows]


def _has_left(node_id: str) -> bool:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return any(node["NodeID"] == node_id and not node["Alive"] for node in nodes)


def _log_folder() -> str:
    node: Any = ray._private.worker._global_node
    return f"{node.get_session_dir_path()}/logs"


def _error_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {_one_line(str(error))}"


def _last_line(text: str) -> str:
    return _one_line((text.strip().splitlines() or [""])[-1])


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARS else line[:_MOST_CHARS] + "..."
