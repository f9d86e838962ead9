"""Integrated gradients of a ReLU network: exact, and complete."""

from itertools import pairwise

import numpy as np

from raydistill.serving.explanation.integrated_gradients import logit_of, mean_gradient


def test_a_unit_that_starts_half_way_counts_half() -> None:
    # 2 relu(x + y - 1) at (1, 1): 2 a - 1 is positive from a = 1/2, so the mean gradient is 2 / 2.
    layers = [(np.array([[1.0, 1.0]]), np.array([-1.0])), (np.array([[2.0]]), np.array([0.0]))]
    x = np.array([1.0, 1.0])
    assert mean_gradient(layers, x).tolist() == [1.0, 1.0]
    assert logit_of(layers, x) == 2.0 and logit_of(layers, np.zeros(2)) == 0.0


def test_a_unit_of_the_second_layer_that_stops_is_found() -> None:
    # relu(1 - relu(4 x)) at 1: it falls from 1 to 0 at a = 1/4, and stays there.
    one = np.array([[1.0]])
    layers = [(4 * one, np.zeros(1)), (-one, np.ones(1)), (one, np.zeros(1))]
    assert np.isclose(mean_gradient(layers, np.ones(1))[0], -4 / 4)


def test_the_values_add_up_through_four_layers() -> None:
    rng = np.random.default_rng(0)
    sizes = [30, 64, 32, 16, 8, 1]
    layers = [
        (rng.normal(size=(num_out, num_in)), rng.normal(size=num_out))
        for num_in, num_out in pairwise(sizes)
    ]
    for x in rng.normal(size=(20, 30)):
        apart = logit_of(layers, x) - logit_of(layers, np.zeros(30))
        assert np.isclose(x @ mean_gradient(layers, x), apart, atol=1e-9)
