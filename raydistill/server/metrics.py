"""What a server counts, in the text form of Prometheus.

Several processes that share a port write to files of one folder, PROMETHEUS_MULTIPROC_DIR, and each
of them answers /metrics with the sums.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Collection
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raydistill.server.bundles import Bundles

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PROCESSES = "PROMETHEUS_MULTIPROC_DIR"
OTHER = "other"  # every path without a route: clients could make up any number of them
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Metrics:
    """The figures of one process, in a registry of their own."""

    def __init__(self) -> None:
        """All figures at zero."""
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "raydistill_requests", "Answers.", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "raydistill_request_seconds",
            "From the head of a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.titles = Counter("raydistill_titles", "Titles scored.", registry=self.registry)
        self.in_flight = self._gauge(
            "raydistill_requests_in_flight", "Not yet answered.", "livesum"
        )
        self._bundle = self._gauge(
            "raydistill_bundle_info", "1 for the bundle that scores.", "livemax", "bundle"
        )
        self._loaded = self._gauge(
            "raydistill_bundle_loaded_timestamp_seconds", "When it was loaded.", "livemin"
        )
        self._failures = Counter(
            "raydistill_reload_failures", "Bundles that were not taken.", registry=self.registry
        )
        self._failing = self._gauge(
            "raydistill_reload_failing", "1 while the newest bundle is not taken.", "livemax"
        )
        self._memory = self._gauge(
            "process_resident_memory_bytes", "Of each process.", "liveall" if several() else "all"
        )
        self._shown, self._num_failures = "", 0

    def _gauge(self, name: str, text: str, mode: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, multiprocess_mode=mode, registry=self.registry)  # type: ignore[arg-type]

    def count(self, route: str, *, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def show(self, bundles: Bundles) -> None:
        """Set what is known of the bundle and of this process."""
        name = bundles.current.name
        if self._shown not in ("", name):
            self._bundle.labels(self._shown).set(0)
        self._bundle.labels(name).set(1)
        self._shown = name
        self._loaded.set(bundles.current.loaded_at.timestamp())
        self._failures.inc(bundles.num_failures - self._num_failures)
        self._num_failures = bundles.num_failures
        self._failing.set(bool(bundles.failure))
        self._memory.set(resident_bytes())

    def text(self) -> bytes:
        """All figures; of several processes their sums."""
        if not several():
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def several() -> bool:
    """Whether this is one of several processes that write to one folder."""
    return bool(os.environ.get(PROCESSES))


def resident_bytes() -> int:
    """The memory of this process that is in RAM; where /proc is missing, the most it ever was."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


class Measured:
    """An application whose answers are counted."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, routes: Collection[str]) -> None:
        """`routes`: the paths that are counted by their own name."""
        self._app, self._metrics, self._routes = app, metrics, frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start_s = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.in_flight.dec()
            route = scope["path"] if scope["path"] in self._routes else OTHER
            self._metrics.count(route, status=status, seconds=time.perf_counter() - start_s)
