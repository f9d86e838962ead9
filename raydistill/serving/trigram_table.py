"""The trigrams of a query in a hash table: a title is compared in time linear in its length.

The table is in memory of the caller and filled for each pair: 200 trigrams take 0.7 µs. Its content
does not outlive a pair, so nothing has to follow when the query changes.

Shapes: N trigrams of a query, S slots of their table.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import compiled

_COMPARISONS = 24  # that take about as long as to write or look up a trigram: 2 to 3 ns
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: Knuth's multiplicative hashing
_FREE = np.uint64(0xFFFFFFFFFFFFFFFF)  # a trigram has 63 bits
_ONE, _64 = np.uint64(1), np.uint64(64)
_ABSENT = 0  # the slot of all trigrams that the query lacks: a lookup has no branch
_SLOTS_PER_KEY = 4  # with 2 a title takes 20 % more time, with 8 no less


class TrigramTable(NamedTuple):
    """Memory of a hash table with open addressing: slot _ABSENT, then the places of trigrams.

    A chain does not wrap: behind the slots of the hashes there are N more.
    """

    keys_S: NDArray[np.uint64]
    flags: NDArray[np.bool_]  # of the S slots, or of a title's trigrams: whether a match was found


@compiled(forceinline=True)
def is_long(num_query: int, num_title: int) -> bool:
    """Whether the table is faster than the product of lengths: from 48 x 48, 25 x 600 on."""
    return num_query * num_title > _COMPARISONS * (num_query + num_title)


@compiled(forceinline=True)
def num_slots(num_grams: int) -> int:
    """S, for N trigrams."""
    return _ABSENT + 1 + _num_starts(num_grams) + num_grams


@compiled(forceinline=True)
def _num_starts(num_grams: int) -> int:
    size = 2
    while size < _SLOTS_PER_KEY * num_grams:
        size *= 2
    return size


@compiled(forceinline=True)
def index_trigrams(
    grams_N: NDArray[np.uint64], keys_S: NDArray[np.uint64]
) -> tuple[np.uint64, int]:
    """Fill `keys_S`; return `shift` and `longest`, which a lookup needs.

    The first slot of a trigram is its hash >> shift; the longest chain has `longest` slots.
    """
    shift, longest = _64, 0
    size = _num_starts(len(grams_N))
    for slot in range(_ABSENT + 1 + size + len(grams_N)):
        keys_S[slot] = _FREE
    while size > 1:
        size >>= 1
        shift -= _ONE
    for gram in grams_N:
        start = slot = _first_slot(gram, shift)
        while keys_S[slot] != _FREE and keys_S[slot] != gram:
            slot += 1
        keys_S[slot] = gram
        longest = max(longest, slot - start + 1)
    return shift, longest


@compiled(forceinline=True)
def _first_slot(gram: np.uint64, shift: np.uint64) -> int:
    # The cast to 32 bits tells the compiler that the index is not negative.
    return _ABSENT + 1 + int(np.int64(np.uint32((gram * _FACTOR) >> shift)))


@compiled(forceinline=True)
def find_slot(gram: np.uint64, keys_S: NDArray[np.uint64], shift: np.uint64, longest: int) -> int:
    """The slot of a trigram; _ABSENT if the query lacks it."""
    start, found = _first_slot(gram, shift), _ABSENT
    for slot in range(start, start + longest):
        found = slot if keys_S[slot] == gram else found
    return found


@compiled(forceinline=True)
def mark_title(
    grams_title: NDArray[np.uint64],
    num_grams: int,
    table: TrigramTable,
    shift: np.uint64,
    longest: int,
) -> int:
    """Flag the slots of a title's trigrams; the number of those that the query has."""
    found, flags = 0, table.flags
    flags[: num_slots(num_grams)] = False
    for gram in grams_title:
        slot = find_slot(gram, table.keys_S, shift, longest)
        flags[slot] = True
        found += slot != _ABSENT
    return found
