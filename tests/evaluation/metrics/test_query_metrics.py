"""Metrics per query: hand-made cases, all orders of equal scores, and scikit-learn."""

from itertools import permutations, product

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import ndcg_score, roc_auc_score

from raydistill.evaluation.metrics.query_metrics import ndcg
from raydistill.evaluation.metrics.summary import metric_values

KEYS = ("ndcg_5", "ndcg_10", "mrr_10", "precision_1", "precision_5", "query_auc", "pairwise")


def values(
    scores: list[float] | NDArray[np.float32],
    labels: list[float] | NDArray[np.float32],
    groups: list[int] | None = None,
    *,
    relevant_at: float = 0.5,
) -> dict[str, float | None]:
    arrays = (np.array(some, np.float32) for some in (scores, labels))
    groups_B = np.array([0] * len(scores) if groups is None else groups)
    return metric_values(*arrays, groups_B, relevant_at=relevant_at, keys=KEYS)


def test_one_query_by_hand() -> None:
    # In the order of the scores the labels are 0, 1, 0.5, 0, 0, 1.
    found = values([6, 5, 4, 3, 2, 1], [0, 1, 0.5, 0, 0, 1], relevant_at=0.75)
    discounts = 1 / np.log2(np.arange(2, 8))
    best = np.array([1, 1, 0.5]) @ discounts[:3]
    assert found["ndcg_5"] == pytest.approx((discounts[1] + 0.5 * discounts[2]) / best)
    assert found["ndcg_10"] == pytest.approx(
        (discounts[1] + 0.5 * discounts[2] + discounts[5]) / best
    )
    assert found["mrr_10"] == 1 / 2
    assert found["precision_1"] == 0
    assert found["precision_5"] == 1 / 5
    assert found["query_auc"] == 3 / 8  # the second is above three others, the last above none
    # Of the 11 couples of different label the second pair wins 3, the third 2.
    assert found["pairwise"] == pytest.approx(5 / 11)


def test_a_query_of_fewer_pairs_than_k_counts_the_missing_as_not_relevant() -> None:
    assert values([2, 1], [1, 0])["precision_5"] == 1 / 5


def test_rank_11_counts_for_nothing() -> None:
    labels = [0.0] * 10 + [1.0]
    found = values(list(range(11, 0, -1)), labels)
    assert (found["mrr_10"], found["ndcg_10"], found["query_auc"]) == (0, 0, 0)


def test_queries_of_one_kind_are_left_out() -> None:
    first, both = values([2, 1], [0, 1]), values([2, 1, 2, 1, 5], [0, 1, 1, 1, 0], [7, 7, 3, 3, 9])
    assert both == first
    assert set(values([2, 1], [1, 1]).values()) == {None}


def test_queries_of_one_decision_count_where_labels_are_graded() -> None:
    found = values([1, 2], [0.1, 0.2])
    assert (found["ndcg_10"], found["pairwise"]) == (1, 1)
    assert found["query_auc"] is None and found["mrr_10"] is None


def test_pairwise_agreement_is_of_all_couples_and_the_auc_of_queries() -> None:
    # Three couples right in the first query, one couple wrong in the second.
    found = values([4, 3, 2, 1, 1, 2], [1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 1])
    assert found["pairwise"] == 3 / 4
    assert found["query_auc"] == 1 / 2


@pytest.mark.slow
def test_equal_scores_are_the_mean_of_all_orders() -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        scores = rng.integers(3, size=6).astype(np.float32)
        labels = rng.choice(np.array([0, 0.5, 1], np.float32), size=6)
        labels[:2] = 0, 1
        found = values(scores, labels)
        blocks = [np.flatnonzero(scores == score) for score in np.unique(scores)[::-1]]
        orders = product(*(permutations(block) for block in blocks))
        apart = np.arange(6, 0, -1, dtype=np.float32)
        each = [values(apart, labels[np.concatenate(order).astype(np.int64)]) for order in orders]
        for key in KEYS:
            assert found[key] == pytest.approx(np.mean([one[key] for one in each])), key


def test_the_order_of_the_rows_does_not_count() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.random(300).round(1), rng.choice([0, 0.25, 1], size=300)
    groups = rng.integers(30, size=300)
    found = values(scores, labels, groups.tolist())
    for _ in range(3):
        rows = rng.permutation(300)
        again = values(scores[rows], labels[rows], groups[rows].tolist())
        assert again == pytest.approx(found, rel=1e-12)


def test_ndcg_and_auc_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    num, size = 40, 15
    scores = rng.random((num, size)).round(1).astype(np.float32)  # with ties
    labels = rng.choice(np.array([0, 0.25, 0.5, 1], np.float32), size=(num, size))
    groups = np.repeat(np.arange(num), size)
    found = values(scores.ravel(), labels.ravel(), groups.tolist())
    for at in (5, 10):
        theirs = ndcg_score(labels, scores, k=at)
        assert found[f"ndcg_{at}"] == pytest.approx(theirs, abs=1e-9)
        assert ndcg(scores.ravel(), labels.ravel(), groups, at=at) == pytest.approx(theirs)
    aucs = [roc_auc_score(labels[at] >= 0.5, scores[at]) for at in range(num)]
    assert found["query_auc"] == pytest.approx(np.mean(aucs), abs=1e-9)


def test_couples_of_a_long_query_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(3)
    scores, labels = rng.random(200).round(2), rng.random(200).round(1)
    labels_to, labels_from = np.meshgrid(labels, labels)
    scores_to, scores_from = np.meshgrid(scores, scores)
    higher = labels_from > labels_to
    right = (scores_from > scores_to)[higher].sum() + 0.5 * (scores_from == scores_to)[higher].sum()
    assert values(scores, labels)["pairwise"] == pytest.approx(right / higher.sum())
