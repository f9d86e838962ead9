"""Run a function or a chain of steps over many items with Ray Data; results as they come.

An item is a dict (a shard's name, a range of buckets) and so is a result: rows stay on the workers.
An item whose work ended in an error of the object store that may pass by is worked on again.
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

if TYPE_CHECKING:  # Ray takes a second, which a mistake in the run file need not cost
    import ray.data

Item = dict[str, Any]
# A step of a chain: an item and its bytes in, both out.
Step = Callable[[Item, bytes], tuple[Item, bytes]]
_MISTAKE = "user_error"
_TRIED_AGAIN = "tried_again"  # requests to the object store, by error; the driver adds them up
_BROKEN = "broken"  # the error of an actor's constructor: it would be that of every other actor
FAILED = "failed"  # the error of a step that was not the user's mistake; the next steps pass it on
_BLOCK = pa.schema([("item", pa.string()), ("data", pa.large_binary())])
_WHOLE: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
_NOTE = "noted_as"  # under which name the worker of an item is noted, while a chain runs
_DEATHS = 3  # of the processes that work on an item, before the item counts as failed
_TASK: dict[str, Any] = {**_WHOLE, "max_retries": _DEATHS}


def _apply(work: Callable[[Item], Item], block: Any) -> dict[str, Any]:  # noqa: ANN401
    """Unpack the items of a block, work on each, pack the results.

    A user's mistake comes back as a result: Ray would wrap it in pages of its own stack.
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
    """The result, and in it what this process tried again since the last one."""
    counts = retry.take()
    if not counts:
        return result
    return {**result, _TRIED_AGAIN: dict(Counter(counts) + Counter(result.get(_TRIED_AGAIN, {})))}


def run_tasks(
    items: Sequence[Item], work: Callable[[Item], Item], *, cpus: float
) -> Iterator[Item]:
    """`work(item)` for every item, as stateless tasks; results in the order they are ready.

    Raises:
        UserError: what `work` raised.
        WorkError: any other error of it, or a process that died again and again.
    """
    if items:
        task = partial(_apply, work)
        # Ray Data would try a task whose process dies again for ever.
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
    """Three steps for every item: `before` and `after` as tasks, between them actors.

    Where there are GPUs, reading and writing run on the cores beside them, ahead of and behind the
    actors, so that no GPU waits. On cores alone there is nothing to gain: the actors, a core each,
    do all three. An item whose step raised comes back with the error in `FAILED`, one whose actors
    died again and again does not come back: `on_lost` gets it and the cause at the end; the others
    are done.
    """
    if not items:
        return
    import ray.data

    from raydistill.cluster.worker_exits import exit_of_noted, forget_workers

    actors: dict[str, Any] = {
        # All are asked for at once: those that wait for a machine are what makes a cluster grow,
        # and those that have one work meanwhile. Pools from 1 to N stayed at 1 (ray#59144).
        "compute": ray.data.ActorPoolStrategy(size=min(num_actors, len(items))),
        "max_task_retries": _DEATHS,
        # Beside GPUs the cores are the tasks': actors that held them all would wait for ever.
        **({"num_gpus": gpus, "num_cpus": 0} if gpus else {"num_cpus": 1}),
        **_WHOLE,
    }
    name = uuid.uuid4().hex
    lost = {f"{name}/{at}": item for at, item in enumerate(items)}
    texts = [json.dumps({**item, _NOTE: note}) for note, item in lost.items()]
    rows = pa.table([texts, [b""] * len(items)], schema=_BLOCK)
    chain: ray.data.Dataset = ray.data.from_arrow([rows.slice(at, 1) for at in range(len(items))])
    chain.context.max_errored_blocks = -1  # the items that are missing at the end have failed
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
    """Retries go by another name from Ray 2.64 on."""
    from ray.util.annotations import RayDeprecationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


class _StepActor:
    """An actor that keeps what `make()` gives, and the steps it does before and after."""

    def __init__(self, make: Callable[[], Step], *around: Step) -> None:
        step = _made(make)
        self.steps = (around[0], step, around[1]) if around else (step,)

    def __call__(self, block: pa.Table) -> pa.Table:
        return _steps(self.steps, block)


def _made(make: Callable[[], Step]) -> Step:
    """What `make()` gives; where it raises, a step that gives the error for every item.

    Ray would begin an actor again and again whose constructor raises, and print its stack each
    time.
    """
    try:
        return tried(make, tries=ITEM_TRIES)
    except UserError as error:
        kind, text = _MISTAKE, str(error)
    except Exception as error:  # whatever it is, it travels to the driver, which ends with it
        kind = _BROKEN
        lines = str(error).strip().splitlines()
        text = f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
    return lambda item, _: ({**item, kind: text}, b"")


def _steps(steps: Sequence[Step], block: pa.Table) -> pa.Table:
    """Every step on every row of a block."""
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
    except StoreError as error:  # a busy store is no reason to stop the other items
        kind = _MISTAKE if error.is_final else FAILED
        return {**item, kind: str(error)}, b""
    except UserError as error:
        return {**item, _MISTAKE: str(error)}, b""
    except Exception as error:  # whatever it is, it travels to the driver, which names the item
        return {**item, FAILED: f"{type(error).__name__}: {error}"}, b""
    counts = item.get(_TRIED_AGAIN)
    return ({_TRIED_AGAIN: counts, **done} if counts else done), out


def _dataset(items: Sequence[Item]) -> ray.data.Dataset:
    import ray.data

    rows = [{"item": json.dumps(item)} for item in items]
    # One block an item: with fewer, Ray would hand several to one task and lose the balance.
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
    finally:  # here and now: left to the collector, it would print its stack when Ray has gone
        if isinstance(rows, Generator):
            rows.close()


def _checked(result: Item) -> Item:
    """A result without its counts.

    Raises:
        UserError: it is a user's mistake.
        WorkError: it is the error of an actor's constructor.
    """
    retry.add(result.pop(_TRIED_AGAIN, {}))
    if _MISTAKE in result:
        raise UserError(result[_MISTAKE])
    if _BROKEN in result:
        raise WorkError(f"a worker could not begin: {result[_BROKEN]}")
    return result
