"""Run a function or a chain of steps over many items on a cluster; yield results when ready.

Items and results are dicts (a shard's name, a range of buckets); rows stay on the workers. Ray
places tasks and actors and moves their data; `pools` decides how many there are. Ray Data is not
used here: it counts a lost machine as a failed try of its items, reports an error of a worker as
a missing block, and keeps machines for minutes after the end (docs/cluster.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from raydistill.cluster.places import guarded
from raydistill.cluster.pools.steps import FAILED, Item, Step

if TYPE_CHECKING:  # importing Ray takes 1 s; an error in the run file is reported before that
    from raydistill.cluster.pools.pieces import Losses

__all__ = ["FAILED", "Item", "Step", "run_chain", "run_tasks"]


def run_tasks(
    items: Sequence[Item], work: Callable[[Item], Item], *, cpus: float
) -> Iterator[Item]:
    """`work(item)` for each item, as stateless tasks; results in completion order.

    Raises:
        UserError: `work` raised it.
        WorkError: `work` raised another error, or a task's process ended repeatedly.
    """
    if items:
        from raydistill.cluster.pools import tasks
        from raydistill.cluster.workers.worker_exits import error_line

        cause_of = partial(error_line, since_s=time.time())
        yield from tasks.run(items, guarded(work), cpus=cpus, cause_of=cause_of)


def run_chain(
    items: Sequence[Item],
    *,
    before: Step,
    make: Callable[[], Step],
    after: Step,
    num_actors: int,
    gpus: float,
    on_lost: Callable[[Item, str], None] = lambda item, cause: None,
    losses: Losses | None = None,
) -> Iterator[Item]:
    """Three steps for each item: `before` and `after` as tasks, the step of `make` in actors.

    With GPUs, reading and writing run on the cores, before and after the actors, so that no GPU
    waits. Without GPUs that gains nothing: each actor has a core and runs all three steps. An item
    whose step raised has the error in `FAILED`. An item whose processes ended repeatedly is not
    yielded: after all others are done, `on_lost` is called with the item and the cause. `losses`
    gets the machines that were lost, and the items that were lost with them.
    """
    if not items:
        return
    from raydistill.cluster.pools.actors import ActorPool, Plan
    from raydistill.cluster.pools.pieces import Losses
    from raydistill.cluster.workers.worker_exits import error_line

    pool = ActorPool(
        items,
        Plan(guarded(before), guarded(make), guarded(after), num_actors, gpus),
        losses=Losses() if losses is None else losses,
        cause_of=partial(error_line, since_s=time.time()),
    )
    yield from pool.results()
    for item, cause in pool.failed:
        on_lost(item, cause)
