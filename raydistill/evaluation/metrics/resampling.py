"""All metrics of scorers on a set of pairs: their values, and their values in each resample.

Means over pairs and over queries are ratios of sums over queries, so a resample is a weighted sum
of the sums of each query. AUC, PR-AUC and Spearman are not; they take a pass over the pairs in the
order of the scores. Both are in `weighted_passes`.

Shapes: B pairs, Q queries that have a pair, K columns of sums, R resamples.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.evaluation.metrics.pair_metrics import (
    DECIDES_AT,
    NUM_BINS,
    cross_entropies,
    gap_sums,
)
from raydistill.evaluation.metrics.query_metrics import COLUMNS, query_figures
from raydistill.evaluation.metrics.weighted_passes import (
    LANES,
    LabelRanks,
    ends_of_ties,
    rank_correlations,
    rank_labels,
    ranking_metrics,
    weighted_sums,
)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Values = dict[str, NDArray[np.float64]]  # by the key of a metric: the value in each resample
_MOST_THREADS = 4  # 1,000,000 distinct labels: 256 MB of ranks a thread
# Metrics that are a sum over queries divided by another: both by their column.
_RATIOS = {
    "accuracy": ("right", "pairs"),
    "log_loss": ("loss", "pairs"),
    "ndcg_5": ("ndcg_5", "has_labels"),
    "ndcg_10": ("ndcg_10", "has_labels"),
    "mrr_10": ("mrr_10", "has_kinds"),
    "precision_1": ("precision_1", "has_kinds"),
    "precision_5": ("precision_5", "has_kinds"),
    "query_auc": ("query_auc", "has_kinds"),
    "pairwise": ("right_couples", "num_couples"),
}
_OF_PROBABILITIES = {"log_loss", "ece"}


class LabeledPairs:
    """Labels of pairs, and their queries: what all scorers of these pairs share.

    `queries` int64 (Q,): the numbers of the queries that have a pair, of all that are drawn.
    """

    def __init__(
        self,
        labels_B: NDArray[np.float32],
        groups_B: NDArray[np.int64],
        *,
        relevant_at: float | None,
    ) -> None:
        """`groups_B`: the number of the query of each pair, from 0.

        `relevant_at` None: the labels are the teachers' soft labels, which call a pair relevant
        from 0.5 on.
        """
        self.labels_B = labels_B
        self.order_B = np.argsort(-labels_B)  # from the highest label to the lowest
        self.relevant_B = labels_B >= (DECIDES_AT if relevant_at is None else relevant_at)
        self.queries, of_pairs, self.num_pairs_Q = np.unique(
            groups_B, return_inverse=True, return_counts=True
        )
        self.queries_B = of_pairs.astype(np.uint32)
        self.starts_Q = np.concatenate([[0], np.cumsum(self.num_pairs_Q)]).astype(np.int64)

    @property
    def num_queries(self) -> int:
        """Q."""
        return len(self.queries)

    @cached_property
    def best_B(self) -> NDArray[np.float32]:
        """Labels, query after query, in each from the highest to the lowest."""
        return self.labels_B[self.by_query(self.order_B)]

    @cached_property
    def ends_tie_B(self) -> NDArray[np.bool_]:
        """Whether the next pair of `order_B` has another label."""
        return ends_of_ties(self.labels_B[self.order_B])

    @cached_property
    def ordered_queries_B(self) -> NDArray[np.uint32]:
        """The queries of the pairs of `order_B`."""
        return self.queries_B[self.order_B]

    @cached_property
    def levels_B(self) -> NDArray[np.uint32]:
        """The number of each pair's label among the distinct ones, from the highest on."""
        levels_B = np.empty(len(self.labels_B), np.uint32)
        levels_B[self.order_B] = np.cumsum(self.ends_tie_B) - self.ends_tie_B
        return levels_B

    @cached_property
    def has_both_kinds_Q(self) -> NDArray[np.bool_]:
        """Whether a query has relevant pairs and others."""
        num_Q = np.bincount(self.queries_B, weights=self.relevant_B, minlength=self.num_queries)
        return (num_Q > 0) & (num_Q < self.num_pairs_Q)

    @cached_property
    def has_unequal_labels_Q(self) -> NDArray[np.bool_]:
        """Whether a query has pairs of different labels."""
        low_Q, high_Q = np.full((2, self.num_queries), [[np.inf], [-np.inf]])
        np.minimum.at(low_Q, self.queries_B, self.labels_B)
        np.maximum.at(high_Q, self.queries_B, self.labels_B)
        return low_Q < high_Q

    def by_query(self, order_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """An order of the pairs, made query after query."""
        return order_B[np.argsort(self.queries_B[order_B], kind="stable")]

    def ranks(self, counts_QR: NDArray[np.uint8]) -> LabelRanks:
        """Ranks of the labels in a block of resamples."""
        return rank_labels(self.ordered_queries_B, self.ends_tie_B, counts_QR)


class RankedPairs:
    """One scorer's scores of labeled pairs, arranged so that resamples are measured fast."""

    def __init__(
        self,
        scores_B: NDArray[np.float32],
        pairs: LabeledPairs,
        *,
        keys: Collection[str] = tuple(METRICS),
        threshold: float | None = None,
        is_probability: bool = True,
    ) -> None:
        """`keys`: metrics to measure; the accuracy only with a `threshold`.

        Log loss and calibration error only where `is_probability`.
        """
        without = {"accuracy"} if threshold is None else set()
        without |= set() if is_probability else _OF_PROBABILITIES
        self.keys = [key for key in METRICS if key in keys and key not in without]
        order_B = np.argsort(-scores_B)
        self.ends_tie_B = ends_of_ties(scores_B[order_B])
        self.queries_B = pairs.queries_B[order_B]
        self.relevant_B = pairs.relevant_B[order_B]
        self.levels_B = pairs.levels_B[order_B] if "spearman" in self.keys else None
        self._sums(scores_B, pairs, order_B=order_B, threshold=threshold)

    def _sums(
        self,
        scores_B: NDArray[np.float32],
        pairs: LabeledPairs,
        *,
        order_B: NDArray[np.int64],
        threshold: float | None,
    ) -> None:
        """Make `sums_QK`, and `columns`: the place of each column by its name."""
        wanted = {name for key in self.keys for name in _RATIOS.get(key, ())}
        columns: dict[str, NDArray[Any]] = {}
        by_query, num_queries = pairs.queries_B, pairs.num_queries
        if wanted & set(COLUMNS):
            order_B = pairs.by_query(order_B)
            figures_QC = query_figures(
                scores_B[order_B],
                pairs.labels_B[order_B],
                pairs.relevant_B[order_B],
                pairs.starts_Q,
                pairs.best_B,
            )
            columns |= {name: figures_QC[:, at] for at, name in enumerate(COLUMNS)}
        if threshold is not None and "accuracy" in self.keys:
            right_B = (scores_B >= threshold) == pairs.relevant_B
            columns["right"] = np.bincount(by_query, right_B.astype(np.float64), num_queries)
        if "log_loss" in self.keys:
            losses_B = cross_entropies(scores_B, pairs.labels_B)
            columns["loss"] = np.bincount(by_query, losses_B, num_queries)
        columns["pairs"] = pairs.num_pairs_Q.astype(np.float64)
        names = [name for name in columns if name in wanted | {"pairs"}]
        self.columns = {name: at for at, name in enumerate(names)}
        parts = [columns[name][:, None] for name in names]
        if "ece" in self.keys:
            parts.append(gap_sums(scores_B, pairs.labels_B, by_query, num_queries=num_queries))
        self.sums_QK = np.concatenate(parts, axis=1)

    def values(
        self,
        counts_QR: NDArray[np.uint8],
        ranks: LabelRanks | None,
    ) -> Values:
        """The metrics in each of LANES resamples; NaN where a resample has no such figure.

        `ranks`: of the labels, for Spearman.
        """
        found: Values = {}
        if {"auc", "pr_auc"} & set(self.keys):
            found["auc"], found["pr_auc"] = ranking_metrics(
                self.queries_B, self.relevant_B, self.ends_tie_B, counts_QR
            )
        if self.levels_B is not None and ranks is not None:
            found["spearman"] = rank_correlations(
                self.queries_B, self.levels_B, self.ends_tie_B, counts_QR, ranks
            )
        sums_KR = weighted_sums(self.sums_QK, counts_QR)
        for key, (above, below) in _RATIOS.items():
            if key in self.keys:
                found[key] = _ratio(*(sums_KR[self.columns[name]] for name in (above, below)))
        if "ece" in self.keys:
            gaps_R = np.abs(sums_KR[-NUM_BINS:]).sum(axis=0)
            found["ece"] = _ratio(gaps_R, sums_KR[self.columns["pairs"]])
        return {key: found[key] for key in self.keys}


def _ratio(above_R: NDArray[np.float64], below_R: NDArray[np.float64]) -> NDArray[np.float64]:
    out_R: NDArray[np.float64] = np.full(len(above_R), np.nan)
    np.divide(above_R, below_R, out=out_R, where=below_R > 0)
    return out_R


@dataclass(frozen=True)
class Resampled:
    """Metrics of one scorer on some pairs: the value (NaN: none), and that of each resample.

    The resamples of a metric that has no interval (`METRICS`) are NaN.
    """

    value: dict[str, float]
    resampled: Values


Unit = tuple[LabeledPairs, Mapping[str, RankedPairs]]  # pairs, and scorers of these by name


def resample(
    units: Sequence[Unit], *, num_queries: int, draws: Draws
) -> list[dict[str, Resampled]]:
    """Every scorer of every unit on the same draws of `num_queries` queries; two threads or more.

    One block of LANES resamples a thread is in memory.
    """
    if num_queries == 0:
        nothing = {key: float("nan") for key in METRICS}
        none = dict.fromkeys(METRICS, np.full(draws.resamples, np.nan))
        return [dict.fromkeys(scorers, Resampled(nothing, none)) for _, scorers in units]
    exact = in_threads(exact_values, units)
    if num_queries == 1:  # every resample is the whole: no interval
        none = dict.fromkeys(METRICS, np.full(draws.resamples, np.nan))
        return [{name: Resampled(value, none) for name, value in of.items()} for of in exact]
    blocks = in_threads(
        lambda counts_QR: [_measured(unit, counts_QR) for unit in units], draws.counts(num_queries)
    )
    found: list[dict[str, Resampled]] = []
    for at, (_, scorers) in enumerate(units):
        found.append({})
        for name, ranked in scorers.items():
            parts = {key: [block[at][name][key] for block in blocks] for key in ranked.keys}
            resampled = {
                key: np.concatenate([*some, np.empty(0)])[: draws.resamples]
                if METRICS[key].has_interval
                else np.full(draws.resamples, np.nan)
                for key, some in parts.items()
            }
            found[-1][name] = Resampled(exact[at][name], resampled)
    return found


def exact_values(unit: Unit) -> dict[str, dict[str, float]]:
    """The metrics of each scorer of a unit on all pairs of the unit; NaN where it has none."""
    pairs, scorers = unit
    found = _measured_local(pairs, scorers, np.ones((pairs.num_queries, LANES), np.uint8))
    return {
        name: {key: float(values[0]) for key, values in of.items()} for name, of in found.items()
    }


def in_threads(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """The results in the order of the items; one item more than threads is made ahead."""
    num_threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    found: list[_Result] = []
    with ThreadPoolExecutor(num_threads) as pool:
        running: deque[Future[_Result]] = deque()
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > num_threads:
                found.append(running.popleft().result())
        return found + [one.result() for one in running]


def _measured(unit: Unit, counts_QR: NDArray[np.uint8]) -> dict[str, Values]:
    pairs, scorers = unit
    is_part = pairs.num_queries < len(counts_QR)
    return _measured_local(pairs, scorers, counts_QR[pairs.queries] if is_part else counts_QR)


def _measured_local(
    pairs: LabeledPairs, scorers: Mapping[str, RankedPairs], counts_QR: NDArray[np.uint8]
) -> dict[str, Values]:
    """The metrics in a block of resamples; the rows of `counts_QR` are the queries of `pairs`."""
    needs_ranks = any(ranked.levels_B is not None for ranked in scorers.values())
    ranks = pairs.ranks(counts_QR) if needs_ranks else None
    return {name: ranked.values(counts_QR, ranks) for name, ranked in scorers.items()}
