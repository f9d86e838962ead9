"""Run one function or actor over many items with Ray Data, and hand each result over as it comes.

An item is a dict (a shard's name, a range of buckets) and so is a result: rows stay on the workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray.data

from raydistill.errors import UserError

Item = dict[str, Any]
_MISTAKE = "user_error"


def _apply(work: Callable[[Item], Item], block: Any) -> dict[str, Any]:  # noqa: ANN401
    """Unpack the items of a block, work on each, pack the results.

    A user's mistake comes back as a result: Ray would wrap it in pages of its own stack.
    """
    results: list[str] = []
    for text in block["item"]:
        try:
            results.append(json.dumps(work(json.loads(text))))
        except UserError as error:
            results.append(json.dumps({_MISTAKE: str(error)}))
    return {"result": np.asarray(results, dtype=object)}


class _Worker:
    """An actor that keeps what `make()` gives, and has it work on one item after the other."""

    def __init__(self, make: Callable[[], Callable[[Item], Item]]) -> None:
        self.work = make()

    def __call__(self, block: Any) -> dict[str, Any]:  # noqa: ANN401
        return _apply(self.work, block)


def run_tasks(
    items: Sequence[Item], work: Callable[[Item], Item], *, cpus: float
) -> Iterator[Item]:
    """`work(item)` for every item, as stateless tasks; results in the order they are ready."""
    if items:
        task = partial(_apply, work)
        yield from _results(_dataset(items).map_batches(task, batch_size=1, num_cpus=cpus))


def run_actors(
    items: Sequence[Item],
    make: Callable[[], Callable[[Item], Item]],
    *,
    num_actors: int,
    gpus: float,
) -> Iterator[Item]:
    """Like `run_tasks`, with actors that each call `make()` once and keep what it gives."""
    if not items:
        return
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(num_actors, len(items))))
    mapped = _dataset(items).map_batches(
        _Worker,
        fn_constructor_args=(make,),
        batch_size=1,
        compute=pool,
        num_gpus=gpus or None,
        num_cpus=None if gpus else 1,
    )
    yield from _results(mapped)


def _dataset(items: Sequence[Item]) -> ray.data.Dataset:
    rows = [{"item": json.dumps(item)} for item in items]
    # One block an item: with fewer, Ray would hand several to one task and lose the balance.
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def _results(dataset: ray.data.Dataset) -> Iterator[Item]:
    for row in dataset.iter_rows():
        result = json.loads(row["result"])
        if _MISTAKE in result:
            raise UserError(result[_MISTAKE])
        yield result
