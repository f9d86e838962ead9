"""The student in compiled code: embedding bags and layers, on rows of activations in memory.

A row's sums have one order, whatever the number of rows: a pair alone has the same bits as in a
batch. Shapes: R rows, I inputs and O outputs of a layer, V rows and D columns of the table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.emitted import emitted
from raydistill.serving.native.emit import memory
from raydistill.serving.native.layout import AT, FLOAT16, FLOAT32, LAYER_COLUMNS

Floats = NDArray[np.float32]
ROWS = 16  # pairs that pass the network together
_HALF_SCALE = np.float32(2.0**112)
_DIM, _TABLE_TYPE = AT["dim"], AT["table_type"]
_INPUTS, _OUTPUTS, _WEIGHTS, _BIASES = range(len(LAYER_COLUMNS))


@emitted
def half(bits: np.uint16) -> np.float32:
    """The float32 of the bits of a finite float16: its exponent has 112 less than that of float32.

    By arithmetic, which is exact: not every CPU has an instruction for it.
    """
    wide = np.uint32(bits)
    size = memory.float_of((wide & np.uint32(0x7FFF)) << np.uint32(13)) * _HALF_SCALE
    return np.float32(-size if wide & np.uint32(0x8000) else size)


@emitted
def _scaled(out_D: Floats, count: int) -> None:
    """The sum of a bag divided by the root of the number of its ids, as in `sum_bags`."""
    scale = np.float32(1 / np.sqrt(max(count, 1)))
    for col in range(len(out_D)):
        out_D[col] *= scale


@emitted
def sum_float32(ids: NDArray[np.int32], table_VD: Floats, out_D: Floats) -> None:
    """Write sum / sqrt(count) of the rows of a bag."""
    for col in range(len(out_D)):
        out_D[col] = 0
    for at in range(len(ids)):
        row = table_VD[ids[at]]
        for col in range(len(out_D)):
            out_D[col] += row[col]
    _scaled(out_D, len(ids))


@emitted
def sum_float16(ids: NDArray[np.int32], table_VD: NDArray[np.uint16], out_D: Floats) -> None:
    """The same with a table of float16."""
    for col in range(len(out_D)):
        out_D[col] = 0
    for at in range(len(ids)):
        row = table_VD[ids[at]]
        for col in range(len(out_D)):
            out_D[col] += half(row[col])
    _scaled(out_D, len(ids))


@emitted
def sum_int8(
    ids: NDArray[np.int32], table_VD: NDArray[np.int8], scales_V: Floats, out_D: Floats
) -> None:
    """The same with a table of int8 and a scale for each row."""
    for col in range(len(out_D)):
        out_D[col] = 0
    for at in range(len(ids)):
        row, scale = table_VD[ids[at]], scales_V[ids[at]]
        for col in range(len(out_D)):
            out_D[col] += scale * np.float32(row[col])
    _scaled(out_D, len(ids))


@emitted
def sum_bag(
    ids: NDArray[np.int32],
    table: int,
    scales: int,
    num_rows: int,
    head: NDArray[np.int64],
    out_D: Floats,
) -> None:
    """Write a bag's columns; `table` and `scales` are addresses."""
    if head[_TABLE_TYPE] == FLOAT32:
        sum_float32(ids, memory.matrix_f4(table, num_rows, head[_DIM]), out_D)
    elif head[_TABLE_TYPE] == FLOAT16:
        sum_float16(ids, memory.matrix_u2(table, num_rows, head[_DIM]), out_D)
    else:
        values = memory.matrix_i1(table, num_rows, head[_DIM])
        sum_int8(ids, values, memory.f4(scales, num_rows), out_D)


@emitted(fastmath={"contract"})
def _add_eight(out: Floats, w: Floats, x: Floats, k: int) -> None:
    """Eight inputs at once: `out` is read and written once for them."""
    a0, a1, a2, a3 = x[k], x[k + 1], x[k + 2], x[k + 3]
    a4, a5, a6, a7 = x[k + 4], x[k + 5], x[k + 6], x[k + 7]
    w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
    w4, w5, w6, w7 = w[k + 4], w[k + 5], w[k + 6], w[k + 7]
    for j in range(len(out)):
        first = out[j] + a0 * w0[j] + a1 * w1[j] + a2 * w2[j] + a3 * w3[j]
        out[j] = first + a4 * w4[j] + a5 * w5[j] + a6 * w6[j] + a7 * w7[j]


@emitted(fastmath={"contract"})
def _add_one(out: Floats, row: Floats, value: np.float32) -> None:
    for j in range(len(out)):
        out[j] += value * row[j]


@emitted
def _hidden(x_RI: Floats, weights_IO: Floats, biases: Floats, out_RO: Floats, rows: int) -> None:
    """ReLU(x W + b): eight rows of W stay in the cache while all rows of x pass."""
    inputs, k = weights_IO.shape[0], 0
    for r in range(rows):
        for j in range(len(biases)):
            out_RO[r, j] = biases[j]
    while k + 8 <= inputs:
        for r in range(rows):
            _add_eight(out_RO[r], weights_IO, x_RI[r], k)
        k += 8
    for rest in range(k, inputs):
        for r in range(rows):
            _add_one(out_RO[r], weights_IO[rest], x_RI[r, rest])
    for r in range(rows):
        for j in range(len(biases)):
            out_RO[r, j] = max(out_RO[r, j], np.float32(0))


@emitted(fastmath={"contract", "reassoc"})
def _last(x_I: Floats, weights_I: Floats, bias: np.float32) -> np.float32:
    total = np.float32(0)
    for k in range(len(weights_I)):
        total += x_I[k] * weights_I[k]
    return np.float32(total + bias)


@emitted
def fill_logits(
    model: int,
    layers: NDArray[np.int64],
    source: int,
    first: int,
    second: int,
    rows: int,
    logits: Floats,
) -> None:
    """Logits of the rows at `source`; `first` and `second` have space for activations."""
    target, stop = first, len(layers) - len(LAYER_COLUMNS)
    for at in range(0, stop, len(LAYER_COLUMNS)):
        inputs, outputs = layers[at + _INPUTS], layers[at + _OUTPUTS]
        _hidden(
            memory.matrix_f4(source, ROWS, inputs),
            memory.matrix_f4(model + layers[at + _WEIGHTS], inputs, outputs),
            memory.f4(model + layers[at + _BIASES], outputs),
            memory.matrix_f4(target, ROWS, outputs),
            rows,
        )
        source, target = target, second if target == first else first
    inputs = layers[stop + _INPUTS]
    x = memory.matrix_f4(source, ROWS, inputs)
    weights = memory.f4(model + layers[stop + _WEIGHTS], inputs)
    bias = memory.f4(model + layers[stop + _BIASES], 1)[0]
    for r in range(rows):
        logits[r] = _last(x[r], weights, bias)
