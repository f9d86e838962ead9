"""Draws, intervals and p-values; their coverage on many made-up shops."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from raydistill.evaluation.metrics.bootstrap import Draws, interval, p_value
from raydistill.evaluation.scoreboard.scoreboard import Measurements, scoreboard
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs


def test_each_resample_draws_as_many_queries_as_there_are() -> None:
    blocks = list(Draws(100, seed=1).counts(40))
    counts = np.concatenate(blocks, axis=1)
    assert (counts[:, :100].sum(axis=0) == 40).all()
    assert (counts[:, 100:] == 0).all()
    assert 0.3 < np.mean(counts[:, :100] == 0) < 0.44  # (1 - 1/40)^40 = 0.363


def test_a_seed_has_its_draws_and_more_resamples_go_on_with_them() -> None:
    first = np.concatenate(list(Draws(70, seed=1).counts(9)), axis=1)[:, :70]
    more = np.concatenate(list(Draws(200, seed=1).counts(9)), axis=1)[:, :70]
    assert (first == more).all()
    assert (first != np.concatenate(list(Draws(70, seed=2).counts(9)), axis=1)[:, :70]).any()


def test_the_interval_is_of_percentiles() -> None:
    assert interval(np.arange(1, 1000.0)) == pytest.approx((25, 975))
    holes = np.arange(1, 1002.0)
    holes[[500, 600]] = np.nan
    assert interval(holes) == pytest.approx((25, 977))
    holes[:60] = np.nan  # 6 %
    assert interval(holes) is None and p_value(holes) is None
    assert interval(np.empty(0)) is None and p_value(np.empty(0)) is None


def test_the_p_value_is_two_sided_and_never_0() -> None:
    assert p_value(np.full(999, 0.5)) == pytest.approx(2 / 1000)
    assert p_value(np.zeros(999)) == 1
    mixed = np.ones(999)
    mixed[:49] = -1
    assert p_value(mixed) == p_value(-mixed) == pytest.approx(2 * 50 / 1000)


Shop = tuple[NDArray[np.float32], NDArray[np.int64], dict[str, NDArray[np.float32]]]
FIGURES: dict[str, Callable[[Measurements], tuple[float, NDArray[np.float64]]]] = {
    "nDCG@10": lambda found: _alone(found, "ndcg_10"),
    "AUC": lambda found: _alone(found, "auc"),
    "PR-AUC": lambda found: _alone(found, "pr_auc"),
    "Spearman": lambda found: _alone(found, "spearman"),
    "retention of nDCG@10": lambda found: _ratio(found, "ndcg_10"),
    "retention of AUC": lambda found: _ratio(found, "auc"),
    "difference in AUC": lambda found: _difference(found, "auc"),
    "difference in AUC per query": lambda found: _difference(found, "query_auc"),
}
KEYS = ("auc", "pr_auc", "spearman", "ndcg_10", "query_auc")


def _alone(found: Measurements, key: str) -> tuple[float, NDArray[np.float64]]:
    one = found.alone("student")
    return one.value[key], one.resampled[key]


def _ratio(found: Measurements, key: str) -> tuple[float, NDArray[np.float64]]:
    one, other = found.both("student", "teacher")
    return one.value[key] / other.value[key], one.resampled[key] / other.resampled[key]


def _difference(found: Measurements, key: str) -> tuple[float, NDArray[np.float64]]:
    one, other = found.both("student", "teacher")
    return one.value[key] - other.value[key], one.resampled[key] - other.resampled[key]


def shop(num_queries: int, *, seed: int) -> Shop:
    """Queries of 2 to 12 pairs, some with many relevant titles, some that all score high."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(num_queries), rng.integers(2, 13, size=num_queries))
    ease, height = rng.normal(size=(2, num_queries))[:, groups]
    signal = rng.normal(size=len(groups)) + ease
    grades = np.digitize(signal + rng.normal(size=len(groups)), [-0.5, 0.5, 1.5]) / 3
    shared = rng.normal(size=len(groups))  # both scorers are wrong alike
    scores = {
        name: 1
        / (1 + np.exp(-signal - 0.7 * height - shared - noise * rng.normal(size=len(groups))))
        for name, noise in (("teacher", 0.5), ("student", 1.0))
    }
    return grades.astype(np.float32), groups, {k: v.astype(np.float32) for k, v in scores.items()}


def measured(data: Shop, *, draws: Draws) -> Measurements:
    labels, groups, scores = data
    scored = ScoredPairs(labels, groups, 0.5, scores)
    return Measurements(scored, compared=[("student", "teacher")], draws=draws, keys=KEYS)


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """95 % +- 2 % of 500 made-up shops of 200 queries; the truth: one of 200,000 queries."""
    big = measured(shop(200_000, seed=10_000), draws=Draws(0))
    truth = {name: figure(big)[0] for name, figure in FIGURES.items()}
    covered = dict.fromkeys(FIGURES, 0)
    for seed in range(500):
        found = measured(shop(200, seed=seed), draws=Draws(320, seed=seed))
        for name, figure in FIGURES.items():
            low, high = interval(figure(found)[1]) or (0.0, 0.0)
            covered[name] += low <= truth[name] <= high
    shares = {name: num / 500 for name, num in covered.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


@pytest.mark.slow
def test_two_scorers_of_equal_quality_rarely_differ() -> None:
    """False alarms at 5 %: two scorers that are the same but for their noise, 300 shops."""
    alarms = 0
    for seed in range(300):
        labels, groups, scores = shop(150, seed=seed)
        rng = np.random.default_rng(seed)
        base = np.log(scores["teacher"] / (1 - scores["teacher"]))
        twins = {
            name: (1 / (1 + np.exp(-base - rng.normal(size=len(base))))).astype(np.float32)
            for name in ("one", "other")
        }
        scored = ScoredPairs(labels, groups, 0.5, twins)
        draws = Draws(320, seed=seed)
        found = Measurements(scored, compared=[("one", "other")], draws=draws, keys=["ndcg_10"])
        one, other = found.both("one", "other")
        p = p_value(one.resampled["ndcg_10"] - other.resampled["ndcg_10"])
        alarms += p is not None and p < 0.05
    assert 0.02 <= alarms / 300 <= 0.08


def test_figures_of_one_query_have_no_interval() -> None:
    labels = np.array([1, 0, 0.5], np.float32)
    scored = ScoredPairs(labels, np.zeros(3, np.int64), 0.5, {"one": labels, "other": labels})
    found = scoreboard(scored, reference="other", compared=[("one", "other")], draws=Draws(20))
    assert found["scorers"]["one"]["metrics"]["auc"] == {"value": 1.0, "low": None, "high": None}
    assert found["differences"][0]["metrics"]["auc"]["p"] is None
