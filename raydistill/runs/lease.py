"""One writer at a time: a lease file names the job that works on a stage, with its heartbeat.

On a local disk a lock makes read and write of the lease atomic, on S3 a condition of the PUT does.
At a takeover on S3, and on stores without conditions: a job writes its lease, waits, and reads it
again; the last writer holds the lease. A job that loses its lease stops.
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
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from raydistill.errors import UserError
from raydistill.files.durable import make_folder
from raydistill.files.folder import Folder
from raydistill.files.stores.s3_options import split_options

logger = logging.getLogger("raydistill")
BEAT_S = 15.0
OLD_S = 120.0  # 8 missed heartbeats: longer than a garbage collection or a throttling store
_SETTLE_S = 1.0  # a PUT takes 20 to 200 ms: after 1 s a rival's lease is visible
_STOP_S = 10.0  # for an orderly end of a job that lost its lease
_held: set[Lease] = set()  # of this process


@dataclass(frozen=True)
class Holder:
    """The holder of a lease; times are seconds since 1970 by the holder's clock."""

    host: str
    pid: int
    job: str  # job id of `ray job submit`; "" otherwise
    machine: str  # boot id and pid namespace; "" if unknown
    started: str  # start time of the process in clock ticks: detects a reused pid
    since_s: float
    beat_s: float
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @staticmethod
    def here() -> Holder:
        """This process at this time."""
        now_s, pid = time.time(), os.getpid()
        return Holder(
            socket.gethostname(), pid, _job_id(), _machine(), _start_of(pid), now_s, now_s
        )

    def __str__(self) -> str:
        """The form of messages."""
        job = f", job {self.job}" if self.job else ""
        since = datetime.fromtimestamp(self.since_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"process {self.pid} on {self.host}{job}, since {since}"

    @property
    def is_dead(self) -> bool:
        """Whether the process ran on this machine and has ended."""
        return bool(self.machine) and self.machine == _machine() and (
            not self.started or _start_of(self.pid) != self.started
        )  # fmt: skip

    @property
    def age_s(self) -> float:
        """Seconds since the last heartbeat, by this machine's clock."""
        return time.time() - self.beat_s


def release_all() -> None:
    """Delete the leases of this process, which is about to end at once; called in any thread."""
    for lease in list(_held):
        with suppress(OSError, UserError):  # it expires by itself
            lease.release()


class Lease:
    """A context in which only this process works on `name` in a run folder."""

    def __init__(
        self,
        folder: Folder,
        name: str,
        *,
        take_over: bool = False,
        beat_s: float = BEAT_S,
        old_s: float = OLD_S,
    ) -> None:
        """`folder` contains the leases; `take_over` ends the lease of another active job."""
        self.folder, self.name, self.take_over = folder, name, take_over
        self._beat_s, self._old_s = beat_s, old_s
        self._file = f"{name}.json"
        self._over = threading.Event()
        self._lost_to: Holder | str | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Lease:
        """Acquire the lease.

        Raises:
            UserError: another active job holds it.
        """
        self._mine = Holder.here()
        try:
            return self._take()
        except KeyboardInterrupt:  # Ctrl-C, or SIGTERM: the lease may be written already
            self.release()
            raise

    def _take(self) -> Lease:
        found = self._read()
        if found is not None and not self.take_over:
            self._check_free(found)
        self._mine = Holder.here()
        with self._locked():
            tag = self._tag()
            now = self._read()
            if now is not None and (found is None or now.token != found.token):
                raise self._held(now)  # a rival wrote its lease first
            if now is not None:
                logger.warning("lease     %s is taken over from %s", self.name, now)
            if not self._write(tag) or not self._is_exclusive(tag):
                self._check_mine()
        self._thread.start()
        _held.add(self)
        return self

    def _is_exclusive(self, tag: str | None) -> bool:
        """Whether no rival can have written since.

        An S3 server may ignore conditions, and SeaweedFS checks that of a takeover before it writes
        (If-Match: two of six PUTs at once succeed).
        """
        if self.folder.is_local:
            return True
        if self.folder.has_conditions and tag is None:
            is_ignored = self.folder.write_if(self._file, self._content(), tag=None)
            if not is_ignored:
                return True
        time.sleep(_SETTLE_S)
        return False

    def _check_mine(self) -> None:
        """Raise UserError if another job's lease is in the file."""
        now = self._read()
        if now is None or now.token != self._mine.token:
            raise self._held(now or self._mine)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lease.

        Raises:
            UserError: another job has taken over the lease.
        """
        try:
            self._over.set()
            self._thread.join()
        except KeyboardInterrupt:  # of `_stop`, which had begun
            if self._lost_to is None:
                raise
        if self._lost_to is not None:
            raise UserError(self._lost()) from error
        self.release()

    def release(self) -> None:
        """Delete the lease if it is this job's; no heartbeat writes it again."""
        self._over.set()  # its thread may have started, and would miss the lease
        _held.discard(self)
        with self._locked():
            found = self._read()
            if found is not None and found.token == self._mine.token:
                self.folder.delete_file(self._file)

    @property
    def _run(self) -> str:
        return split_options(self.folder.uri)[0].rpartition("/")[0]

    def _check_free(self, found: Holder) -> None:
        """Raise UserError unless the holder has ended, or its last heartbeat is too old."""
        if found.is_dead:
            return
        if -self._beat_s < found.age_s < self._old_s:
            raise self._held(found)
        if found.machine != _machine():  # its clock may be wrong: check for a new heartbeat
            time.sleep(self._beat_s * 1.5)
            now = self._read()
            if now is not None and now != found:
                raise self._held(now)

    def _held(self, holder: Holder) -> UserError:
        return UserError(
            f"{self.name} in {self._run} is the work of {holder}; its last heartbeat is "
            f"{max(holder.age_s, 0):.0f} s old. Wait until that job has ended, or stop it and add "
            f"--take-over (a lease expires after {self._old_s:.0f} s without a heartbeat)"
        )

    def _read(self) -> Holder | None:
        """The lease; None if there is none, or the file is no lease."""
        try:
            found = self.folder.read_json(self._file)
            return None if found is None else Holder(**found)
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, TypeError):
            return None  # FileNotFoundError: released during the read

    def _write(self, tag: str | None) -> bool:
        """Write the lease, with a heartbeat; False if the state of the file is no longer `tag`."""
        self._mine = replace(self._mine, beat_s=time.time())
        if self.folder.is_local:
            self.folder.write_bytes(self._file, self._content())
            return True
        return self.folder.write_if(self._file, self._content(), tag=tag)

    def _content(self) -> bytes:
        return (json.dumps(asdict(self._mine), indent=2) + "\n").encode()

    def _tag(self) -> str | None:
        """The state of the file before it is read; None if there is none."""
        return None if self.folder.is_local else self.folder.tag(self._file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude other processes on this disk between read and write of the lease."""
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
        """Write the heartbeat until the work ends or another job holds the lease."""
        while not self._over.wait(self._beat_s):
            try:
                with self._locked():
                    tag = self._tag()
                    found = self._read()
                    if found is not None and found.token == self._mine.token:
                        self._write(tag)  # if it has changed, the next heartbeat finds by whom
                        continue
            except (OSError, UserError) as error:  # from a disk, or from an object store
                logger.warning("lease     no heartbeat of %s: %s", self.name, error)
                continue
            self._lost_to = found or "another job, which has ended"
            if not self._over.is_set():
                self._stop()
            return

    def _stop(self) -> None:
        """Send SIGINT to the main thread; if the job does not end within 10 s, exit."""
        ident = threading.main_thread().ident
        if ident is not None:
            signal.pthread_kill(ident, signal.SIGINT)
        if not self._over.wait(_STOP_S):  # SIGINT ignored (`job &` in a script), or handled by Ray
            logger.error("lease     %s; stopped at once", self._lost())
            os._exit(2)

    def _lost(self) -> str:
        return f"{self.name} in {self._run} was taken over by {self._lost_to}; this job stopped"


def _job_id() -> str:
    """The id of this job in `ray job submit`; "" if it was started otherwise."""
    try:
        content = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
        return str(content["metadata"]["job_submission_id"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return ""


def _machine() -> str:
    """Boot id and pid namespace, in which a pid is unique; "" if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """Start time of a process of this machine, in clock ticks since boot; "" if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]  # a zombie has ended
