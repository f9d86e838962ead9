import numpy as np
import pytest

from raydistill.evaluation.metrics.pair_metrics import (
    accuracy,
    auc,
    calibration_error,
    log_loss,
    pr_auc,
    rank_correlation,
    ranking,
    ranking_name,
)
from raydistill.evaluation.metrics.query_metrics import ndcg
from raydistill.evaluation.metrics.summary import agree, measure, retention
from raydistill.evaluation.metrics.thresholds import best_threshold

SCORES = np.array([0.9, 0.8, 0.3, 0.1], np.float32)
LABELS = np.array([1.0, 0.5, 0.75, 0.0], np.float32)  # relevant at 0.75: first and third


def test_ndcg_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.5, 0.6, 0.1, 0.2], np.float32)
    labels = np.array([0.0, 0.5, 1.0, 1.0, 1.0, 0.0, 1.0], np.float32)
    groups = np.array([4, 4, 4, 2, 2, 7, 7])  # of the second all labels are equal
    first = (0.5 / np.log2(3) + 1 / 2) / (1 + 0.5 / np.log2(3))
    assert ndcg(scores, labels, groups) == pytest.approx((first + 1) / 2)
    assert ndcg(scores, labels, groups, at=1) == pytest.approx((0 + 1) / 2)
    shuffled = np.random.default_rng(0).permutation(7)
    found = ndcg(scores[shuffled], labels[shuffled], groups[shuffled])
    assert found == pytest.approx((first + 1) / 2)
    assert np.isnan(ndcg(scores[:1], labels[:1], groups[:1]))
    assert np.isnan(ndcg(scores[:0], labels[:0], groups[:0]))


def test_by_hand() -> None:
    found = measure(SCORES, LABELS, relevant_at=0.75, threshold=0.2)
    assert found.auc == pytest.approx(3 / 4)  # of 4 couples, only (0.3, 0.8) is the wrong way round
    assert found.accuracy == pytest.approx(3 / 4)  # the second is predicted relevant and is not
    expected = -(np.log(0.9) + 0.5 * np.log(0.8) + 0.5 * np.log(0.2)
                 + 0.75 * np.log(0.3) + 0.25 * np.log(0.7) + np.log(0.9)) / 4  # fmt: skip
    assert found.log_loss == pytest.approx(expected, rel=1e-5)
    assert found.num_pairs == 4


def test_calibration_error() -> None:
    # Two bins of two: mean gaps (0.85 - 0.75) and (0.2 - 0.375), each for half of the pairs.
    assert calibration_error(SCORES, LABELS, num_bins=2) == pytest.approx(0.1 / 2 + 0.175 / 2)
    assert calibration_error(LABELS, LABELS) == 0


def test_ties_are_half_right() -> None:
    scores = np.array([0.5, 0.5, 0.5, 0.9], np.float32)
    labels = np.array([1.0, 0.0, 0.0, 1.0], np.float32)
    assert auc(scores, labels, relevant_at=0.5) == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)


def test_average_precision_by_hand() -> None:
    # Relevant at 0.75: first of four and third, of which precision is 1 and 2/3.
    assert pr_auc(SCORES, LABELS, relevant_at=0.75) == pytest.approx((1 + 2 / 3) / 2)
    # One threshold for equal scores: both relevant pairs at 2/4.
    assert pr_auc(np.ones(4, np.float32), LABELS, relevant_at=0.75) == 0.5


def test_one_class_has_no_auc() -> None:
    assert np.isnan(pr_auc(SCORES, LABELS, relevant_at=0.0))
    assert np.isnan(auc(SCORES, LABELS, relevant_at=0.0))


def test_logits_that_saturate_have_a_finite_loss() -> None:
    assert np.isfinite(log_loss(np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)))


def test_the_best_threshold_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(200).round(2).astype(np.float32)  # with ties
    labels = (rng.random(200) < scores).astype(np.float32)
    found = best_threshold(scores, labels, relevant_at=0.5)
    accuracies = [np.mean((scores >= t) == (labels >= 0.5)) for t in np.linspace(0, 1.01, 400)]
    assert np.mean((scores >= found) == (labels >= 0.5)) == pytest.approx(max(accuracies))


def test_retention() -> None:
    assert retention(0.6, 0.8) == pytest.approx(0.75)
    assert np.isnan(retention(0.6, 0.0))


def test_rank_correlation_is_of_ranks_and_ties_share_theirs() -> None:
    labels = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    assert rank_correlation(np.exp(labels), labels) == pytest.approx(1)
    assert rank_correlation(-labels, labels) == pytest.approx(-1)
    # Ranks 1.5 1.5 3.5 3.5 against 1 2 3 4: 4 / sqrt(4 x 5).
    tied = np.array([0, 0, 1, 1], np.float32)
    assert rank_correlation(tied, labels) == pytest.approx(4 / np.sqrt(20))
    assert np.isnan(rank_correlation(np.zeros(4, np.float32), labels))
    assert np.isnan(rank_correlation(labels[:1], labels[:1]))


def test_ranking_is_the_auc_or_agreement() -> None:
    scores, labels = np.array([0.1, 0.9, 0.8], np.float32), np.array([0.2, 0.6, 0.7], np.float32)
    assert ranking(scores, labels, relevant_at=0.5) == 1
    assert ranking(scores, labels, relevant_at=None) == pytest.approx(0.5)
    assert (ranking_name(0.5), ranking_name(None)) == ("auc", "agreement")


def test_agreement_with_soft_labels() -> None:
    labels = np.array([0.9, 0.2, 0.6, 0.4], np.float32)
    groups = np.array([0, 0, 1, 1])
    same = agree(labels, labels, groups, threshold=0.5)
    assert (same.agreement, same.ndcg_10, same.same_decision) == (1, 1, 1)
    scores = np.array([0.9, 0.2, 0.3, 0.4], np.float32)  # the second query is the wrong way round
    found = agree(scores, labels, groups, threshold=0.35)
    assert found.same_decision == 0.5
    assert found.agreement == pytest.approx(0.8)  # ranks 4 1 2 3 against 4 1 3 2
    swapped = (0.4 + 0.6 / np.log2(3)) / (0.6 + 0.4 / np.log2(3))
    assert found.ndcg_10 == pytest.approx((1 + swapped) / 2)
    assert set(found.to_dict()) >= {"agreement", "same_decision", "log_loss", "num_pairs"}
    assert not {"auc", "accuracy"} & set(found.to_dict())


def test_the_threshold_of_soft_labels_is_where_the_teachers_decide() -> None:
    labels, scores = np.array([0.9, 0.6, 0.4], np.float32), np.array([0.7, 0.5, 0.1], np.float32)
    assert best_threshold(scores, labels, relevant_at=None) == pytest.approx(0.3)


def test_a_threshold_above_all_scores_is_above_a_score_of_1() -> None:
    """Three of four pairs are not relevant, and the best score is wrong: call none relevant."""
    scores, labels = np.float32([1, 1, 0.5, 0.2]), np.float32([0, 0, 0, 1])
    found = best_threshold(scores, labels, relevant_at=0.5)
    assert accuracy(scores, labels, relevant_at=0.5, threshold=found) == 3 / 4


def test_a_threshold_below_all_scores_is_below_negative_ones() -> None:
    scores, labels = np.float32([-1, -2]), np.float32([1, 1])
    found = best_threshold(scores, labels, relevant_at=0.5)
    assert accuracy(scores, labels, relevant_at=0.5, threshold=found) == 1


@pytest.mark.parametrize("steps", [0, 1])
def test_a_threshold_parts_neighbouring_numbers(steps: int) -> None:
    """The middle of two neighbours is rounded to the even one, here the lower or the higher."""
    low = np.float32(0.7)
    for _ in range(steps):
        low = np.nextafter(low, np.float32(1))
    scores = np.array([np.nextafter(low, np.float32(1)), low])
    found = best_threshold(scores, np.float32([1, 0]), relevant_at=0.5)
    assert ((scores >= found) == [True, False]).all()
