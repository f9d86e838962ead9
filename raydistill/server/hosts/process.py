"""The server on one machine: one process, or several that share the port."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from types import FrameType

import uvicorn
from prometheus_client.multiprocess import mark_process_dead

from raydistill.errors import UserError, WorkError
from raydistill.server.app import create_app
from raydistill.server.hosts.connection import Connection
from raydistill.server.limits import Settings
from raydistill.server.metrics import PROCESSES
from raydistill.server.service import Service

logger = logging.getLogger("raydistill")
# Above the 60 s after which load balancers close an idle connection: else a request could meet the
# end of its connection.
_KEEP_ALIVE_S = 75
_GRACE_S = 30  # for requests in flight at the end
_BACKLOG = 2048
_START_S = 120.0  # for a process; with numba instead of a library half a minute
_SIGNALS = signal.SIGTERM, signal.SIGINT
_AGAIN_S = 1.0  # before a process that has died is replaced
_CLOSE = (b"connection", b"close")
_SAME_STOP_S = 1.0  # a process gets the signal of one stop from a terminal and from its parent


@dataclass(frozen=True)
class Place:
    """Where the server listens, and with how many processes.

    `drain_s`: how long it takes requests after SIGTERM, while /ready says 503.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    num_workers: int = 1
    drain_s: float = 2.0
    logs_requests: bool = False


def serve(bundle: str, *, settings: Settings, place: Place, started: Callable[[str], None]) -> None:
    """Serve a bundle until SIGTERM or Ctrl-C; `started` is called with the address.

    Raises:
        UserError: there is no bundle, it is damaged, or nothing can listen there.
        WorkError: a process does not start.
    """
    listener = _listener(place)
    address = _address(listener)
    if place.num_workers == 1:
        _serve_here(bundle, settings, place, listener, lambda: started(address))
        return
    create_app(bundle, settings=settings)  # a mistake ends this process, not each of the others
    _Workers(bundle, settings, place, listener).run(lambda: started(address))


def _listener(place: Place) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, where = found[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen at {place.host}:{place.port} ({error}); give another --host or --port"
        ) from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _serve_here(
    bundle: str,
    settings: Settings,
    place: Place,
    listener: socket.socket,
    started: Callable[[], None],
) -> None:
    app = create_app(bundle, settings=settings)
    _log_of_uvicorn(logs_requests=place.logs_requests)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=place.logs_requests,
        lifespan="on",
        http=Connection,
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        backlog=_BACKLOG,
    )
    _Server(config, app.state.service, drain_s=place.drain_s, started=started).run([listener])


def _log_of_uvicorn(*, logs_requests: bool) -> None:
    for name, level in (("uvicorn.error", logging.WARNING), ("uvicorn.access", logging.INFO)):
        other = logging.getLogger(name)
        other.handlers, other.propagate = logger.handlers, False
        other.setLevel(level if name == "uvicorn.error" or logs_requests else logging.CRITICAL)


class _Server(uvicorn.Server):
    """uvicorn, but after SIGTERM it goes on for a while.

    It says that it is not ready, and ends each connection with the answer that it sends: a request
    on a connection that is kept could meet the end of the process.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        *,
        drain_s: float,
        started: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._service, self._drain_s, self._started = service, drain_s, started
        self._told_at_s, self._stop_at_s = 0.0, float("inf")
        self._parent = multiprocessing.parent_process()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._parent is not None:  # killed: nobody would end this process
            asyncio.get_running_loop().add_reader(self._parent.sentinel, self._orphaned)
        self._started()

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._parent.sentinel)  # type: ignore[union-attr]
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; Ctrl-C does not drain, and a second one does not wait for answers.

        A further SIGTERM changes nothing: systemd sends it to each of several processes, and so
        does their parent.
        """
        now_s = time.monotonic()
        if not self._service.is_stopping:
            self._service.is_stopping, self._told_at_s = True, now_s
            self._stop_at_s = now_s + self._drain_s
        elif sig == signal.SIGINT and now_s - self._told_at_s > _SAME_STOP_S:
            self.force_exit = True
        if sig == signal.SIGINT:
            self._stop_at_s = now_s

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() >= self._stop_at_s:
            self.should_exit = True
        is_over = await super().on_tick(counter)
        headers = self.server_state.default_headers
        if self._service.is_stopping and _CLOSE not in headers:
            self.server_state.default_headers = [*headers, _CLOSE]
        return is_over


class _Workers:
    """Processes that accept from one socket; one that dies is replaced."""

    def __init__(
        self, bundle: str, settings: Settings, place: Place, listener: socket.socket
    ) -> None:
        self._arguments = bundle, settings, place, listener
        self._place = place
        self._context = multiprocessing.get_context("spawn")  # a fork has no threads of S3 clients
        self._stop = threading.Event()
        self._signal = signal.SIGTERM

    def run(self, started: Callable[[], None]) -> None:
        """Start all, wait for a signal, end all.

        Raises:
            WorkError: a process does not start.
        """
        folder = tempfile.mkdtemp(prefix="raydistill-metrics-")
        os.environ[PROCESSES] = folder
        before = {
            sig: signal.signal(sig, self._on_signal) for sig in (signal.SIGTERM, signal.SIGINT)
        }
        workers: list[SpawnProcess] = []
        try:
            workers += [self._start() for _ in range(self._place.num_workers)]
            started()
            while not self._stop.wait(0.2):
                workers = [self._alive(worker) for worker in workers]
        finally:
            for worker in workers:
                if worker.is_alive() and worker.pid:
                    os.kill(worker.pid, self._signal)
            end_s = time.monotonic() + self._place.drain_s + _GRACE_S
            for worker in workers:
                worker.join(max(end_s - time.monotonic(), 0))
                worker.kill()
            for sig, handler in before.items():
                signal.signal(sig, handler)
            del os.environ[PROCESSES]
            shutil.rmtree(folder, ignore_errors=True)

    def _on_signal(self, sig: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(sig)
        self._stop.set()

    def _start(self) -> SpawnProcess:
        """A process that accepts connections.

        Raises:
            WorkError: it does not.
        """
        is_up = self._context.Event()
        formatter = logger.handlers[0].formatter if logger.handlers else None
        worker = self._context.Process(
            target=_work, args=(*self._arguments, is_up, formatter), daemon=True
        )
        worker.start()
        end_s = time.monotonic() + _START_S
        while not is_up.wait(0.1) and not self._stop.is_set():
            if not worker.is_alive() or time.monotonic() > end_s:
                worker.kill()
                raise WorkError(f"a process of the server did not start (exit {worker.exitcode})")
        return worker

    def _alive(self, worker: SpawnProcess) -> SpawnProcess:
        if worker.is_alive():
            return worker
        logger.error(
            "serve     process %s has ended (exit %s); another one starts",
            *(worker.pid, worker.exitcode),
        )
        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
        if self._stop.wait(_AGAIN_S):
            return worker
        try:
            return self._start()
        except WorkError as error:  # such as no bundle at this moment: the others go on
            logger.error("serve     %s", error)
            return worker


def _work(
    bundle: str,
    settings: Settings,
    place: Place,
    listener: socket.socket,
    is_up: Event,
    formatter: logging.Formatter | None,
) -> None:
    """The main function of one of several processes."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    _serve_here(bundle, settings, place, listener, is_up.set)
