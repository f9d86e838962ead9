"""Resamples weigh whole queries: as if the rows were repeated, measured by scikit-learn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, log_loss, ndcg_score, roc_auc_score

from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.evaluation.metrics.pair_metrics import auc, pr_auc, rank_correlation
from raydistill.evaluation.metrics.resampling import LabeledPairs, RankedPairs, resample
from raydistill.evaluation.metrics.summary import metric_values

AT = 0.5


def data(
    *, seed: int = 0, decimals: int = 2, num_queries: int = 25
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Scores with ties, graded labels, queries of 3 to 12 pairs."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(num_queries), rng.integers(3, 13, size=num_queries))
    labels = rng.choice(np.array([0, 0.25, 0.5, 1], np.float32), size=len(groups))
    noise = rng.normal(scale=0.3, size=len(groups))
    scores = np.clip((0.3 + 0.3 * labels + noise).round(decimals), 0.01, 0.99)
    return scores.astype(np.float32), labels, groups


def by_scikit_learn(
    scores: NDArray[np.float32], labels: NDArray[np.float32], groups: NDArray[np.int64]
) -> dict[str, float]:
    relevant = labels >= AT
    found = {
        "auc": roc_auc_score(relevant, scores),
        "pr_auc": average_precision_score(relevant, scores),
        "spearman": spearmanr(scores, labels).statistic,
    }
    if set(np.unique(labels)) <= {0.0, 1.0}:
        found["log_loss"] = log_loss(labels, scores.astype(np.float64))
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    graded = [some for some in rows if np.ptp(labels[some]) > 0]
    for at in (5, 10):
        each = [ndcg_score(labels[None, some], scores[None, some], k=at) for some in graded]
        found[f"ndcg_{at}"] = float(np.mean(each))
    both = [some for some in rows if 0 < relevant[some].mean() < 1]
    found["query_auc"] = np.mean([roc_auc_score(relevant[some], scores[some]) for some in both])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("decimals", [1, 2, 7])
@pytest.mark.parametrize("is_binary", [True, False])
def test_values_are_those_of_scikit_learn(decimals: int, is_binary: bool) -> None:
    scores, labels, groups = data(decimals=decimals)
    labels = (labels >= AT).astype(np.float32) if is_binary else labels
    found = metric_values(scores, labels, groups, relevant_at=AT, threshold=0.4)
    for key, theirs in by_scikit_learn(scores, labels, groups).items():
        assert found[key] == pytest.approx(theirs, abs=1e-9), key
    assert found["auc"] == pytest.approx(auc(scores, labels, relevant_at=AT), abs=1e-12)
    assert found["pr_auc"] == pytest.approx(pr_auc(scores, labels, relevant_at=AT), abs=1e-12)
    assert found["spearman"] == pytest.approx(rank_correlation(scores, labels), abs=1e-12)
    assert found["accuracy"] == np.mean((scores >= np.float32(0.4)) == (labels >= AT))


@pytest.mark.slow
@pytest.mark.parametrize("is_soft", [False, True])
def test_a_resample_is_the_pairs_of_the_drawn_queries(is_soft: bool) -> None:
    scores, labels, groups = data(seed=3)
    if is_soft:  # labels without ties, as soft labels are
        labels = np.random.default_rng(0).permutation(len(labels)).astype(np.float32) / len(labels)
    pairs = LabeledPairs(labels, groups, relevant_at=AT)
    ranked = RankedPairs(scores, pairs, threshold=0.4)
    draws = Draws(70, seed=5)  # more than a block of 64
    found = resample([(pairs, {"one": ranked})], num_queries=25, draws=draws)[0]["one"]
    assert {len(values) for values in found.resampled.values()} == {70}
    counts = np.concatenate(list(draws.counts(25)), axis=1)
    for at in (0, 1, 63, 64, 69):
        drawn = np.repeat(np.arange(25), counts[:, at])  # a query drawn twice is two queries
        rows = np.concatenate([np.flatnonzero(groups == query) for query in drawn])
        numbers = np.repeat(np.arange(25), [np.sum(groups == query) for query in drawn])
        theirs = by_scikit_learn(scores[rows], labels[rows], numbers)
        ours = metric_values(scores[rows], labels[rows], numbers, relevant_at=AT, threshold=0.4)
        for key in set(METRICS) - {"ece"}:
            assert found.resampled[key][at] == pytest.approx(ours[key], abs=1e-12), key
            assert ours[key] == pytest.approx(theirs.get(key, ours[key]), abs=1e-9), key


def test_a_part_of_the_queries_is_drawn_as_the_whole() -> None:
    """Pairs of the first ten queries: as if only these had weight, on the same draws."""
    scores, labels, groups = data()
    some = groups < 10
    pairs = LabeledPairs(labels[some], groups[some], relevant_at=AT)
    draws = Draws(5)
    unit = (pairs, {"one": RankedPairs(scores[some], pairs)})
    found = resample([unit], num_queries=25, draws=draws)[0]["one"]
    counts = next(draws.counts(25))[:10, 2]
    rows = np.repeat(np.flatnonzero(some), counts[groups[some]])
    ours = metric_values(scores[rows], labels[rows], groups[rows], relevant_at=AT, keys=["auc"])
    assert found.resampled["auc"][2] == pytest.approx(ours["auc"])


def test_a_resample_without_both_kinds_has_no_auc() -> None:
    pairs = LabeledPairs(np.array([1, 0], np.float32), np.array([0, 1]), relevant_at=AT)
    unit = (pairs, {"one": RankedPairs(np.array([0.9, 0.1], np.float32), pairs)})
    found = resample([unit], num_queries=2, draws=Draws(64))[0]["one"]
    assert set(found.resampled["auc"][np.isfinite(found.resampled["auc"])]) == {1.0}
    assert 0 < np.isnan(found.resampled["auc"]).sum() < 64
    assert np.isfinite(found.resampled["log_loss"]).all()


def test_the_calibration_error_has_no_resamples() -> None:
    """Noise only adds to it: all of them would be above the value of a good scorer."""
    scores, labels, groups = data()
    pairs = LabeledPairs(labels, groups, relevant_at=AT)
    unit = (pairs, {"one": RankedPairs(scores, pairs)})
    found = resample([unit], num_queries=25, draws=Draws(64))[0]["one"]
    assert found.value["ece"] > 0 and np.isnan(found.resampled["ece"]).all()


def test_an_unknown_key_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'aucc'.*'pr_auc'"):
        metric_values(*data(), relevant_at=AT, keys=["aucc"])


def test_metrics_without_a_threshold_or_a_probability() -> None:
    scores, labels, groups = data()
    pairs = LabeledPairs(labels, groups, relevant_at=AT)
    keys = RankedPairs(scores, pairs, is_probability=False).keys
    assert set(METRICS) - set(keys) == {"accuracy", "log_loss", "ece"}
