"""Run one function or actor over many items with Ray Data, and hand each result over as it comes.

An item is a dict (a shard's name, a range of buckets) and so is a result: rows stay on the workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import ray.data

Item = dict[str, Any]


class _Adapter:
    """Unpacks the one item of a block, calls the worker, packs its result."""

    def __init__(self, make: Callable[[], Callable[[Item], Item]]) -> None:
        self.call = make()

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        return _pack([self.call(json.loads(text)) for text in block["item"]])


def _pack(results: list[Item]) -> dict[str, Any]:
    return {"result": np.asarray([json.dumps(result) for result in results], dtype=object)}


def run_tasks(
    items: Sequence[Item], work: Callable[[Item], Item], *, cpus: float
) -> Iterator[Item]:
    """`work(item)` for every item, as stateless tasks; results in the order they are ready."""
    if not items:
        return

    def on_block(block: dict[str, Any]) -> dict[str, Any]:
        return _pack([work(json.loads(text)) for text in block["item"]])

    yield from _results(_dataset(items).map_batches(on_block, batch_size=1, num_cpus=cpus))


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
    resources: dict[str, float] = {"num_gpus": gpus} if gpus else {"num_cpus": 1}
    mapped = _dataset(items).map_batches(
        _Adapter, fn_constructor_args=(make,), batch_size=1, compute=pool, **resources
    )
    yield from _results(mapped)


def _dataset(items: Sequence[Item]) -> ray.data.Dataset:
    rows = [{"item": json.dumps(item)} for item in items]
    # One block an item: with fewer, Ray would hand several to one task and lose the balance.
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def _results(dataset: ray.data.Dataset) -> Iterator[Item]:
    for row in dataset.iter_rows():
        yield json.loads(row["result"])
