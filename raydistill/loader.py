"""Shards to training batches: the plan, soft labels and n-gram ids; no Ray, no torch.

The plan is a pure function of row counts, seed, epoch and number of workers: all workers take the
same number of steps, no row is dropped, none is seen twice. A window (some shards, shuffled
together) is the unit of resuming, and does not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.bags import Lookup, look_up
from raydistill.features import Features, NgramSpec, concatenate
from raydistill.labels import soft_labels, soft_logits
from raydistill.lexicon import Lexicon
from raydistill.ngrams import IDF_BITS, document_counts, featurize, idf
from raydistill.prefetch import prefetch
from raydistill.storage import Folder
from raydistill.texts import to_texts

_SAMPLE_SHARDS = 16  # shards hold random queries: 16 of 65,536 pairs are sample enough


@dataclass(frozen=True)
class Targets:
    """Where a pair's target comes from: the teachers' logits, or (no teachers) its own label."""

    logits: tuple[Folder, ...] = ()
    weights: tuple[float, ...] = ()
    bias: float = 0.0
    temperature: float = 1.0
    as_logits: bool = False  # the logit of the soft label in place of it, for loss = "mse"
    holds_logits: bool = False  # the pairs' own labels are such logits: of a subset of a curve

    @property
    def columns(self) -> list[str]:
        """What is read of a shard of pairs."""
        return ["query", "title", "pair_id" if self.logits else "label"]

    def of(self, shard: str, pairs: pa.Table) -> NDArray[np.float32]:
        """Targets of the rows of a shard; the ids are checked, never joined.

        NaN for a pair that a teacher could not score.
        """
        if not self.logits:
            labels = np.asarray(pairs["label"].to_numpy())
            if self.holds_logits and not self.as_logits:
                return soft_labels(labels[:, None], weights_M=(1.0,))
            return labels
        columns = [read_logits(folder, shard, pairs) for folder in self.logits]
        make = soft_logits if self.as_logits else soft_labels
        return make(
            np.stack(columns, axis=1),
            weights_M=self.weights,
            bias=self.bias,
            temperature=self.temperature,
        )


@dataclass(frozen=True)
class Window:
    """Shards whose rows are shuffled together, and how many rows each has."""

    epoch: int
    index: int
    shards: tuple[tuple[str, int], ...]

    @property
    def num_rows(self) -> int:
        """Rows of all shards of the window."""
        return sum(rows for _, rows in self.shards)


@dataclass(frozen=True)
class Batch:
    """This worker's share of one step, and how many pairs all workers have in it.

    `num_global` counts those without a target too: they have no weight, and change no plan.
    """

    lookup: Lookup
    dense_BF: NDArray[np.float32]
    targets_B: NDArray[np.float32]
    num_global: int
    window: Window
    is_last: bool  # of its window


def read_logits(folder: Folder, shard: str, pairs: pa.Table) -> NDArray[np.float32]:
    """The logits of a shard, NaN for null, after a check that they belong to its pairs."""
    table = folder.read_table(shard)
    if not table["pair_id"].equals(pairs["pair_id"]):
        raise ValueError(f"{folder}/{shard} does not hold the pairs of its namesake; delete it")
    return np.asarray(table["logit"].to_numpy())


def plan_windows(
    shards: Mapping[str, int], *, seed: int, epoch: int, window_shards: int
) -> list[Window]:
    """The windows of one epoch: every shard in exactly one of them, in a random order."""
    names = sorted(shards)
    order = np.random.default_rng([seed, epoch]).permutation(len(names))
    groups = [order[at : at + window_shards] for at in range(0, len(order), window_shards)]
    return [
        Window(epoch, index, tuple((names[at], shards[names[at]]) for at in group))
        for index, group in enumerate(groups)
    ]


def rank_range(num_rows: int, *, rank: int, num_workers: int) -> tuple[int, int]:
    """First and last-plus-one row of a window that a worker takes; sizes differ by one at most."""
    return num_rows * rank // num_workers, num_rows * (rank + 1) // num_workers


def step_sizes(num_rows: int, *, num_steps: int) -> list[int]:
    """How many of a worker's rows go to each step of a window: as even as can be."""
    edges = [num_rows * step // num_steps for step in range(num_steps + 1)]
    return [stop - start for start, stop in pairwise(edges)]


class Loader:
    """Batches of one worker, made from shards."""

    def __init__(
        self, folder: Folder, targets: Targets, *, spec: NgramSpec, lexicon: Lexicon
    ) -> None:
        """`folder` holds the shards of pairs; `targets` says what the student is to learn."""
        self.folder, self.targets, self.spec, self.lexicon = folder, targets, spec, lexicon

    def shard(
        self, name: str, *, start: int = 0, stop: int | None = None, num_rows: int | None = None
    ) -> tuple[Features, NDArray[np.float32]]:
        """Features and targets of some rows of a shard, which must have `num_rows` in all."""
        pairs = self.folder.read_table(name, columns=self.targets.columns)
        if num_rows is not None and pairs.num_rows != num_rows:
            raise ValueError(f"{self.folder}/{name} has {pairs.num_rows} rows, {num_rows} planned")
        targets = self.targets.of(name, pairs)[start:stop]
        part = pairs.slice(start, None if stop is None else stop - start)
        return features_of(part, spec=self.spec, lexicon=self.lexicon), targets

    def batches(
        self,
        windows: Sequence[Window],
        *,
        rank: int,
        num_workers: int,
        batch_rows: int,
        seed: int,
    ) -> Iterator[Batch]:
        """The batches of window after window; `batch_rows` counts the pairs of all workers.

        A window is read while the one before it is cut up.
        """
        shares = prefetch(
            (self._window(window, rank=rank, num_workers=num_workers) for window in windows),
            depth=1,
        )
        for window, (features, targets) in zip(windows, shares, strict=True):
            rng = np.random.default_rng([seed, window.epoch, window.index, rank, num_workers])
            order = rng.permutation(len(targets))
            sizes = worker_steps(window.num_rows, num_workers=num_workers, batch_rows=batch_rows)
            at = 0
            for step, size in enumerate(sizes[rank]):
                rows = order[at : at + size]
                rows = rows[~np.isnan(targets[rows])]  # no logit, no say
                at += size
                part = features.take(rows)
                yield Batch(
                    look_up(part.ids_N, part.offsets),
                    part.dense_BF,
                    targets[rows],
                    num_global=sum(worker[step] for worker in sizes),
                    window=window,
                    is_last=step + 1 == len(sizes[rank]),
                )

    def _window(
        self, window: Window, *, rank: int, num_workers: int
    ) -> tuple[Features, NDArray[np.float32]]:
        first, last = rank_range(window.num_rows, rank=rank, num_workers=num_workers)
        parts, at = [], 0
        for name, rows in window.shards:
            start, stop = max(first - at, 0), min(last - at, rows)
            if start < stop:
                parts.append(self.shard(name, start=start, stop=stop, num_rows=rows))
            at += rows
        if not parts:  # fewer rows than workers: an empty share, of the right shape
            parts.append(self.shard(window.shards[0][0], stop=0))
        return concatenate([f for f, _ in parts]), np.concatenate([t for _, t in parts])


def worker_steps(num_rows: int, *, num_workers: int, batch_rows: int) -> list[list[int]]:
    """For each worker, the rows it gives to each step of a window; all have as many steps."""
    num_steps = -(-num_rows // batch_rows)
    ranges = [rank_range(num_rows, rank=r, num_workers=num_workers) for r in range(num_workers)]
    return [step_sizes(stop - start, num_steps=num_steps) for start, stop in ranges]


def features_of(pairs: pa.Table, *, spec: NgramSpec, lexicon: Lexicon) -> Features:
    """Features of a table with `query` and `title`."""
    queries, titles = to_texts(pairs["query"]), to_texts(pairs["title"])
    return featurize(queries, titles, spec=spec, lexicon=lexicon)


def sample_shards(shards: Mapping[str, int]) -> list[str]:
    """The shards from which words are counted."""
    return sorted(shards)[:_SAMPLE_SHARDS]


def count_idf(folder: Folder, shards: Mapping[str, int], *, units: bool) -> NDArray[np.float32]:
    """IDF of all words, from the titles of a sample of the shards, as a Lexicon holds it.

    `units` as in the NgramSpec that reads it.
    """
    counts, num_titles = np.zeros(1 << IDF_BITS, np.int64), 0
    for name in sample_shards(shards):
        titles = folder.read_table(name, columns=["title"])["title"]
        counts += document_counts(to_texts(titles), units=units)
        num_titles += len(titles)
    return idf(counts, num_documents=num_titles)


def dense_scale(dense_BF: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Mean and deviation by which dense features are standardised, from those of some pairs."""
    dense = dense_BF.astype(np.float64)
    std = dense.std(axis=0)
    return {
        "dense_mean": dense.mean(axis=0).astype(np.float32),
        "dense_std": np.where(std > 1e-6, std, 1.0).astype(np.float32),  # a constant stays 0
    }
