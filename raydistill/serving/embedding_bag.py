"""Bags of rows of the embedding table to their sums (numba).

Shapes: B pairs, G bags a pair, N ids laid flat, V rows of the table, D embedding, X columns of the
network's input, of which the first G * D are bags.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import compiled


@compiled
def sum_bags(
    ids_N: NDArray[np.int32],
    offsets: NDArray[np.integer],
    table_VD: NDArray[np.float32],
    num_bags: int,
    out_BX: NDArray[np.float32],
) -> None:
    """Sum of each bag's rows / sqrt(count), the bags of a pair side by side in `out_BX`."""
    width = table_VD.shape[1]
    for bag in range(len(offsets) - 1):
        start, stop = offsets[bag], offsets[bag + 1]
        row = out_BX[bag // num_bags, (bag % num_bags) * width : (bag % num_bags + 1) * width]
        row[:] = 0
        for at in range(start, stop):
            row += table_VD[ids_N[at]]
        row *= np.float32(1 / np.sqrt(max(stop - start, 1)))
