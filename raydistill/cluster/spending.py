"""What the machines of the cluster have cost since this job began, for the progress lines.

A machine costs from its start to its end, at work or not; the report's costs (stages/evaluation)
are those of the workers alone.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import ray
from ray.exceptions import RayError

from raydistill.config.evaluation import PricesConfig

Node = Mapping[str, Any]
_HOUR_S = 3_600
_EVERY_S = 5.0  # between two looks at the machines: one small request to the head


class Spending:
    """Adds up hours of GPUs and of cores of all living machines; `str` gives `1.23 USD`."""

    def __init__(
        self,
        prices: PricesConfig,
        *,
        nodes: Callable[[], Sequence[Node]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`nodes` gives Ray's list of machines, the dead ones among them."""
        self._prices, self._nodes, self._clock = prices, nodes, clock
        self._gpu_hours = self._cpu_hours = 0.0
        self._gpus, self._cpus = units_of(nodes())
        self._looked_s = self._counted_s = clock()
        self._lock, self._asks = threading.Lock(), threading.Lock()

    def __str__(self) -> str:
        """The money so far; "" where something that is alive or was used has no price."""
        self._look()
        with self._lock:
            self._count()
            money = self._prices.money(gpu_hours=self._gpu_hours, cpu_hours=self._cpu_hours)
        return "" if money is None else f"{money:,.2f} {self._prices.currency}"

    def _look(self) -> None:
        """Look at the machines, unless that was just done or another thread waits for the head."""
        if self._clock() - self._looked_s < _EVERY_S or not self._asks.acquire(blocking=False):
            return
        try:
            self._looked_s = self._clock()
            with suppress(RayError, RuntimeError, OSError):  # the head is away: as it was before
                units = units_of(self._nodes())
                with self._lock:
                    self._count()
                    self._gpus, self._cpus = units
        finally:
            self._asks.release()

    def _count(self) -> None:
        """Count the time since the last call at the number of units of the last look."""
        now_s = self._clock()
        hours = (now_s - self._counted_s) / _HOUR_S
        self._counted_s = now_s
        self._gpu_hours += hours * self._gpus
        self._cpu_hours += hours * self._cpus


def units_of(nodes: Sequence[Node]) -> tuple[float, float]:
    """GPUs, and cores of machines without GPUs, of all living machines.

    The price of a GPU covers its share of its machine. A Ray of our own may have more logical CPUs
    than the machine has cores.
    """
    gpus = cpus = 0.0
    for node in nodes:
        if not node["Alive"]:
            continue
        resources, is_here = node["Resources"], node["NodeManagerHostname"] == socket.gethostname()
        cores = resources.get("CPU", 0.0)
        gpus += resources.get("GPU", 0.0)
        if not resources.get("GPU"):
            cpus += min(cores, os.cpu_count() or 1) if is_here else cores
    return gpus, cpus


@cache
def of_this_job(prices: PricesConfig) -> Spending:
    """The spending since the first call in this process; Ray must be connected."""
    return Spending(prices, nodes=_ray_nodes)


def _ray_nodes() -> Sequence[Node]:
    if not ray.is_initialized():
        return []
    nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes
