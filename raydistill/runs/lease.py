"""One writer at a time: a file that says who works on a stage of a run, and that it still does.

On a local disk a lock makes the look and the write one step. An object store has no such step:
there a job writes its lease, waits, and looks whose lease it is, the last writer's. A job whose
lease was taken over stops.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from raydistill.errors import UserError
from raydistill.files.durable import make_folder
from raydistill.files.folder import Folder

logger = logging.getLogger("raydistill")
BEAT_S = 15.0
OLD_S = 120.0  # eight heartbeats missed: a driver that collects garbage, or a store that throttles
_SETTLE_S = 1.0  # a PUT takes 20 to 200 ms: by then a rival's is visible
_STOP_S = 10.0  # for a job that lost its lease to end in order


@dataclass(frozen=True)
class Holder:
    """Who holds a lease; times are seconds since 1970 by the holder's clock."""

    host: str
    pid: int
    job: str  # of `ray job submit`; "" elsewhere
    machine: str  # start of the machine and space of process numbers; "": not known
    started: str  # of the process, by the machine's own count; tells a pid that is used again
    since_s: float
    beat_s: float
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @staticmethod
    def here() -> Holder:
        """This process, now."""
        now_s, pid = time.time(), os.getpid()
        return Holder(
            socket.gethostname(), pid, _job_id(), _machine(), _start_of(pid), now_s, now_s
        )

    def __str__(self) -> str:
        """As messages show it."""
        job = f", job {self.job}" if self.job else ""
        since = datetime.fromtimestamp(self.since_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"process {self.pid} on {self.host}{job}, since {since}"

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to have ended: it ran on this machine."""
        return bool(self.machine) and self.machine == _machine() and (
            not self.started or _start_of(self.pid) != self.started
        )  # fmt: skip

    @property
    def age_s(self) -> float:
        """Seconds since the last heartbeat, by this machine's clock."""
        return time.time() - self.beat_s


class Lease:
    """A context in which this process is the only one that works on `name` in a run folder."""

    def __init__(
        self,
        folder: Folder,
        name: str,
        *,
        take_over: bool = False,
        beat_s: float = BEAT_S,
        old_s: float = OLD_S,
    ) -> None:
        """`folder` holds the leases; `take_over` ends the lease of another job that still works."""
        self.folder, self.name, self.take_over = folder, name, take_over
        self._beat_s, self._old_s = beat_s, old_s
        self._file = f"{name}.json"
        self._over = threading.Event()
        self._lost_to: Holder | str | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises:
            UserError: another job holds it and still works.
        """
        found = self._read()
        if found is not None and not self.take_over:
            self._check_free(found)
        self._mine = Holder.here()
        with self._locked():
            now = self._read()
            if now is not None and (found is None or now.token != found.token):
                raise self._held(now)  # a rival was faster
            if now is not None:
                logger.warning("lease     %s is taken over from %s", self.name, now)
            self._write()
        if not self.folder.is_local:
            time.sleep(_SETTLE_S)
            now = self._read()
            if now is None or now.token != self._mine.token:
                raise self._held(now or self._mine)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lease back.

        Raises:
            UserError: another job has taken it over meanwhile.
        """
        self._over.set()
        self._thread.join()
        if self._lost_to is not None:
            raise UserError(self._lost()) from error
        with self._locked():
            found = self._read()
            if found is not None and found.token == self._mine.token:
                self.folder.delete_file(self._file)

    @property
    def _run(self) -> str:
        return self.folder.uri.partition("?")[0].rpartition("/")[0]

    def _check_free(self, found: Holder) -> None:
        """Raise UserError unless the holder has ended, or has given no sign of life for long."""
        if found.is_dead:
            return
        if -self._beat_s < found.age_s < self._old_s:
            raise self._held(found)
        if found.machine != _machine():  # its clock may be wrong: watch whether the lease changes
            time.sleep(self._beat_s * 1.5)
            now = self._read()
            if now is not None and now != found:
                raise self._held(now)

    def _held(self, holder: Holder) -> UserError:
        return UserError(
            f"{self.name} in {self._run} is the work of {holder}; its last sign of life is "
            f"{max(holder.age_s, 0):.0f} s old. Wait until it has ended, or stop it and add "
            f"--take-over (after {self._old_s:.0f} s without a sign of life that happens by itself)"
        )

    def _read(self) -> Holder | None:
        """The lease; None where there is none, or one that is no lease."""
        try:
            found = self.folder.read_json(self._file)
            return None if found is None else Holder(**found)
        except (FileNotFoundError, json.JSONDecodeError, TypeError):  # given back since the look
            return None

    def _write(self) -> None:
        self._mine = replace(self._mine, beat_s=time.time())
        self.folder.write_json(self._file, asdict(self._mine))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process of this disk is between its look and its write."""
        if not self.folder.is_local:
            yield
            return
        make_folder(Path(self.folder.uri))
        with (Path(self.folder.uri) / f".{self.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                logger.warning("lease     %s cannot be locked: %s", self.folder, error)
            yield

    def _keep(self) -> None:
        """Write the heartbeat until the work is over, or the lease is another's."""
        while not self._over.wait(self._beat_s):
            try:
                with self._locked():
                    found = self._read()
                    if found is not None and found.token == self._mine.token:
                        self._write()
                        continue
            except (OSError, UserError) as error:  # of a disk, or of an object store
                logger.warning("lease     no heartbeat of %s: %s", self.name, error)
                continue
            self._lost_to = found or "another job, which has ended"
            if not self._over.is_set():
                self._stop()
            return

    def _stop(self) -> None:
        """End the job: as Ctrl-C does, and where something has taken that signal, at once."""
        ident = threading.main_thread().ident
        if ident is not None:
            signal.pthread_kill(ident, signal.SIGINT)
        if not self._over.wait(_STOP_S):  # ignored (`job &` in a script), or a handler of Ray's
            logger.error("lease     %s; stopped at once", self._lost())
            os._exit(2)

    def _lost(self) -> str:
        return f"{self.name} in {self._run} was taken over by {self._lost_to}; this job stopped"


def _job_id() -> str:
    """What `ray job submit` calls this job; "" where it did not start it."""
    try:
        content = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
        return str(content["metadata"]["job_submission_id"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return ""


def _machine() -> str:
    """Names a start of this machine and this container's process numbers; "" where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """When a process of this machine started, in clock ticks since its boot; "" if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]  # a zombie works no more
