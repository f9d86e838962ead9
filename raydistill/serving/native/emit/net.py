"""The student in compiled code: embedding bags and layers, on rows of activations in memory.

A row's sums have one order, whatever the number of rows: a pair alone has the same bits as in a
batch. Shapes: I inputs of a layer, V rows and D columns of the table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.emitted import emitted
from raydistill.serving.native.emit import memory
from raydistill.serving.native.layout import AT, FLOAT16, FLOAT32, LAYER_COLUMNS, PANEL

Floats = NDArray[np.float32]
ROWS = 16  # pairs that pass the network together
_HALF_SCALE, _13, _16 = np.float32(2.0**112), np.uint32(13), np.uint32(16)
_DIM, _TABLE_TYPE = AT["dim"], AT["table_type"]
_INPUTS, _OUTPUTS, _WEIGHTS, _BIASES = range(len(LAYER_COLUMNS))


@emitted
def half(bits: np.uint16) -> np.float32:
    """The float32 of the bits of a finite float16: its exponent has 112 less than that of float32.

    By arithmetic, which is exact: not every CPU has an instruction for it.
    """
    wide = np.uint32(bits)
    sign, size = (wide & np.uint32(0x8000)) << _16, (wide & np.uint32(0x7FFF)) << _13
    return np.float32(memory.float_of(sign | size) * _HALF_SCALE)


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


@emitted
def _hidden(
    x: int, weights: int, biases: int, out: int, inputs: int, outputs: int, rows: int
) -> None:
    """Write ReLU(x W + b) of some rows; all are addresses. A panel of W is read for all rows."""
    panel_bytes, x_step, out_step = 4 * PANEL * inputs, 4 * inputs, 4 * outputs
    num_panels, many, panel = outputs // PANEL, rows // 4 * 4, 0
    while panel < num_panels:
        # A row alone takes four panels at once: more sums, and four streams of memory.
        step = 4 if many == 0 and panel + 4 <= num_panels else 1
        w, b = weights + panel * panel_bytes, biases + 4 * PANEL * panel
        to = out + 4 * PANEL * panel
        for row in range(0, many, 4):
            memory.tile_4x1(
                *(x + row * x_step, w, b, to + row * out_step),
                *(x_step, panel_bytes, out_step, inputs),
            )
        for row in range(many, rows):
            places = (x + row * x_step, w, b, to + row * out_step)
            if step == 4:
                memory.tile_1x4(*places, x_step, panel_bytes, out_step, inputs)
            else:
                memory.tile_1x1(*places, x_step, panel_bytes, out_step, inputs)
        panel += step


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
        weights, biases = model + layers[at + _WEIGHTS], model + layers[at + _BIASES]
        _hidden(source, weights, biases, target, inputs, outputs, rows)
        source, target = target, second if target == first else first
    inputs = layers[stop + _INPUTS]
    x = memory.matrix_f4(source, ROWS, inputs)
    weights = memory.f4(model + layers[stop + _WEIGHTS], inputs)
    bias = memory.f4(model + layers[stop + _BIASES], 1)[0]
    for r in range(rows):
        logits[r] = _last(x[r], weights, bias)
