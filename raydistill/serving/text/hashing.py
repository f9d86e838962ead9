"""The 64-bit hash of pair ids, splits and n-gram ids; it must never change.

FNV-1a over UTF-8 bytes (offset 14695981039346656037, prime 1099511628211), then the 64-bit
finaliser of MurmurHash3, so that each bit of the result can be used alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raydistill.serving.machine_code.compiled import borrowing, compiled
from raydistill.serving.text.arrow_text import Texts, row_blocks, to_texts

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

FNV_OFFSET = np.uint64(14695981039346656037)
FNV_PRIME = np.uint64(1099511628211)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(33)


@compiled(inline="always")
def mix64(value: np.uint64) -> np.uint64:
    """The 64-bit finaliser of MurmurHash3 (public domain, A. Appleby)."""
    value = (value ^ (value >> _SHIFT)) * _MIX_1
    value = (value ^ (value >> _SHIFT)) * _MIX_2
    return value ^ (value >> _SHIFT)


@borrowing
def hash_bytes(data: NDArray[np.uint8], start: int, stop: int) -> np.uint64:
    """The hash of the bytes start..stop, without stop."""
    state = FNV_OFFSET
    for at in range(start, stop):
        state = (state ^ np.uint64(data[at])) * FNV_PRIME
    return mix64(state)


@compiled
def _hash_rows(data: NDArray[np.uint8], offsets: NDArray[np.int32]) -> NDArray[np.uint64]:
    out = np.empty(len(offsets) - 1, np.uint64)
    for row in range(len(out)):
        out[row] = hash_bytes(data, offsets[row], offsets[row + 1])
    return out


def hash_texts(texts: pa.Array | pa.ChunkedArray | Texts) -> NDArray[np.uint64]:
    """64-bit hash of every text; for accepted types and errors see `arrow_text.to_texts`."""
    return np.concatenate([_hash_rows(*block) for block in row_blocks(to_texts(texts))])
