"""A student's figures on dev: judged labels and soft ones, by hand."""

import numpy as np
import pytest

from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.serving.feature_spec import Features
from raydistill.student.dev_split import BEST, DevSplit, is_better, shown_metric

NO_FEATURES = Features(np.empty(0, np.int32), np.zeros(1, np.int64), np.empty((0, 0), np.float32))
# Two queries; in the first one couple of three is in the wrong order, in the second none.
LABELS = np.float32([1, 0.75, 0, 1, 0])
GROUPS = np.array([7, 7, 7, 3, 3])
LOGITS = np.float32([0.5, 3, -1, 2, -2])


def split(relevant_at: float | None) -> DevSplit:
    return DevSplit(NO_FEATURES, LABELS, GROUPS, relevant_at)


def test_figures_of_judged_labels() -> None:
    found = split(0.8).figures(LOGITS, temperature=1.0, keys=("query_auc", "auc", "accuracy"))
    # Relevant: the first and the fourth pair. Of 6 couples one is wrong: 0.5 below 3; 2 below 3.
    assert found["auc"] == pytest.approx(4 / 6)
    assert found["query_auc"] == pytest.approx((0.5 + 1) / 2)
    assert found["accuracy"] == pytest.approx(4 / 5)  # with the threshold that is best
    assert set(found) == {"auc", "log_loss", "query_auc", "accuracy"}


def test_the_score_has_the_temperature() -> None:
    hot, cold = (split(0.8).figures(LOGITS * t, temperature=1 / t) for t in (1.0, 4.0))
    assert hot["log_loss"] == pytest.approx(cold["log_loss"], abs=1e-6)


def test_figures_of_soft_labels() -> None:
    found = split(None).figures(LOGITS, temperature=1.0, keys=("agreement", "spearman", "ndcg_10"))
    assert found["agreement"] == pytest.approx(found["spearman"])
    assert 0.9 < found["ndcg_10"] < 1  # the first query's best pair is second


def test_a_student_that_diverged_is_worse_than_any() -> None:
    """The order of NaN logits is that of the rows, whose AUC may be 1."""
    logits = LOGITS.copy()
    logits[0] = np.nan
    found = split(0.8).figures(logits, temperature=1.0, keys=("query_auc",))
    assert set(found) == {"auc", "log_loss", "query_auc"} and np.isnan(list(found.values())).all()
    for metric in found:
        assert not is_better(found, {metric: 0.5}, metric=metric)
        assert is_better({metric: 0.5}, found, metric=metric)
        assert is_better(found, found, metric=metric)  # the later weights, where nothing is known


def test_what_is_better() -> None:
    assert is_better({"auc": 0.8}, {"auc": 0.7}, metric="auc")
    assert not is_better({"auc": 0.8}, {"auc": 0.8}, metric="auc")
    assert is_better({"ece": 0.1}, {"ece": 0.2}, metric="ece")
    assert is_better({"ece": 0.1}, {}, metric="ece")  # the first evaluation
    assert set(BEST) == {*METRICS, "agreement"}


def test_the_names_in_lines() -> None:
    assert shown_metric("auc", relevant_at=0.5) == "dev AUC"
    assert shown_metric("ndcg_10", relevant_at=None) == "dev nDCG@10 against the teachers"
    assert shown_metric("agreement", relevant_at=None) == "agreement with the teachers on dev"
