"""Run a function or a chain of steps over many items with Ray Data; yield results when ready.

Items and results are dicts (a shard's name, a range of buckets); rows stay on the workers. An item
that fails with a transient error of the object store is tried again.
"""

from __future__ import annotations

import json
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raydistill.errors import UserError, WorkError
from raydistill.files import retry
from raydistill.files.retry import ITEM_TRIES, StoreError, tried

if TYPE_CHECKING:  # importing Ray takes 1 s; an error in the run file is reported before that
    import ray.data

Item = dict[str, Any]
# A step of a chain: takes an item and its bytes, returns both.
Step = Callable[[Item, bytes], tuple[Item, bytes]]
_MISTAKE = "user_error"
_TRIED_AGAIN = "tried_again"  # retried requests to the object store, by error; summed on the driver
_BROKEN = "broken"  # the error of an actor's constructor: every other actor would raise it too
FAILED = "failed"  # a step's error that is not the user's mistake; later steps pass the item on
_BLOCK = pa.schema([("item", pa.string()), ("data", pa.large_binary())])
_WHOLE: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
_NOTE = "noted_as"  # the key under which an item's worker is noted while a chain runs
_DEATHS = 3  # retries of an item whose process ends, before the item counts as failed
_TASK: dict[str, Any] = {**_WHOLE, "max_retries": _DEATHS}


def _apply(work: Callable[[Item], Item], block: Any) -> dict[str, Any]:  # noqa: ANN401
    """Unpack the items of a block, call `work` on each, pack the results.

    A UserError is returned as a result: Ray would add pages of its own stack to an exception.
    """
    results: list[str] = []
    for text in block["item"]:
        item = json.loads(text)
        try:
            result = tried(lambda item=item: work(dict(item)), tries=ITEM_TRIES)  # type: ignore[misc]
        except UserError as error:
            result = {_MISTAKE: str(error)}
        results.append(json.dumps(_with_counts(result)))
    return {"result": np.asarray(results, dtype=object)}


def _with_counts(result: Item) -> Item:
    """The result plus the counts of this process's retried requests since the last result."""
    counts = retry.take()
    if not counts:
        return result
    return {**result, _TRIED_AGAIN: dict(Counter(counts) + Counter(result.get(_TRIED_AGAIN, {})))}


def run_tasks(
    items: Sequence[Item], work: Callable[[Item], Item], *, cpus: float
) -> Iterator[Item]:
    """`work(item)` for each item, as stateless tasks; results in completion order.

    Raises:
        UserError: `work` raised it.
        WorkError: `work` raised another error, or a task's process ended repeatedly.
    """
    if items:
        task = partial(_apply, work)
        # Without max_retries Ray Data retries a task whose process ends forever.
        options: dict[str, Any] = {"batch_size": 1, "num_cpus": cpus, "max_retries": _DEATHS}
        with _no_deprecations():
            tasks = _dataset(items).map_batches(task, **options)
        yield from _results(tasks)


def run_chain(
    items: Sequence[Item],
    *,
    before: Step,
    make: Callable[[], Step],
    after: Step,
    num_actors: int,
    gpus: float,
    on_lost: Callable[[Item, str], None] = lambda item, cause: None,
) -> Iterator[Item]:
    """Three steps for each item: `before` and `after` as tasks, the step of `make` in actors.

    With GPUs, reading and writing run on the cores, before and after the actors, so that no GPU
    waits. Without GPUs that gains nothing: each actor has a core and runs all three steps. An item
    whose step raised has the error in `FAILED`. An item whose actors ended repeatedly is not
    yielded: after all others are done, `on_lost` is called with the item and the cause.
    """
    if not items:
        return
    import ray.data

    from raydistill.cluster.worker_exits import exit_of_noted, forget_workers

    actors: dict[str, Any] = {
        # All actors are requested at once: pending requests make a cluster scale up, and actors
        # that have a machine work meanwhile. Pools from 1 to N stayed at 1 (ray#59144).
        "compute": ray.data.ActorPoolStrategy(size=min(num_actors, len(items))),
        "max_task_retries": _DEATHS,
        # With GPUs the cores belong to the tasks: if actors held all cores, tasks would never run.
        **({"num_gpus": gpus, "num_cpus": 0} if gpus else {"num_cpus": 1}),
        **_WHOLE,
    }
    name = uuid.uuid4().hex
    lost = {f"{name}/{at}": item for at, item in enumerate(items)}
    texts = [json.dumps({**item, _NOTE: note}) for note, item in lost.items()]
    rows = pa.table([texts, [b""] * len(items)], schema=_BLOCK)
    chain: ray.data.Dataset = ray.data.from_arrow([rows.slice(at, 1) for at in range(len(items))])
    chain.context.max_errored_blocks = -1  # items missing at the end are reported by on_lost
    with _no_deprecations():
        if gpus:
            chain = chain.map_batches(partial(_steps, (before,)), num_cpus=1, **_TASK)
            chain = chain.map_batches(_StepActor, fn_constructor_args=(make,), **actors)
            chain = chain.map_batches(partial(_steps, (after,)), num_cpus=0.5, **_TASK)
        else:
            steps = (make, before, after)
            chain = chain.map_batches(_StepActor, fn_constructor_args=steps, **actors)
    notes = list(lost)
    try:
        for result in _results(chain, column="item"):
            del lost[result.pop(_NOTE)]
            yield result
        for note, item in lost.items():
            on_lost(item, exit_of_noted(note))
    finally:
        forget_workers(notes)


@contextmanager
def _no_deprecations() -> Iterator[None]:
    """Hide the warning of Ray 2.64 and later about the names of the retry options."""
    from ray.util.annotations import RayDeprecationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


class _StepActor:
    """An actor with the step that `make()` returns, and the steps around it."""

    def __init__(self, make: Callable[[], Step], *around: Step) -> None:
        step = _made(make)
        self.steps = (around[0], step, around[1]) if around else (step,)

    def __call__(self, block: pa.Table) -> pa.Table:
        return _steps(self.steps, block)


def _made(make: Callable[[], Step]) -> Step:
    """The step of `make()`; if `make` raises, a step that returns the error for each item.

    If an actor's constructor raises, Ray restarts the actor repeatedly and prints the stack each
    time.
    """
    try:
        return tried(make, tries=ITEM_TRIES)
    except UserError as error:
        kind, text = _MISTAKE, str(error)
    except Exception as error:  # of any class: the driver raises it as a WorkError
        kind = _BROKEN
        lines = str(error).strip().splitlines()
        text = f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
    return lambda item, _: ({**item, kind: text}, b"")


def _steps(steps: Sequence[Step], block: pa.Table) -> pa.Table:
    """Apply all steps to each row of a block."""
    from raydistill.cluster.worker_exits import note_worker

    items, results = [], []
    for text, value in zip(block["item"].to_pylist(), block["data"], strict=True):
        item, data = json.loads(text), value.as_buffer()
        note = item.pop(_NOTE)
        note_worker(note)
        for step in steps:
            item, data = _attempt(step, item, data)
        items.append(json.dumps({**_with_counts(item), _NOTE: note}))
        results.append(data)
    return pa.table([items, results], schema=_BLOCK)


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


def _dataset(items: Sequence[Item]) -> ray.data.Dataset:
    import ray.data

    rows = [{"item": json.dumps(item)} for item in items]
    # One block an item: with fewer blocks one task gets several items, and load is unbalanced.
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def _results(dataset: ray.data.Dataset, *, column: str = "result") -> Iterator[Item]:
    from ray.exceptions import RayError

    from raydistill.cluster.worker_exits import error_line

    start_s = time.time()
    rows = iter(dataset.iter_rows())
    try:
        while True:
            try:
                row = next(rows, None)
            except RayError as error:
                raise WorkError(error_line(error, since_s=start_s)) from error
            if row is None:
                return
            yield _checked(json.loads(row[column]))
    finally:  # close now: at garbage collection Ray may be shut down, and a stack is printed
        if isinstance(rows, Generator):
            rows.close()


def _checked(result: Item) -> Item:
    """A result without its retry counts.

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
