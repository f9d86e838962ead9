"""An item on its way through the cluster: how often it was lost, and what that cost."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from raydistill.cluster.pools.steps import Item

logger = logging.getLogger("raydistill")
_DEATHS = 3  # retries of an item whose process ends, before the item counts as failed
# Retries of an item whose machine is lost. Of spot machines that live for 10 minutes and shards of
# 20 s, one shard in 30 is lost: 10 losses of one shard in a row are no accident.
_MACHINES = 9
_SILENT_S, _SAY_EVERY_S = 30.0, 60.0


@dataclass(eq=False)
class Piece:
    """An item, and how often its process ended or its machine was lost."""

    item: Item
    deaths: int = 0
    machines: int = 0

    def lose(self, *, with_machine: bool) -> bool:
        """Count a loss; whether the item may be tried again."""
        if with_machine:
            self.machines += 1
        else:
            self.deaths += 1
        return self.deaths <= _DEATHS and self.machines <= _MACHINES


@dataclass
class Losses:
    """What the end of machines and processes cost."""

    machines: set[str] = field(default_factory=set)
    wasted: list[Item] = field(default_factory=list)  # items in an actor, or scored and not written

    def __bool__(self) -> bool:
        """Whether anything was lost."""
        return bool(self.machines or self.wasted)


class Patience:
    """Says every minute that work waits for machines, after half a minute without any."""

    def __init__(self) -> None:
        """The wait begins now."""
        self._since_s, self._said_s = time.monotonic(), float("-inf")

    def look(self, *, works: bool, num_left: int) -> None:
        """Log a line if nothing works and that was not said in the last minute."""
        now_s = time.monotonic()
        if works:
            self._since_s = now_s
        elif now_s - max(self._since_s + _SILENT_S - _SAY_EVERY_S, self._said_s) >= _SAY_EVERY_S:
            self._said_s = now_s
            logger.info(
                "cluster   waiting for machines since %.0f s, %d items are left; `ray status` "
                "shows what was asked for",
                *(now_s - self._since_s, num_left),
            )
