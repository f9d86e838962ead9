"""A function over many items as stateless tasks: as many at once as the cluster may have cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from raydistill.cluster.pools.machines import Machines, is_of_machine
from raydistill.cluster.pools.pieces import Patience, Piece
from raydistill.cluster.pools.steps import Item, apply, checked
from raydistill.errors import WorkError

_WAIT_S = 1.0


def run(
    items: Sequence[Item],
    work: Callable[[Item], Item],
    *,
    cpus: float,
    cause_of: Callable[[BaseException], str],
) -> Iterator[Item]:
    """`work(item)` for each item, in completion order; `cause_of` says why a task failed.

    Raises:
        UserError: `work` raised it.
        WorkError: `work` raised another error, or a task's process ended repeatedly.
    """
    # Ray's own retries do not tell a lost machine from a process that an item kills each time.
    task: Any = ray.remote(num_cpus=cpus, max_retries=0)(apply)
    shared = ray.put(work)  # once: it may hold the query keys of a whole split
    queue, flights = deque(Piece(item) for item in items), dict[Any, Piece]()
    machines, patience = Machines(), Patience()
    try:
        while queue or flights:
            machines.look()
            while queue and len(flights) * cpus < machines.most_cores:
                piece = queue.popleft()
                flights[task.remote(shared, piece.item)] = piece
            patience.look(works=machines.num_cores > 0, num_left=len(queue) + len(flights))
            for ref in ray.wait(list(flights), timeout=_WAIT_S)[0]:
                piece = flights.pop(ref)
                try:
                    result = ray.get(ref)
                except RayError as error:
                    if not _is_lost(error) or not piece.lose(with_machine=is_of_machine(error)):
                        raise WorkError(cause_of(error)) from error
                    queue.appendleft(piece)
                else:
                    yield checked(result)
    finally:
        for ref in flights:
            ray.cancel(ref, force=True)


def _is_lost(error: RayError) -> bool:
    """Whether the process or its machine ended, in contrast to an error of `work`."""
    return not isinstance(error, RayTaskError)
