"""Integrated gradients of a ReLU network, exact (Sundararajan et al. 2017, arXiv 1703.01365).

Shapes: X inputs, H outputs of a layer, S points between the baseline and the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Layer = tuple[Floats, Floats]  # weights, shape outputs, inputs; biases. The last has one output.


def logit_of(layers: Sequence[Layer], x_X: Floats) -> float:
    """The network's output for one input."""
    return float(_sums(layers, x_X, np.ones(1))[-1][0, 0])


def mean_gradient(layers: Sequence[Layer], x_X: Floats) -> Floats:
    """The mean gradient of the output on the line from 0 to `x_X`, shape X.

    Along the line the output is linear between the points where the sum of a unit passes 0: the
    gradient is constant there, and the integral is a sum over these pieces, without an error of
    steps. So `x_X @ mean_gradient(layers, x_X)` is the output less that at 0.
    """
    ends_S = _ends(layers, x_X)
    sums = _sums(layers, x_X, (ends_S[1:] + ends_S[:-1]) / 2)
    gradient_SH = np.ones((len(ends_S) - 1, 1))
    for depth in reversed(range(1, len(layers))):
        gradient_SH = (gradient_SH @ layers[depth][0]) * (sums[depth - 1] > 0)
    return np.asarray((np.diff(ends_S) @ gradient_SH) @ layers[0][0])


def _ends(layers: Sequence[Layer], x_X: Floats) -> Floats:
    """0, 1, and the factors of `x_X` between them at which the sum of a hidden unit is 0; rising.

    Between those of the layers before it the sum of a unit is linear: it passes 0 once at most.
    """
    ends_S = np.array([0.0, 1.0])
    for depth in range(len(layers) - 1):
        sums_SH = _sums(layers[: depth + 1], x_X, ends_S)[depth]
        before, after = sums_SH[:-1], sums_SH[1:]
        piece, unit = np.nonzero(before * after < 0)
        share = before[piece, unit] / (before[piece, unit] - after[piece, unit])
        found = ends_S[piece] + share * np.diff(ends_S)[piece]
        ends_S = np.unique(np.concatenate([ends_S, found]))
    return ends_S


def _sums(layers: Sequence[Layer], x_X: Floats, factors_S: Floats) -> list[Floats]:
    """For each layer the sums of its units before the ReLU at factors of `x_X`, shape S, H."""
    (weights, biases), *others = layers
    found = [np.outer(factors_S, weights @ x_X) + biases]
    for weights, biases in others:
        found.append(np.maximum(found[-1], 0) @ weights.T + biases)
    return found
