"""The trigrams that a query and a title share, by a hash table of the query's.

A query is indexed once for all its titles. Most trigrams of a title have a hash that the query
lacks: they cost a multiplication and no branch, and the others are compared. The table is in memory
of the caller.

Shapes: N trigrams of a query, M of a title, S slots.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import borrowing

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: Knuth's multiplicative hashing
_LEAST_BITS, _SLOTS_PER_KEY = 9, 4  # 2^9 slots or more: few trigrams of a title share a slot
_64, _21, _LAST = np.uint64(64), np.uint64(21), np.uint64((1 << 21) - 1)  # bits of a character
_BLANK = 32


class TrigramTable(NamedTuple):
    """Memory of a query's chains of different trigrams with one hash, and of a title."""

    firsts_S: NDArray[np.int32]  # by hash: a trigram's index in the query, or -1
    nexts_N: NDArray[np.int32]  # of the first of equal trigrams: another one of its hash, or -1
    sames_N: NDArray[np.int32]  # the first of equal trigrams
    found_N: NDArray[np.bool_]  # of the first of equal trigrams: whether the title has it
    places_M: NDArray[np.int32]  # indices in the title of trigrams whose hash the query has


@borrowing(forceinline=True)
def num_slots(num_grams: int) -> int:
    """S, for N trigrams."""
    size = 1 << _LEAST_BITS
    while size < _SLOTS_PER_KEY * num_grams:
        size *= 2
    return size


@borrowing(forceinline=True)
def _shift(num_grams: int) -> np.uint64:
    """What a hash of 64 bits is shifted by to be a slot."""
    bits = _LEAST_BITS
    while 1 << bits < _SLOTS_PER_KEY * num_grams:
        bits += 1
    return _64 - np.uint64(bits)


@borrowing(forceinline=True)
def _slot(gram: np.uint64, shift: np.uint64) -> int:
    # The cast to 32 bits tells the compiler that the index is not negative.
    return int(np.int64(np.uint32((gram * _FACTOR) >> shift)))


@borrowing(forceinline=True)
def index_query(grams_N: NDArray[np.uint64], table: TrigramTable) -> None:
    """Fill the table's parts that are of a query alone."""
    firsts, nexts, sames, shift = table.firsts_S, table.nexts_N, table.sames_N, _shift(len(grams_N))
    for slot in range(num_slots(len(grams_N))):
        firsts[slot] = -1
    for q in range(len(grams_N)):
        slot = _slot(grams_N[q], shift)
        same = firsts[slot]
        while same >= 0 and grams_N[same] != grams_N[q]:
            same = nexts[same]
        if same < 0:
            nexts[q] = firsts[slot]
            firsts[slot] = same = q
        sames[q] = same


@borrowing(forceinline=True)
def find_trigrams(
    grams_N: NDArray[np.uint64], grams_M: NDArray[np.uint64], table: TrigramTable
) -> int:
    """Fill `found_N` of an indexed query; return the number of a title's trigrams that it has."""
    places, shift = table.places_M, _shift(len(grams_N))
    for q in range(len(grams_N)):
        table.found_N[q] = False
    num_places = num_found = 0
    for at in range(len(grams_M)):
        places[num_places] = at
        num_places += table.firsts_S[_slot(grams_M[at], shift)] >= 0
    for at in range(num_places):
        gram = grams_M[places[at]]
        q = table.firsts_S[_slot(gram, shift)]
        while (grams_N[q] != gram) & (table.nexts_N[q] >= 0):
            q = table.nexts_N[q]
        is_same = grams_N[q] == gram
        table.found_N[q] |= is_same
        num_found += is_same
    return num_found


@borrowing(forceinline=True)
def cover(
    grams_N: NDArray[np.uint64],
    grams_M: NDArray[np.uint64],
    table: TrigramTable,
    covered: NDArray[np.float32],
) -> tuple[float, float]:
    """Fill `covered` of the words of a query that `index_query` has read.

    Returns the shares of trigrams found, for both sides.
    """
    found_of_title = find_trigrams(grams_N, grams_M, table)
    found = of_word = found_of_word = word = 0
    for q in range(len(grams_N)):
        hit = table.found_N[table.sames_N[q]]
        found += hit
        word, of_word, found_of_word = _count_gram(
            grams_N[q], hit, covered, word, of_word, found_of_word
        )
    return found / max(len(grams_N), 1), found_of_title / max(len(grams_M), 1)


@borrowing(forceinline=True)
def _count_gram(
    gram: np.uint64,
    hit: bool,
    covered: NDArray[np.float32],
    word: int,
    of_word: int,
    found_of_word: int,
) -> tuple[int, int, int]:
    """Count a trigram of the query for its word; the next three counts.

    A trigram that ends in a space is the last one of its word. A trigram with a space in the middle
    is between two words and counts for neither.
    """
    if (gram >> _21) & _LAST == _BLANK:
        return word, of_word, found_of_word
    of_word, found_of_word = of_word + 1, found_of_word + hit
    if gram & _LAST != _BLANK:
        return word, of_word, found_of_word
    covered[word] = found_of_word / of_word
    return word + 1, 0, 0
