import numpy as np
import pytest
from numpy.typing import NDArray

from raydistill.config.teachers import TreesConfig
from raydistill.errors import UserError
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.teachers.trees import Trees, fit_trees, split_folds

SETTINGS = TreesConfig(num_leaves=4, max_trees=60, learning_rate=0.3)
Rows = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


def judged(seed: int, *, num: int = 1_200, noise: float = 0.0) -> Rows:
    """Relevant is a pair whose first feature is above 0; 6 pairs a query."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num, 4)).astype(np.float32)
    labels = (features[:, 0] + noise * rng.normal(size=num) > 0).astype(np.float32)
    return features, labels, np.arange(num) // 6


def fitted(rows: Rows, *, settings: TreesConfig = SETTINGS, num_threads: int = 1) -> Trees:
    features, labels, groups = rows
    return fit_trees(features, labels, groups_B=groups, settings=settings, num_threads=num_threads)


def test_what_decides_is_found() -> None:
    features, labels, _ = judged(1)
    logits = fitted(judged(0)).logits(features)
    assert logits.dtype == np.float32 and logits.shape == labels.shape
    assert auc(logits, labels, relevant_at=0.5) > 0.995
    assert logits[labels == 1].mean() > 2 and logits[labels == 0].mean() < -2


def test_graded_labels_come_back_as_log_odds() -> None:
    features, _, groups = judged(0)
    labels = np.where(features[:, 0] > 0, 0.75, 0.25).astype(np.float32)
    logits = fitted((features, labels, groups)).logits(features)
    assert 1 / (1 + np.exp(-logits)) == pytest.approx(labels, abs=0.05)


def test_they_stop_where_the_left_out_queries_say_so() -> None:
    long = TreesConfig(num_leaves=31, max_trees=2_000)
    noisy = fitted(judged(0, noise=2.0), settings=long)
    assert 1 <= noisy.num_trees < 100
    assert len(noisy.models) == 5


@pytest.mark.slow
def test_threads_change_nothing() -> None:
    rows = judged(0, noise=0.5)
    assert fitted(rows, num_threads=1).models == fitted(rows, num_threads=2).models


def test_the_score_is_the_mean_of_the_models() -> None:
    trees, (features, _, _) = fitted(judged(0, noise=0.5)), judged(1)
    each = [Trees((model,)).logits(features) for model in trees.models]
    assert trees.logits(features) == pytest.approx(np.mean(each, axis=0), abs=1e-6)
    assert trees.logits(features[:0]).shape == (0,)


def test_a_query_is_in_one_fold() -> None:
    groups = np.repeat([7, 3, 9, 4, 1], 3)
    folds = split_folds(groups, num_folds=3, seed=0)
    held_out = np.sort(np.concatenate([own for _, own in folds]))
    assert held_out.tolist() == list(range(len(groups)))
    for others, own in folds:
        assert not set(groups[others]) & set(groups[own]) and len(others) + len(own) == len(groups)


def test_labels_that_are_all_the_same_tell_nothing() -> None:
    features, _, groups = judged(0)
    logits = fitted((features, np.ones(len(features), np.float32), groups)).logits(features)
    assert np.isfinite(logits).all() and np.ptp(logits) == 0


def test_few_pairs_are_enough_and_one_query_is_not() -> None:
    features, labels, _ = judged(0)
    few = fitted((features[:4], labels[:4], np.array([0, 0, 1, 1])))
    assert len(few.models) == 2 and np.isfinite(few.logits(features)).all()
    with pytest.raises(UserError, match=r"6 pairs of 1 query; .*trees.enabled = false"):
        fitted((features[:6], labels[:6], np.zeros(6, np.int64)))
