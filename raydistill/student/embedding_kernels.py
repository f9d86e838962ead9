"""Embedding rows in training: the distinct rows of a batch, and their gradients (numba).

A batch has N ids of U distinct rows. Time and memory grow with U and N, not with the table.

Shapes: B pairs, G bags a pair, N ids laid flat, U distinct rows, V rows of the table, D embedding,
X columns of the network's input, of which the first G * D are bags.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import compiled

_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
_EPSILON = np.float32(1e-10)  # as torch.optim.Adagrad


@dataclass(frozen=True)
class Lookup:
    """The ids of a batch, as distinct rows of the table.

    `rows_U` int32: the distinct rows. `slots_N` int32: for each id its index in `rows_U`. `offsets`
    int32, length B * G + 1: the start of each bag in `slots_N`.
    """

    rows_U: NDArray[np.int32]
    slots_N: NDArray[np.int32]
    offsets: NDArray[np.int32]


def look_up(ids_N: NDArray[np.int32], offsets: NDArray[np.int64]) -> Lookup:
    """The distinct rows of a batch, in order of first occurrence."""
    rows, slots = distinct(ids_N)
    return Lookup(rows, slots, offsets.astype(np.int32))


@compiled
def distinct(ids_N: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`rows_U` and `slots_N` of a Lookup; an open-addressing hash table, at most half full."""
    bits = 1
    while (1 << bits) < 2 * len(ids_N):
        bits += 1
    mask, shift = (1 << bits) - 1, np.uint64(64 - bits)
    taken = np.full(1 << bits, -1, np.int32)
    rows, slots = np.empty(len(ids_N), np.int32), np.empty(len(ids_N), np.int32)
    num = 0
    for at in range(len(ids_N)):
        row = ids_N[at]
        place = np.int64((np.uint64(row) * _SPREAD) >> shift)
        while taken[place] >= 0 and rows[taken[place]] != row:
            place = (place + 1) & mask
        if taken[place] < 0:
            taken[place] = num
            rows[num] = row
            num += 1
        slots[at] = taken[place]
    return rows[:num].copy(), slots


@compiled
def row_gradients(
    slots_N: NDArray[np.int32],
    offsets: NDArray[np.int32],
    grads_BX: NDArray[np.float32],
    num_bags: int,
    out_UD: NDArray[np.float32],
) -> None:
    """Gradient of each distinct row from the gradients of the bags: the backward of `sum_bags`."""
    width = out_UD.shape[1]
    scaled = np.empty(width, np.float32)
    out_UD[:] = 0
    for bag in range(len(offsets) - 1):
        start, stop = offsets[bag], offsets[bag + 1]
        scale = np.float32(1 / np.sqrt(max(stop - start, 1)))
        first = (bag % num_bags) * width
        for col in range(width):
            scaled[col] = grads_BX[bag // num_bags, first + col] * scale
        for at in range(start, stop):
            out_UD[slots_N[at]] += scaled


@compiled
def add_rows(
    slots_N: NDArray[np.int32], grads_ND: NDArray[np.float32], out_UD: NDArray[np.float32]
) -> None:
    """Add each gradient to that of its row, in the given order."""
    for at in range(len(slots_N)):
        out_UD[slots_N[at]] += grads_ND[at]


@compiled(fastmath={"reassoc"})
def adagrad_rows(
    table_VD: NDArray[np.float32],
    squares_V: NDArray[np.float32],
    rows_U: NDArray[np.int32],
    grads_UD: NDArray[np.float32],
    learning_rate: float,
) -> None:
    """Row-wise Adagrad in place: one sum of mean squared gradients a row, not one a weight.

    Source: the optimizer of Facebook's DLRM tables (Naumov et al. 2019, arXiv 1906.00091).
    """
    width = table_VD.shape[1]
    for at in range(len(rows_U)):
        total = np.float32(0)
        for col in range(width):
            total += grads_UD[at, col] * grads_UD[at, col]
        row = rows_U[at]
        squares_V[row] += total / np.float32(width)
        rate = np.float32(learning_rate) / (np.sqrt(squares_V[row]) + _EPSILON)
        for col in range(width):
            table_VD[row, col] -= rate * grads_UD[at, col]
