"""Hidden layers in int8: weights with a scale an output, inputs quantised row by row.

Integers up to 127 on both sides: sums of two products fit in int16, so every CPU's instructions
give the same integers (VPMADDUBSW, VPDPBUSD, SDOT). Imports only NumPy.

Shapes: B pairs, I inputs and O outputs of a layer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
LEAST = np.float32(1e-30)  # a row whose largest number is below it counts as zeros
MOST = 127  # of a weight and of a quantised input; these are 0 or more
ZERO = 64  # stands for 0 in the network's own input, which has signs; 0 does in later layers


class Int8Layer(NamedTuple):
    """Output o of a row: relu((sum_i q_i w_oi + start_o) (scale_o step) + bias_o).

    `q_i` and `step` are those of the row, from `quantised`.
    """

    weights_OI: NDArray[np.int8]
    scales_O: Floats
    starts_O: NDArray[np.int32]  # minus what ZERO adds to the sum
    biases_O: Floats


def int8_layer(weights_OI: Floats, biases_O: Floats, *, factors_I: Floats | None) -> Int8Layer:
    """A layer in int8; `factors_I` are those of the network's input, None for a later layer."""
    weights, scales_O = int8_rows(weights_OI if factors_I is None else weights_OI / factors_I)
    zero = 0 if factors_I is None else ZERO
    starts = -zero * weights.sum(axis=1, dtype=np.int32)
    return Int8Layer(weights, scales_O, starts.astype(np.int32), biases_O)


def int8_rows(rows: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Rows in int8, and the scale of each row: its largest absolute value / 127."""
    most = np.abs(rows).max(axis=1, initial=0)
    scales = np.where(most > LEAST, most / np.float32(MOST), 0).astype(np.float32)
    steps = rows / np.where(scales > 0, scales, 1)[:, None]
    return np.rint(steps).astype(np.int8), scales


def quantised(x_BI: Floats, *, factors_I: Floats | None) -> tuple[NDArray[np.uint8], Floats]:
    """A layer's inputs as integers of 0..127, and the step of each row: x f = (q - zero) step."""
    if factors_I is not None:
        x_BI = x_BI * factors_I
    levels, zero = (MOST, 0) if factors_I is None else (MOST - ZERO, ZERO)
    most_B = np.abs(x_BI).max(axis=1, initial=0)
    with np.errstate(divide="ignore", over="ignore"):
        inverse_B = np.where(most_B > LEAST, np.float32(levels) / most_B, 0).astype(np.float32)
    q_BI = (x_BI * inverse_B[:, None] + np.float32(zero + 0.5)).astype(np.uint8)
    return q_BI, most_B / np.float32(levels)


def forward(x_BI: Floats, layer: Int8Layer, *, factors_I: Floats | None) -> Floats:
    """The layer's outputs, shape B, O, with the bits of the native library for these inputs."""
    q_BI, steps_B = quantised(x_BI, factors_I=factors_I)
    # Integers below 2^53: the products of floats are exact.
    sums = q_BI.astype(np.float64) @ layer.weights_OI.T.astype(np.float64) + layer.starts_O
    scales_BO = layer.scales_O * steps_B[:, None]
    return np.maximum(sums.astype(np.float32) * scales_BO + layer.biases_O, 0)


def input_factors(x_BI: Floats, weights_OI: Floats) -> Floats:
    """Factors of the network's inputs that share the error of quantisation with their weights.

    The root of the largest weight over the largest input of a column, as SmoothQuant (arXiv
    2211.10438) with alpha 0.5. An input counts as 1 at least: one that is almost 0 in all of the
    sample may be large elsewhere, and would then leave the other inputs of its row no steps.
    """
    most_x = np.maximum(np.abs(x_BI).max(axis=0, initial=0), 1)
    most_w = np.abs(weights_OI).max(axis=0)
    factors = np.sqrt(np.where(most_w > LEAST, most_w, 1) / most_x)
    return np.asarray(factors, np.float32)
