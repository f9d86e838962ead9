import numpy as np
import pytest
from scipy.special import expit

from raydistill.errors import UserError
from raydistill.teachers.soft_labels import soft_labels
from raydistill.teachers.stacking import (
    Calibration,
    FittedStack,
    Stack,
    columns_to_fit,
    fit_calibration,
    fit_stack,
    joined,
)

NUM_PAIRS = 4_000


def made_up(seed: int = 0, num: int = NUM_PAIRS) -> tuple[np.ndarray, np.ndarray]:
    """Two good teachers, and one that knows nothing."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num, 3)).astype(np.float32) * 2
    margins = 0.6 * logits[:, 0] + 0.2 * logits[:, 1] - 0.4
    labels = (rng.random(num) < expit(margins)).astype(np.float32)
    return logits, labels


def soft(stack: FittedStack, logits: np.ndarray) -> np.ndarray:
    weights = list(stack.weights.values())
    return soft_labels(logits, weights_M=weights, bias=stack.bias, temperature=stack.temperature)


def test_weights_bias_and_temperature_are_found_within_their_errors() -> None:
    stack = fit_stack(*made_up(), names=["a", "b", "c"])
    errors = stack.weight_errors
    assert errors is not None and errors["a"] is not None and errors["b"] is not None
    # The coefficients 0.6, 0.2 and -0.4 are w / T and b / T of w = 3/4, 1/4; T = 1.25; b = -0.5.
    assert abs(stack.weights["a"] - 0.75) < 3 * errors["a"] < 0.1
    assert abs(stack.weights["b"] - 0.25) < 3 * errors["b"] < 0.1
    assert abs(stack.temperature - 1.25) < 3 * stack.temperature_error < 0.3
    assert abs(stack.bias + 0.5) < 3 * stack.bias_error < 0.3
    assert sum(stack.weights.values()) == pytest.approx(1)


@pytest.mark.slow
def test_the_standard_errors_are_the_spread_over_samples() -> None:
    found = [fit_stack(*made_up(seed, 500), names=["a", "b", "c"]) for seed in range(40)]
    spread = np.std([stack.temperature for stack in found], ddof=1)
    # 40 samples know a deviation to 1 / sqrt(78) = 11 %.
    assert np.mean([s.temperature_error for s in found]) == pytest.approx(spread, rel=0.35)


def test_graded_labels_without_noise_give_the_teacher_back() -> None:
    logits, _ = made_up()
    labels = expit((logits[:, 0] + 0.5) / 2).astype(np.float32)
    stack = fit_stack(logits, labels, names=["a", "b", "c"])
    assert list(stack.weights.values()) == pytest.approx([1, 0, 0], abs=1e-3)
    assert (stack.bias, stack.temperature) == pytest.approx((0.5, 2), abs=1e-2)


def test_a_useless_teacher_gets_no_weight() -> None:
    stack = fit_stack(*made_up(), names=["a", "b", "c"])
    assert stack.weights["c"] < 0.03


def test_a_teacher_that_is_wrong_gets_none_at_all() -> None:
    logits, labels = made_up()
    logits[:, 2] = -logits[
        :, 0
    ]  # as good as the first, upside down: the fit would want it negative
    logits = logits[:, 1:]
    stack = fit_stack(logits, labels, names=["b", "c"])
    assert stack.weights == {"b": 1.0, "c": 0.0}
    assert stack.weight_errors == {"b": pytest.approx(0, abs=1e-9), "c": None}


def test_a_copy_of_a_teacher_changes_nothing() -> None:
    logits, labels = made_up()
    alone = fit_stack(logits, labels, names=["a", "b", "c"])
    twice = np.column_stack([logits, logits[:, 0]])
    both = fit_stack(twice, labels, names=["a", "b", "c", "copy"])
    assert both.weights["a"] == pytest.approx(both.weights["copy"], abs=1e-4)
    assert both.weights["a"] + both.weights["copy"] == pytest.approx(alone.weights["a"], abs=1e-4)
    assert soft(both, twice) == pytest.approx(soft(alone, logits), abs=1e-4)
    assert both.temperature_error == pytest.approx(alone.temperature_error, rel=1e-2)


def test_one_teacher_is_calibrated() -> None:
    logits, labels = made_up()
    stack = fit_stack(logits[:, :1], labels, names=["a"])
    assert stack.weights == {"a": 1.0}
    assert soft(stack, logits[:, :1]).mean() == pytest.approx(labels.mean(), abs=1e-4)


def test_pairs_of_one_query_count_together() -> None:
    logits, labels = made_up()
    twice, groups = np.repeat(logits, 2, axis=0), np.repeat(np.arange(NUM_PAIRS), 2)
    one = fit_stack(logits, labels, names=["a", "b", "c"])
    same = fit_stack(twice, np.repeat(labels, 2), names=["a", "b", "c"], groups_B=groups)
    assert same.bias_error == pytest.approx(one.bias_error, rel=1e-2)


def test_pairs_without_a_logit_are_left_out() -> None:
    logits, labels = made_up()
    some = np.vstack([logits, [[np.nan, 0, 0]]]).astype(np.float32)
    stack = fit_stack(some, np.append(labels, 1).astype(np.float32), names=["a", "b", "c"])
    assert stack == fit_stack(logits, labels, names=["a", "b", "c"])
    assert stack.num_pairs == NUM_PAIRS


def test_weights_are_not_fitted_on_the_few_pairs_that_all_teachers_score() -> None:
    logits, labels = made_up()
    some = logits.copy()
    some[49:, 2] = np.nan
    few = rf"49 of {NUM_PAIRS:,} .* \(a {NUM_PAIRS:,}, b {NUM_PAIRS:,}, c 49\): too few"
    with pytest.raises(UserError, match=few):
        fit_stack(some, labels, names=["a", "b", "c"])
    some[49, 2] = logits[49, 2]
    assert fit_stack(some, labels, names=["a", "b", "c"]).num_pairs == 50


def test_no_good_teacher_at_all_is_the_users_to_know() -> None:
    logits, labels = made_up()
    with pytest.raises(UserError, match=r"no teacher of a agrees"):
        fit_stack(-logits[:, :1], labels, names=["a"])
    with pytest.raises(UserError, match="no judged dev pair"):
        fit_stack(logits[:0], labels[:0], names=["a", "b", "c"])


def test_the_scale_and_the_bias_of_a_cosine_are_found() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-0.2, 1, NUM_PAIRS).astype(np.float32)
    labels = (rng.random(NUM_PAIRS) < expit(6 * cosines - 2)).astype(np.float32)
    cosines[:10] = np.nan
    found = fit_calibration(cosines, labels, np.arange(NUM_PAIRS))
    assert found.num_pairs == NUM_PAIRS - 10
    assert found.scale == pytest.approx(6, abs=0.5) and found.bias == pytest.approx(-2, abs=0.3)
    logits = found.logits(np.array([0.5, np.nan], np.float32))
    assert logits[0] == pytest.approx(0.5 * found.scale + found.bias) and np.isnan(logits[1])


def test_a_cosine_that_falls_with_the_labels_keeps_the_default_scale() -> None:
    cosines = np.linspace(-1, 1, 200).astype(np.float32)
    for labels in (cosines < 0, cosines > 2):  # falling, and none relevant
        given = labels.astype(np.float32)
        found = fit_calibration(cosines, given, np.arange(200))
        assert found == Calibration()
    assert fit_calibration(cosines * np.nan, given, np.arange(200)) == Calibration()


def test_the_log_names_the_pairs_of_the_calibration(caplog: pytest.LogCaptureFixture) -> None:
    cosines = np.linspace(-1, 1, 200).astype(np.float32)
    labels = (cosines < 0).astype(np.float32)
    fit_calibration(cosines, labels, np.arange(200))
    fit_calibration(cosines * np.nan, labels, np.arange(200))
    first, second = caplog.messages
    assert "they do not rise with the labels of the judged train pairs" in first
    assert "0 of 200 judged train pairs have one, too few" in second


def test_a_partial_teacher_of_too_few_pairs_is_not_fitted() -> None:
    logits = np.zeros((100, 3), np.float32)
    logits[:49, 0], logits[60:, 1] = np.nan, np.nan  # 51 and 60 scored pairs, 11 by both
    assert columns_to_fit(logits, is_partial=[True, True, False]) == [1, 2]
    assert columns_to_fit(logits[:, :2], is_partial=[True, True]) == [1]
    logits[:, 1] = 0
    assert columns_to_fit(logits, is_partial=[True, True, False]) == [0, 1, 2]
    none = np.full_like(logits, np.nan)
    assert columns_to_fit(none[:, :2], is_partial=[True, True]) == [0, 1]
    assert columns_to_fit(none, is_partial=[True, True, False]) == [2]


def test_a_teacher_without_a_fitted_weight_joins_with_the_mean_of_the_others() -> None:
    stack = joined(Stack({"a": 0.75, "b": 0.25}, bias=0.5), ["llm", "a", "b"])  # 0.5 + 1
    assert list(stack.weights) == ["llm", "a", "b"] and stack.bias == 0.5
    assert list(stack.weights.values()) == pytest.approx([1 / 3, 1 / 2, 1 / 6])
