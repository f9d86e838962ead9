import numpy as np

from raydistill.serving.native.int8_layers import (
    forward,
    input_factors,
    int8_layer,
    quantised,
)

F32 = np.float32


def test_the_networks_input_is_rounded_around_64() -> None:
    x_BI = np.array([[0, 1, -1, 0.5], [0, 0, 0, 0]], F32)
    q_BI, steps_B = quantised(x_BI, factors_I=np.array([1, 1, 1, 2], F32))
    # 63 levels a side; 0.5 * 2 is as large as 1. A row of zeros has step 0.
    assert q_BI.tolist() == [[64, 127, 1, 127], [64, 64, 64, 64]]
    assert steps_B.tolist() == [F32(1 / F32(63)), 0]


def test_a_hidden_layers_input_is_rounded_from_0_to_127() -> None:
    q_BI, steps_B = quantised(np.array([[0, 127, 63.4, 63.6]], F32), factors_I=None)
    assert q_BI.tolist() == [[0, 127, 63, 64]] and steps_B.tolist() == [1]


def test_a_layer_of_whole_numbers_is_exact() -> None:
    weights_OI = np.array([[127, -2, 0], [3, 127, -127]], F32)
    biases_O = np.array([0.5, -1], F32)
    layer = int8_layer(weights_OI, biases_O, factors_I=None)
    assert layer.weights_OI.tolist() == weights_OI.tolist() and layer.scales_O.tolist() == [1, 1]
    found = forward(np.array([[127, 1, 5], [0, 127, 0]], F32), layer, factors_I=None)
    # 127 * 127 - 2 + 0.5, 3 * 127 + 127 - 635 - 1 < 0; -254 + 0.5 < 0, 127 * 127 - 1
    assert found.tolist() == [[16_127.5, 0], [0, 16_128]]


def test_factors_change_the_form_and_not_the_sums() -> None:
    weights_OI, factors_I = np.array([[127, 254]], F32), np.array([1, 2], F32)
    layer = int8_layer(weights_OI, np.zeros(1, F32), factors_I=factors_I)
    assert layer.weights_OI.tolist() == [[127, 127]]
    assert layer.starts_O.tolist() == [-64 * 254]
    x_BI = np.array([[63, 31.5], [-63, 31.5]], F32)
    # 63 * 127 + 31.5 * 254; -63 * 127 + 31.5 * 254
    assert forward(x_BI, layer, factors_I=factors_I).tolist() == [[16_002], [0]]


def test_a_column_of_large_inputs_gets_a_small_factor() -> None:
    x_BI = np.array([[4, -1, 0], [-16, 1, 0]], F32)
    weights_OI = np.array([[1, 1, 5], [0.5, -4, 5]], F32)
    assert input_factors(x_BI, weights_OI).tolist() == [0.25, 2, np.sqrt(F32(5))]
    none = input_factors(x_BI, np.zeros((2, 3), F32))
    assert none.tolist() == [0.25, 1, 1]


def test_an_input_that_is_almost_0_in_the_sample_gets_no_large_factor() -> None:
    x_BI = np.array([[1, 0.004], [-1, 0.004]], F32)
    assert input_factors(x_BI, np.ones((1, 2), F32)).tolist() == [1, 1]


def test_numbers_too_small_to_divide_by_count_as_zeros() -> None:
    tiny = np.array([[1e-38, 0]], F32)
    q_BI, _ = quantised(tiny, factors_I=None)
    assert q_BI.tolist() == [[0, 0]]
    layer = int8_layer(np.array([[2.6e-43, 0]], F32), np.ones(1, F32), factors_I=None)
    assert layer.weights_OI.tolist() == [[0, 0]] and layer.scales_O.tolist() == [0]


def test_random_layers_lose_little() -> None:
    rng = np.random.default_rng(0)
    x_BI = (rng.standard_normal((200, 60)) * rng.gamma(1, 2, 60)).astype(F32)
    weights_OI = (rng.standard_normal((16, 60)) / 8).astype(F32)
    exact = np.maximum(x_BI @ weights_OI.T, 0)
    errors = {}
    for name, factors_I in {
        "one": np.ones(60, F32),
        "own": input_factors(x_BI, weights_OI),
    }.items():
        layer = int8_layer(weights_OI, np.zeros(16, F32), factors_I=factors_I)
        errors[name] = np.abs(forward(x_BI, layer, factors_I=factors_I) - exact).mean()
    assert errors["own"] < errors["one"] < 0.1 * exact.mean()
