"""Judged pairs and what each scorer says of them: the input of every figure of the report."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.evaluation.metrics.pair_metrics import DECIDES_AT
from raydistill.evaluation.metrics.resampling import LabeledPairs, RankedPairs, in_threads

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ScoredPairs:
    """Labels, queries and scores of B pairs.

    `labels_B` float32 in 0..1; `groups_B` int64: any number of the query of each pair.
    `relevant_at` None: the labels are the teachers' soft labels, which call a pair relevant from
    0.5 on, and every figure is agreement. `scores` float32 (B,) by name, not finite where a scorer
    has no score; it is measured on the pairs that it scores. `thresholds`: the score from which a
    scorer calls a pair relevant; it has no accuracy without. `uncalibrated`: scorers whose scores
    are no probabilities; they have no log loss and no calibration error, nor has one with a score
    outside of 0..1.
    """

    labels_B: NDArray[np.float32]
    groups_B: NDArray[np.int64]
    relevant_at: float | None
    scores: Mapping[str, NDArray[np.float32]]
    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    uncalibrated: Collection[str] = ()

    def __post_init__(self) -> None:
        """Check the lengths.

        Raises:
            ValueError: an array has another length than the labels, or a label is outside of 0..1.
        """
        arrays: dict[str, NDArray[Any]] = {"groups": self.groups_B, **self.scores}
        for name, values in arrays.items():
            if values.shape != self.labels_B.shape:
                raise ValueError(
                    f"{name} has the shape {values.shape}, the labels {self.labels_B.shape}; "
                    "give one value a pair"
                )
        if not ((self.labels_B >= 0) & (self.labels_B <= 1)).all():
            raise ValueError("a label is outside of 0..1 (or NaN); leave out pairs without a label")

    @cached_property
    def queries_B(self) -> NDArray[np.int64]:
        """Number of the query of each pair, from 0, in the order of `groups_B`."""
        return np.asarray(np.unique(self.groups_B, return_inverse=True)[1], np.int64)

    @cached_property
    def num_queries(self) -> int:
        """Distinct queries of all pairs."""
        return int(self.queries_B.max()) + 1 if len(self.queries_B) else 0

    @cached_property
    def relevant_B(self) -> Mask:
        """Pairs that count as relevant."""
        return self.labels_B >= (DECIDES_AT if self.relevant_at is None else self.relevant_at)

    @cached_property
    def has_score(self) -> dict[str, Mask]:
        """By scorer: the pairs that it scores."""
        return {name: np.isfinite(scores) for name, scores in self.scores.items()}

    @cached_property
    def partial(self) -> frozenset[str]:
        """Scorers that lack a score of some pair."""
        return frozenset(name for name, has_B in self.has_score.items() if not has_B.all())

    @cached_property
    def probabilities(self) -> frozenset[str]:
        """Scorers whose scores are between 0 and 1, and not called uncalibrated."""
        return frozenset(
            name
            for name, scores in self.scores.items()
            if name not in self.uncalibrated
            and not ((scores < 0) | (scores > 1))[self.has_score[name]].any()
        )

    def scored_by(self, names: Iterable[str]) -> Mask:
        """The pairs that all of these scorers score."""
        both_B = np.ones(len(self.labels_B), np.bool_)
        for name in self.partial & set(names):
            both_B &= self.has_score[name]
        return both_B

    def unit(
        self, names: Iterable[str], mask_B: Mask, *, keys: Collection[str] = tuple(METRICS)
    ) -> tuple[LabeledPairs, dict[str, RankedPairs]]:
        """The masked pairs and scorers of all of them, arranged for `resample`."""
        pairs = LabeledPairs(
            self.labels_B[mask_B], self.queries_B[mask_B], relevant_at=self.relevant_at
        )

        def ranked(name: str) -> RankedPairs:
            return RankedPairs(
                self.scores[name][mask_B],
                pairs,
                keys=keys,
                threshold=self.thresholds.get(name),
                is_probability=name in self.probabilities,
            )

        in_order = list(names)
        return pairs, dict(zip(in_order, in_threads(ranked, in_order), strict=True))
