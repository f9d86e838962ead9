"""What runs on the workers: a function or steps over one item, errors as results.

Items are dicts (a shard's name, a range of buckets). An item that fails with a transient error of
the object store is tried again. An error is returned with the item: Ray would add pages of its own
stack to an exception.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from raydistill.errors import UserError, WorkError
from raydistill.files import retry
from raydistill.files.retry import ITEM_TRIES, StoreError, tried

Item = dict[str, Any]
# A step of a chain: takes an item and its bytes, returns both.
Step = Callable[[Item, bytes], tuple[Item, bytes]]
FAILED = "failed"  # a step's error that is not the user's mistake; later steps pass the item on
_MISTAKE = "user_error"
_TRIED_AGAIN = "tried_again"  # retried requests to the object store, by error; summed on the driver
_BROKEN = "broken"  # the error of an actor's constructor: every other actor would raise it too


def apply(work: Callable[[Item], Item], item: Item) -> Item:
    """`work(item)`; a UserError is returned as a result."""
    try:
        result = tried(lambda: work(dict(item)), tries=ITEM_TRIES)
    except UserError as error:
        result = {_MISTAKE: str(error)}
    return _with_counts(result)


def apply_steps(steps: Sequence[Step], item: Item, data: Any) -> tuple[Item, pa.Buffer]:  # noqa: ANN401
    """All steps of one item; the bytes stay in the object store of this machine."""
    for step in steps:
        item, data = _attempt(step, item, data)
    return _with_counts(item), pa.py_buffer(data)


class StepActor:
    """An actor with the step that `make()` returns, and the steps around it."""

    def __init__(self, make: Callable[[], Step], *around: Step) -> None:
        """`around`: none, or the step before and the step after."""
        step = _made(make)
        self._steps = (around[0], step, around[1]) if around else (step,)

    def where(self) -> str:
        """The id of its machine; the first answer says that the actor has started."""
        import ray  # 1 s; the driver's first lines come before that

        return str(ray.get_runtime_context().get_node_id())

    def run(self, item: Item, data: Any) -> tuple[Item, pa.Buffer]:  # noqa: ANN401
        """The steps of one item."""
        return apply_steps(self._steps, item, data)


def checked(result: Item) -> Item:
    """A result without its retry counts; called on the driver.

    Raises:
        UserError: the result is a user's mistake.
        WorkError: the result is the error of an actor's constructor.
    """
    retry.add(result.pop(_TRIED_AGAIN, {}))
    if _MISTAKE in result:
        raise UserError(result[_MISTAKE])
    if _BROKEN in result:
        raise WorkError(f"a worker could not start: {result[_BROKEN]}")
    return result


def _with_counts(result: Item) -> Item:
    """The result plus the counts of this process's retried requests since the last result."""
    counts = retry.take()
    if not counts:
        return result
    return {**result, _TRIED_AGAIN: dict(Counter(counts) + Counter(result.get(_TRIED_AGAIN, {})))}


def _made(make: Callable[[], Step]) -> Step:
    """The step of `make()`; if `make` raises, a step that returns the error for each item."""
    try:
        return tried(make, tries=ITEM_TRIES)
    except UserError as error:
        kind, text = _MISTAKE, str(error)
    except Exception as error:  # of any class: the driver raises it as a WorkError
        kind = _BROKEN
        lines = str(error).strip().splitlines()
        text = f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
    return lambda item, _: ({**item, kind: text}, b"")


def _attempt(step: Step, item: Item, data: bytes) -> tuple[Item, bytes]:
    if not {_MISTAKE, _BROKEN, FAILED}.isdisjoint(item):
        return item, b""
    try:
        done, out = tried(lambda: step(item, data), tries=ITEM_TRIES)
    except StoreError as error:  # a busy store must not stop the other items
        kind = _MISTAKE if error.is_final else FAILED
        return {**item, kind: str(error)}, b""
    except UserError as error:
        return {**item, _MISTAKE: str(error)}, b""
    except Exception as error:  # of any class: the driver reports it with the item
        return {**item, FAILED: f"{type(error).__name__}: {error}"}, b""
    counts = item.get(_TRIED_AGAIN)
    return ({_TRIED_AGAIN: counts, **done} if counts else done), out
