"""The gain of the tuned settings over the untuned ones on the test split, and whether it is one.

Input: the final students' scores of the test pairs. Output: the gain with an interval over queries
and seeds, and a sentence. No files, no Ray.

Shapes: B pairs, S seeds, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydistill.evaluation.metrics.bootstrap import Draws, interval, p_value
from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.evaluation.scoreboard.scoreboard import Measurements
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from raydistill.search.results import MODES, FinalResult, shown_name

DRAWS = Draws(resamples=2_000)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class SplitPairs:
    """Labels and queries of the pairs of a split; `relevant_at` None: soft labels."""

    labels_B: NDArray[np.float32]
    groups_B: NDArray[np.int64]
    relevant_at: float | None


@dataclass(frozen=True)
class Gain:
    """The improvement of the chosen settings over the untuned ones: above 0 is better.

    `low` to `high` is the 95 % interval and `p` its two-sided p-value: of queries and seeds, or of
    queries alone if there is one seed.
    """

    mean: float
    low: float | None  # None: too few queries for an interval, or the metric has none
    high: float | None
    p: float | None
    num_seeds: int
    num_queries: int

    @property
    def is_known(self) -> bool:
        """Whether the test split has the metric."""
        return bool(np.isfinite(self.mean))

    @property
    def is_significant(self) -> bool:
        """Whether it is a gain: the interval is above 0, and it is not that of one seed."""
        return self.num_seeds > 1 and self.low is not None and self.low > 0


def seed_error(one_S: Array, other_S: Array) -> float:
    """Standard error of the difference of two means, from the seeds' pooled variance."""
    variance = (one_S.var(ddof=1) + other_S.var(ddof=1)) / 2
    return float(np.sqrt(variance * 2 / len(one_S)))


def gain_of(
    one_S: Array, other_S: Array, differences_R: Array, *, num_queries: int, seed: int = 0
) -> Gain:
    """The mean of `one_S` - `other_S`, with an interval over queries and seeds.

    `differences_R` are the differences of the means over the seeds on resampled queries: the spread
    that queries explain. Three seeds cannot be resampled: the mean of three drawn from three has
    2/3 of the variance of a mean of three new ones. Each resample therefore gets the error of new
    seeds, drawn from Student's t with 2 (S - 1) degrees of freedom (the seeds of both settings have
    one variance). With many queries the interval is that of the two-sample t-test of the seeds,
    with equal seeds that of the bootstrap over queries. In between it is a little too wide: what
    differs by query and by seed is in both.
    """
    num_seeds, replicates_R = len(one_S), differences_R
    if num_seeds > 1:
        rng = np.random.default_rng(seed)
        errors_R = rng.standard_t(2 * (num_seeds - 1), size=len(differences_R))
        replicates_R = differences_R + seed_error(one_S, other_S) * errors_R
    low, high = interval(replicates_R) or (None, None)
    mean = float(one_S.mean() - other_S.mean())
    return Gain(mean, low, high, p_value(replicates_R), num_seeds, num_queries)


def gain(
    chosen: FinalResult,
    untuned: FinalResult,
    test: SplitPairs,
    *,
    metric: str,
    draws: Draws = DRAWS,
) -> Gain:
    """The gain of a metric on the test pairs: positive is better, whichever end is better."""
    key = "spearman" if metric == "agreement" else metric
    sign = 1.0 if MODES[metric] == "max" else -1.0
    arms = [
        {f"{arm} {at}": (student, scores) for at, (student, scores) in enumerate(pairs)}
        for arm, pairs in enumerate(
            zip(final.students, final.test_scores, strict=True) for final in (chosen, untuned)
        )
    ]
    students = {name: one for arm in arms for name, one in arm.items()}
    scored = ScoredPairs(
        test.labels_B,
        test.groups_B,
        test.relevant_at,
        scores={name: scores for name, (_, scores) in students.items()},
        thresholds={name: student["threshold"] for name, (student, _) in students.items()},
    )
    found = Measurements(scored, draws=draws, keys=[key])
    one, other = ([found.alone(name) for name in arm] for arm in arms)
    one_S, other_S = (np.array([sign * each.value[key] for each in arm]) for arm in (one, other))
    one_R, other_R = (
        sign * np.mean([each.resampled[key] for each in arm], axis=0) for arm in (one, other)
    )
    return gain_of(one_S, other_S, one_R - other_R, num_queries=scored.num_queries, seed=draws.seed)


def verdict(chosen: str, found: Gain | None, *, metric: str) -> str:
    """One sentence: the gain on unseen queries with its interval, or no gain.

    `found` is None if the untuned settings were chosen.
    """
    if found is None:
        return "No gain: nothing that was searched beats the untuned settings on the dev split."
    if not found.is_known:
        return f"Nothing is known of a gain: the test split has no {shown_name(metric)}."
    text = (
        f"{found.mean:+.4f} {shown_name(metric)} on the test split ({_interval(found, metric)}; "
        f"{_counted(found.num_seeds, 'seed')}, {_counted(found.num_queries, 'query', 'queries')}; "
        "above 0 is better)"
    )
    if found.num_seeds == 1:
        return f"{chosen} has {text}. With one seed nothing is known about the spread of seeds."
    if found.is_significant:
        return f"{chosen} gains {text}."
    return f"No gain that queries and seeds do not explain: {chosen} has {text}."


def _interval(found: Gain, metric: str) -> str:
    if metric in METRICS and not METRICS[metric].has_interval:
        return f"the {shown_name(metric)} has no interval"
    if found.low is None or found.high is None or found.p is None:
        return "too few queries for an interval"
    p = "p < 0.005" if found.p < 0.005 else f"p = {found.p:.2g}"
    return f"95 % interval {found.low:+.4f} to {found.high:+.4f}, {p}"


def _counted(num: int, one: str, many: str | None = None) -> str:
    return f"{num:,} {one if num == 1 else many or one + 's'}"
