"""Actors that score items: asked for at once, replaced when lost, given back when there is no work.

An actor that waits for a machine is the demand that makes a cluster grow; an actor without work is
ended, so that its machine can be removed. Each has at most one item, and none is queued behind it:
a lost machine costs the items in its actors, and a machine that has notice to leave gets no other.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from raydistill.cluster.pools.machines import Machines, is_of_machine
from raydistill.cluster.pools.pieces import Losses, Patience, Piece
from raydistill.cluster.pools.steps import Item, Step, StepActor, apply_steps, checked
from raydistill.errors import WorkError

logger = logging.getLogger("raydistill")
_WAIT_S = 1.0
# Actors whose process ends while they start, with none that starts between: more than a machine
# has that is shut down in order, its workers first.
_FAILED_STARTS, _STARTS_EACH = 3, 2
# Of an item on its way.
_START, _READ, _SCORE, _WRITE = "start", "read", "score", "write"


@dataclass(frozen=True)
class Plan:
    """What the actors do, what they need, and how many there may be."""

    before: Step
    make: Callable[[], Step]
    after: Step
    num_actors: int
    gpus: float


@dataclass(eq=False)
class _Actor:
    handle: Any
    node_id: str = ""  # "": it waits for a machine, or loads its model
    piece: Piece | None = None


@dataclass(frozen=True, eq=False)
class _Flight:
    """A call whose result is awaited."""

    stage: str
    piece: Piece | None = None
    actor: _Actor | None = None
    data: Any = None  # the reference to the bytes of the result


class ActorPool:
    """The items of a plan and the actors that work on them."""

    def __init__(
        self,
        items: Sequence[Item],
        plan: Plan,
        *,
        losses: Losses,
        cause_of: Callable[[BaseException], str],
    ) -> None:
        """`cause_of` says why a call was lost; `losses` is filled."""
        self.failed: list[tuple[Item, str]] = []
        self._plan, self._losses, self._cause_of = plan, losses, cause_of
        self._queue = deque(Piece(item) for item in items)
        self._ready = deque[tuple[Piece, Item, Any]]()  # read; the reference to the bytes
        self._flights: dict[Any, _Flight] = {}
        self._actors: set[_Actor] = set()
        self._machines, self._patience = Machines(), Patience()
        self._failed_starts = 0
        actor = {"num_gpus": plan.gpus, "num_cpus": 0} if plan.gpus else {"num_cpus": 1}
        self._new = ray.remote(max_restarts=0, max_task_retries=0, **actor)(StepActor).remote
        steps: Any = ray.remote(max_retries=0, num_returns=2)(apply_steps)
        self._read = steps.options(num_cpus=1).remote
        self._write = steps.options(num_cpus=0.5).remote

    def results(self) -> Iterator[Item]:
        """The results in completion order; items that were lost too often are in `failed`."""
        try:
            while self._num_left:
                self._machines.look()
                self._staff()
                self._hand_out()
                self._patience.look(
                    works=any(actor.piece for actor in self._actors),
                    num_left=self._num_left,
                )
                for ref in ray.wait(list(self._flights), timeout=_WAIT_S)[0]:
                    result = self._land(ref, self._flights.pop(ref))
                    if result is not None:
                        yield checked(result)
        finally:
            self._close()

    @property
    def _num_left(self) -> int:
        return len(self._queue) + len(self._ready) + self._num_in_flight(_READ, _SCORE, _WRITE)

    def _num_in_flight(self, *stages: str) -> int:
        return sum(flight.stage in stages for flight in self._flights.values())

    def _staff(self) -> None:
        """As many actors as there is work for; those on leaving machines do not count."""
        for actor in [a for a in self._actors if a.piece is None and self._is_leaving(a)]:
            self._end(actor)
        unscored = self._num_left - self._num_in_flight(_WRITE)
        num_wanted = min(self._plan.num_actors, unscored)
        staying = [actor for actor in self._actors if not self._is_leaving(actor)]
        # Those that wait for a machine end first, then those that have no item.
        idle = sorted((a for a in staying if a.piece is None), key=lambda a: a.node_id)
        for actor in idle[: max(0, len(staying) - num_wanted)]:
            self._end(actor)
        for _ in range(num_wanted - len(staying)):
            self._start()

    def _is_leaving(self, actor: _Actor) -> bool:
        return bool(actor.node_id) and self._machines.is_leaving(actor.node_id)

    def _start(self) -> None:
        around = () if self._plan.gpus else (self._plan.before, self._plan.after)
        actor = _Actor(self._new(self._plan.make, *around))
        self._actors.add(actor)
        self._flights[actor.handle.where.remote()] = _Flight(_START, actor=actor)

    def _end(self, actor: _Actor) -> None:
        self._actors.discard(actor)
        for ref in [ref for ref, flight in self._flights.items() if flight.actor is actor]:
            del self._flights[ref]
        ray.kill(actor.handle)

    def _hand_out(self) -> None:
        """Give an item to each actor without one; with GPUs, read items ahead."""
        free = [
            a for a in self._actors if a.node_id and a.piece is None and not self._is_leaving(a)
        ]
        if self._plan.gpus:
            self._read_ahead()
        for actor in free:
            if self._plan.gpus and self._ready:
                self._score(actor, *self._ready.popleft())
            elif not self._plan.gpus and self._queue:
                piece = self._queue.popleft()
                self._score(actor, piece, piece.item, b"")

    def _read_ahead(self) -> None:
        """One item an actor that has started, and one a core: reading may be the slower part."""
        num_started = sum(bool(actor.node_id) for actor in self._actors)
        most = num_started + max(num_started, self._machines.num_cores) if num_started else 0
        while self._queue and self._num_in_flight(_READ) + len(self._ready) < most:
            piece = self._queue.popleft()
            item_ref, data = self._read((self._plan.before,), piece.item, b"")
            self._flights[item_ref] = _Flight(_READ, piece, data=data)

    def _score(self, actor: _Actor, piece: Piece, item: Item, data: Any) -> None:  # noqa: ANN401
        actor.piece = piece
        item_ref, scored = actor.handle.run.options(num_returns=2).remote(item, data)
        self._flights[item_ref] = _Flight(_SCORE, piece, actor, scored)

    def _land(self, ref: Any, flight: _Flight) -> Item | None:  # noqa: ANN401
        """Take a call's result to the next stage; returns the item if that was the last one."""
        try:
            result = ray.get(ref)
        except RayError as error:
            self._lose(flight, error)
            return None
        if flight.stage == _START and flight.actor:
            flight.actor.node_id = result
            self._failed_starts = 0
            return None
        if flight.actor:
            flight.actor.piece = None
        if flight.piece is None or flight.stage == _WRITE or not self._plan.gpus:
            return dict(result)
        if flight.stage == _READ:
            self._ready.append((flight.piece, result, flight.data))
        else:
            item_ref, data = self._write((self._plan.after,), result, flight.data)
            self._flights[item_ref] = _Flight(_WRITE, flight.piece, data=data)
        return None

    def _lose(self, flight: _Flight, error: RayError) -> None:
        """The item goes back to the queue, in front; a new actor takes the place of the lost one.

        Raises:
            WorkError: actors' processes end while they start.
        """
        of_machine = is_of_machine(error)
        if flight.actor:
            self._end(flight.actor)
            if of_machine and flight.actor.node_id:
                self._note_loss(flight.actor.node_id)
        if flight.piece is None:
            self._failed_starts += not of_machine
            if self._failed_starts >= max(_FAILED_STARTS, _STARTS_EACH * self._plan.num_actors):
                raise WorkError(f"a worker could not start: {self._cause_of(error)}") from error
            return
        if flight.stage in (_SCORE, _WRITE):
            self._losses.wasted.append(flight.piece.item)
        if flight.piece.lose(with_machine=of_machine):
            self._queue.appendleft(flight.piece)
        else:
            self.failed.append((flight.piece.item, self._cause_of(error)))

    def _note_loss(self, node_id: str) -> None:
        if node_id not in self._losses.machines:
            self._losses.machines.add(node_id)
            logger.warning("cluster   machine %s was lost: others do its work", node_id[:12])

    def _close(self) -> None:
        for actor in list(self._actors):
            self._end(actor)
        for ref in self._flights:
            ray.cancel(ref, force=True)
