"""The machines of the cluster: their cores, and which have notice to leave."""

from __future__ import annotations

import logging
import time
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, NodeDiedError, ObjectLostError, RayActorError

logger = logging.getLogger("raydistill")
_LOOK_EVERY_S = 2.0  # two requests to the head; a spot machine's notice comes 30 to 120 s before
_NODE_DIED = "because its node has died"
_growth = {"cores": 0}


def may_grow_to(cores: int) -> None:
    """Set the cores that tasks of this process ask for, if the cluster has fewer."""
    _growth["cores"] = cores


class Machines:
    """The state of the machines, at most 2 s old."""

    def __init__(self) -> None:
        """`look` must be called before the first use."""
        self.num_cores = 0
        self._leaving: dict[str, int] = {}
        self._looked_s = float("-inf")
        self._noted: set[str] = set()

    def look(self) -> None:
        """Ask the head, unless it was asked a moment ago."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        self._leaving = dict(ray._private.state.state.get_draining_nodes())
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        cores = [
            node["Resources"].get("CPU", 0.0)
            for node in nodes
            if node["Alive"] and node["NodeID"] not in self._leaving
        ]
        self.num_cores = int(sum(cores))

    @property
    def most_cores(self) -> int:
        """The cores to ask for: those that are there, or that the cluster may grow to."""
        return max(1, self.num_cores, _growth["cores"])

    def is_leaving(self, node_id: str) -> bool:
        """Whether a machine has notice to leave; said once in the log."""
        if node_id not in self._leaving:
            return False
        if node_id not in self._noted:
            self._noted.add(node_id)
            left_s = self._leaving[node_id] / 1_000 - time.time()
            when = f" in {left_s:.0f} s" if self._leaving[node_id] else ""
            logger.info("cluster   machine %s leaves%s; it gets no new work", node_id[:12], when)
        return True


def is_of_machine(error: BaseException) -> bool:
    """Whether work was lost with its machine (or cannot be reached there), not with its process.

    An actor is unavailable after the loss of its machine, until Ray's health check notices that.
    """
    if isinstance(error, (NodeDiedError, ObjectLostError, ActorUnavailableError)):
        return True
    return isinstance(error, RayActorError) and (error.preempted or _NODE_DIED in str(error))
