"""The student in compiled code: embedding bags and layers, on rows of activations in memory.

A row's sums have one order, whatever the number of rows: a pair alone has the same bits as in a
batch. Shapes: I inputs of a layer, V rows and D columns of the table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.lexicon import Lexicon, find_word
from raydistill.serving.machine_code.emitted import emitted
from raydistill.serving.machine_code.prefetch import prefetch
from raydistill.serving.native.emit import memory
from raydistill.serving.native.emit.text.unicode import signed
from raydistill.serving.native.int8_layers import LEAST, MOST, ZERO
from raydistill.serving.native.layout import (
    AT,
    FLOAT16,
    FLOAT32,
    GROUP,
    INT8,
    LAYER_COLUMNS,
    PANEL,
    SECTION,
)

Floats = NDArray[np.float32]
ROWS = 16  # pairs that pass the network together
_HALF_SCALE, _13, _16 = np.float32(2.0**112), np.uint32(13), np.uint32(16)
_SIZE_BITS = np.uint32(0x7FFFFFFF)  # of a float32 without its sign
_DIM, _TABLE_TYPE, _LAYER_TYPE = AT["dim"], AT["table_type"], AT["layer_type"]
_FACTORS, _TABLE, _TABLE_SCALES = (
    SECTION[name] for name in ("input_factors", "table", "table_scales")
)
_USED, _USED_BEFORE = SECTION["used"], SECTION["used_before"]
_INPUTS, _OUTPUTS, _WEIGHTS, _BIASES, _SCALES, _STARTS = range(len(LAYER_COLUMNS))
_LEVELS, _SIGNED_LEVELS = np.float32(MOST), np.float32(MOST - ZERO)
_LEAST_BITS = LEAST.view(np.uint32)
_HALF, _ZERO_AND_HALF = np.float32(0.5), np.float32(ZERO + 0.5)


@emitted
def half(bits: np.uint16) -> np.float32:
    """The float32 of the bits of a finite float16: its exponent has 112 less than that of float32.

    By arithmetic, which is exact: not every CPU has an instruction for it.
    """
    wide = np.uint32(bits)
    sign, size = (wide & np.uint32(0x8000)) << _16, (wide & np.uint32(0x7FFF)) << _13
    return np.float32(memory.float_of(sign | size) * _HALF_SCALE)


@emitted
def scale_bag(out_D: Floats, count: int) -> None:
    """Divide the sum of a bag by the root of the number of its ids, as `sum_bags`."""
    scale = np.float32(1 / np.sqrt(max(count, 1)))
    for col in range(len(out_D)):
        out_D[col] *= scale


@emitted
def add_float32(ids: NDArray[np.int32], table_VD: Floats, out_D: Floats) -> None:
    """Add the rows of ids; an id below 0 has none."""
    for at in range(len(ids)):
        if ids[at] < 0:
            continue
        row = table_VD[ids[at]]
        for col in range(len(out_D)):
            out_D[col] += row[col]


@emitted
def add_float16(ids: NDArray[np.int32], table_VD: NDArray[np.uint16], out_D: Floats) -> None:
    """The same with a table of float16."""
    for at in range(len(ids)):
        if ids[at] < 0:
            continue
        row = table_VD[ids[at]]
        for col in range(len(out_D)):
            out_D[col] += half(row[col])


@emitted
def add_int8(
    ids: NDArray[np.int32], table_VD: NDArray[np.int8], scales_V: Floats, out_D: Floats
) -> None:
    """The same with a table of int8 and a scale for each row, PANEL columns at a time."""
    dim = len(out_D)
    whole = dim // PANEL * PANEL if len(ids) else 0
    for col in range(0, whole, PANEL):
        memory.bag_int8(
            *(memory.address(ids), len(ids), memory.address(table_VD) + col, dim),
            *(memory.address(scales_V), memory.address(out_D) + 4 * col),
        )
    for at in range(len(ids) if whole < dim else 0):
        if ids[at] < 0:
            continue
        row, scale = table_VD[ids[at]], scales_V[ids[at]]
        for col in range(whole, dim):
            out_D[col] += scale * np.float32(row[col])


@emitted
def keep_known(ids: NDArray[np.int32], ends: NDArray[np.int64], lexicon: Lexicon) -> None:
    """Rows of the ids that the vocabulary has, in place, as `featurize._known_rows`."""
    count = start = 0
    for bag in range(len(ends)):
        stop = ends[bag]
        for at in range(start, stop):
            row = find_word(np.uint64(ids[at]), lexicon.ngrams_R, lexicon.ngram_places)
            if row >= 0:
                ids[count] = row
                count += 1
        start, ends[bag] = stop, count


@emitted
def keep_used(ids: NDArray[np.int32], model: int, head: NDArray[np.int64]) -> None:
    """Rows of the table of n-gram ids, in place; -1 for an id that has none."""
    used = memory.u8(model + head[_USED], head[_USED + 1])
    before = memory.u4(model + head[_USED_BEFORE], head[_USED_BEFORE + 1])
    for at in range(len(ids)):
        word, bit = used[ids[at] >> 6], np.uint64(1) << np.uint64(ids[at] & 63)
        row = signed(before[ids[at] >> 6]) + memory.num_bits(word & (bit - np.uint64(1)))
        ids[at] = row if word & bit else -1


@emitted
def warm_rows(ids: NDArray[np.int32], model: int, head: NDArray[np.int64]) -> None:
    """Begin to load the rows of the table and their scales, which are summed later."""
    table, row_bytes = model + head[_TABLE], head[_DIM] * (4 >> head[_TABLE_TYPE])
    is_int8, scales = head[_TABLE_TYPE] == INT8, model + head[_TABLE_SCALES]
    for at in range(len(ids)):
        row = max(ids[at], 0)
        prefetch(table + row * row_bytes)
        if is_int8:
            prefetch(scales + 4 * row)


@emitted
def add_rows(ids: NDArray[np.int32], model: int, head: NDArray[np.int64], out_D: Floats) -> None:
    """Add the columns of ids, which may be a part of a bag."""
    table, num_rows = model + head[_TABLE], head[_TABLE + 1] // head[_DIM]
    if head[_TABLE_TYPE] == FLOAT32:
        add_float32(ids, memory.matrix_f4(table, num_rows, head[_DIM]), out_D)
    elif head[_TABLE_TYPE] == FLOAT16:
        add_float16(ids, memory.matrix_u2(table, num_rows, head[_DIM]), out_D)
    else:
        values = memory.matrix_i1(table, num_rows, head[_DIM])
        add_int8(ids, values, memory.f4(model + head[_TABLE_SCALES], num_rows), out_D)


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


@emitted
def _quantise_input(x_I: Floats, factors_I: Floats, out_I: NDArray[np.uint8]) -> np.float32:
    """Write the network's inputs as integers around ZERO; their step (`int8_layers.quantised`)."""
    bits = np.uint32(0)
    for k in range(len(factors_I)):
        size = np.uint32(memory.bits_of(np.float32(x_I[k] * factors_I[k])) & _SIZE_BITS)
        bits = np.uint32(max(bits, size))  # of 32 bits: numba's `&` has 64, and half the speed
    most = memory.float_of(bits)
    inverse = np.float32(_SIGNED_LEVELS / most) if bits > _LEAST_BITS else np.float32(0)
    for k in range(len(factors_I)):
        value = np.float32(np.float32(x_I[k] * factors_I[k]) * inverse) + _ZERO_AND_HALF
        out_I[k] = np.uint8(np.int32(value))
    return np.float32(most / _SIGNED_LEVELS)


@emitted
def _quantise_hidden(x_I: Floats, out_I: NDArray[np.uint8]) -> np.float32:
    """The same for the outputs of a hidden layer, which are 0 or more."""
    bits = np.uint32(0)
    for k in range(len(x_I)):
        bits = np.uint32(max(bits, np.uint32(memory.bits_of(x_I[k]) & _SIZE_BITS)))
    most = memory.float_of(bits)
    inverse = np.float32(_LEVELS / most) if bits > _LEAST_BITS else np.float32(0)
    for k in range(len(x_I)):
        out_I[k] = np.uint8(np.int32(np.float32(x_I[k] * inverse) + _HALF))
    return np.float32(most / _LEVELS)


@emitted
def _quantise(
    source: int, factors: Floats, inputs: int, rows: int, quants: int, steps: Floats
) -> int:
    """Write the rows of a layer's inputs as bytes to `quants`; the bytes of a row."""
    row_bytes = (inputs + GROUP - 1) // GROUP * GROUP
    for row in range(rows):
        x_I = memory.f4(source + 4 * row * inputs, inputs)
        out_I = memory.u1(quants + row * row_bytes, inputs)
        if len(factors):
            steps[row] = _quantise_input(x_I, factors, out_I)
        else:
            steps[row] = _quantise_hidden(x_I, out_I)
    return row_bytes


@emitted
def _hidden_int8(
    x: int, steps: int, model: int, layer: NDArray[np.int64], out: int, row_bytes: int, rows: int
) -> None:
    """Write the outputs of an int8 layer for some rows, as `_hidden`."""
    outputs, groups = layer[_OUTPUTS], row_bytes // GROUP
    panel_bytes, out_step = PANEL * row_bytes, 4 * outputs
    num_panels, many, panel = outputs // PANEL, rows // 4 * 4, 0
    while panel < num_panels:
        step = 4 if many == 0 and panel + 4 <= num_panels else 1
        w, after = model + layer[_WEIGHTS] + panel * panel_bytes, 4 * PANEL * panel
        starts, scales = model + layer[_STARTS] + after, model + layer[_SCALES] + after
        b, to = model + layer[_BIASES] + after, out + after
        for row in range(0, many, 4):
            memory.int8_tile_4x1(
                *(x + row * row_bytes, steps + 4 * row, w, starts, scales, b),
                *(to + row * out_step, row_bytes, panel_bytes, out_step, groups),
            )
        for row in range(many, rows):
            places = (x + row * row_bytes, steps + 4 * row, w, starts, scales, b)
            sizes = (to + row * out_step, row_bytes, panel_bytes, out_step, groups)
            if step == 4:
                memory.int8_tile_1x4(*places, *sizes)
            else:
                memory.int8_tile_1x1(*places, *sizes)
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
    head: NDArray[np.int64],
    layers: NDArray[np.int64],
    source: int,
    first: int,
    second: int,
    quants: int,
    steps: int,
    rows: int,
    logits: Floats,
) -> None:
    """Logits of the rows at `source`; `first`, `second` and `quants` have space for activations."""
    target, stop = first, len(layers) - len(LAYER_COLUMNS)
    is_int8, num_factors = head[_LAYER_TYPE] == INT8, head[_FACTORS + 1]
    for at in range(0, stop, len(LAYER_COLUMNS)):
        layer = layers[at : at + len(LAYER_COLUMNS)]
        inputs, outputs = layer[_INPUTS], layer[_OUTPUTS]
        if is_int8:
            factors = memory.f4(model + head[_FACTORS], num_factors if at == 0 else 0)
            row_bytes = _quantise(source, factors, inputs, rows, quants, memory.f4(steps, ROWS))
            _hidden_int8(quants, steps, model, layer, target, row_bytes, rows)
        else:
            weights, biases = model + layer[_WEIGHTS], model + layer[_BIASES]
            _hidden(source, weights, biases, target, inputs, outputs, rows)
        source, target = target, second if target == first else first
    inputs = layers[stop + _INPUTS]
    x = memory.matrix_f4(source, ROWS, inputs)
    weights = memory.f4(model + layers[stop + _WEIGHTS], inputs)
    bias = memory.f4(model + layers[stop + _BIASES], 1)[0]
    for r in range(rows):
        logits[r] = _last(x[r], weights, bias)
