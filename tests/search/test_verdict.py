"""The gain of tuned settings by hand, and how often there is a false one."""

import numpy as np
import pytest

from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.search.results import UNTUNED, FinalResult
from raydistill.search.verdict import Gain, SplitPairs, gain, gain_of, seed_error, verdict

NUM_QUERIES = 40
# Each query: two relevant pairs and two others.
LABELS = np.tile(np.float32([1, 1, 0, 0]), NUM_QUERIES)
GROUPS = np.repeat(np.arange(NUM_QUERIES), 4)
TEST = SplitPairs(LABELS, GROUPS, relevant_at=0.5)
RIGHT = np.tile(np.float32([0.9, 0.8, 0.2, 0.1]), NUM_QUERIES)  # AUC per query 1
WRONG = np.tile(np.float32([0.9, 0.1, 0.2, 0.8]), NUM_QUERIES)  # of 4 couples 2 right: 0.5


def final(name: str, *scores: np.ndarray) -> FinalResult:
    students = tuple({"seed": at, "threshold": 0.5} for at in range(len(scores)))
    return FinalResult(name, {}, students, scores)


def test_the_gain_is_the_difference_of_the_means_over_seeds() -> None:
    found = gain(final("b", RIGHT, RIGHT), final(UNTUNED, RIGHT, WRONG), TEST, metric="query_auc")
    assert found.mean == pytest.approx(0.25)  # 1 against the mean of 1 and 0.5
    assert (found.num_seeds, found.num_queries) == (2, 40)
    # Queries do not differ, seeds do: their variances are 0 and 0.125, the error of the difference
    # sqrt(0.0625 x 2 / 2) = 0.25, and Student's t with 2 degrees of freedom 4.30 times as much.
    assert found.low == pytest.approx(0.25 - 4.30 * 0.25, abs=0.15)
    assert found.high == pytest.approx(0.25 + 4.30 * 0.25, abs=0.15)
    assert not found.is_significant


def test_without_queries_of_both_kinds_there_is_no_gain_to_know() -> None:
    alone = SplitPairs(LABELS, np.arange(len(LABELS)), relevant_at=0.5)  # a query a pair
    found = gain(final("b", RIGHT, RIGHT), final(UNTUNED, WRONG, WRONG), alone, metric="query_auc")
    assert not found.is_known and not found.is_significant
    assert verdict("b", found, metric="query_auc").endswith("the test split has no AUC per query.")


def test_less_loss_is_a_gain() -> None:
    better, worse = final("b", RIGHT, RIGHT), final(UNTUNED, WRONG, WRONG)
    for metric in ("log_loss", "accuracy", "agreement"):
        found = gain(better, worse, TEST, metric=metric, draws=Draws(resamples=100))
        assert found.mean > 0 and found.is_significant, metric
        assert found.p == pytest.approx(2 / 101)


def test_queries_that_differ_widen_the_interval() -> None:
    """One query in four is better, the same ones with each seed: seeds explain nothing."""
    some = np.where(GROUPS % 4 == 0, RIGHT, WRONG)
    found = gain(final("b", some, some), final(UNTUNED, WRONG, WRONG), TEST, metric="query_auc")
    assert found.mean == pytest.approx(0.125)
    error = 0.5 * (0.25 * 0.75 / NUM_QUERIES) ** 0.5  # of a mean of 40 draws of 0 or 0.5: 0.034
    assert found.low == pytest.approx(0.125 - 1.96 * error, abs=0.015)
    assert found.high == pytest.approx(0.125 + 1.96 * error, abs=0.015)
    assert found.is_significant


def test_the_error_of_seeds_by_hand() -> None:
    # Variances 1 and 3, pooled 2; of a difference of two means of three 2 x 2 / 3.
    one, other = np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0, 3.0])
    assert seed_error(one, other) == pytest.approx((4 / 3) ** 0.5)


def test_what_the_verdict_says() -> None:
    sure = Gain(0.012, 0.004, 0.02, 0.003, num_seeds=3, num_queries=1_200)
    assert verdict("trial a", sure, metric="ndcg_10") == (
        "trial a gains +0.0120 nDCG@10 on the test split (95 % interval +0.0040 to +0.0200, "
        "p < 0.005; 3 seeds, 1,200 queries; above 0 is better)."
    )
    unsure = Gain(0.012, -0.004, 0.028, 0.14, num_seeds=3, num_queries=1)
    assert verdict("a", unsure, metric="auc").startswith(
        "No gain that queries and seeds do not explain: a has +0.0120 AUC on the test split (95 % "
        "interval -0.0040 to +0.0280, p = 0.14; 3 seeds, 1 query"
    )
    alone = Gain(0.012, 0.004, 0.02, 0.003, num_seeds=1, num_queries=9)
    assert verdict("a", alone, metric="auc").endswith("nothing is known about the spread of seeds.")
    assert not alone.is_significant
    assert verdict(UNTUNED, None, metric="auc").startswith("No gain: nothing")
    none = Gain(0.1, None, None, None, num_seeds=2, num_queries=1)
    assert "too few queries for an interval" in verdict("a", none, metric="agreement")
    assert "the calibration error has no interval" in verdict("a", none, metric="ece")
    assert not none.is_significant


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "seed", "both"),  # standard deviations by query, by seed, and by both together
    [(1.0, 0.0, 0.0), (1.0, 0.0, 0.5), (1.0, 0.12, 0.5), (0.1, 1.0, 0.1)],
)
def test_one_verdict_in_twenty_is_false(query: float, seed: float, both: float) -> None:
    """1,000 searches without a difference, three seeds each: the interval leaves 0 out in 5 %.

    Two standard errors over the differences of three seeds leave it out in 17 % or more: they have
    two degrees of freedom, and say nothing of the queries.
    """
    num_queries, num_seeds, resamples = 100, 3, 500
    rng = np.random.default_rng(0)
    counts_RQ = rng.multinomial(num_queries, np.full(num_queries, 1 / num_queries), resamples)
    alarms = 0
    for at in range(1_000):
        # For each of the two settings, seed and query: the metric.
        figures = (
            query * rng.normal(size=(2, 1, num_queries))
            + seed * rng.normal(size=(2, num_seeds, 1))
            + both * rng.normal(size=(2, num_seeds, num_queries))
        )
        values, means = figures.mean(axis=2), figures.mean(axis=1)
        resampled = counts_RQ @ (means[0] - means[1]) / num_queries
        found = gain_of(values[0], values[1], resampled, num_queries=num_queries, seed=at)
        assert found.low is not None and found.high is not None
        alarms += found.low > 0 or found.high < 0
    assert 0.03 <= alarms / 1_000 <= 0.07
