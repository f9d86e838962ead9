"""Embedding bags (numba): each bag of table rows to its sum / sqrt(count).

Shapes: B pairs, G bags per pair, N flat ids, V rows of the table, D embedding size, X columns of
the network's input, of which the first G * D are bags.
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
    """Write sum / sqrt(count) of each bag's rows to `out_BX`, the bags of a pair side by side."""
    width = table_VD.shape[1]
    for bag in range(len(offsets) - 1):
        start, stop = offsets[bag], offsets[bag + 1]
        row = out_BX[bag // num_bags, (bag % num_bags) * width : (bag % num_bags + 1) * width]
        row[:] = 0
        for at in range(start, stop):
            row += table_VD[ids_N[at]]
        row *= np.float32(1 / np.sqrt(max(stop - start, 1)))
