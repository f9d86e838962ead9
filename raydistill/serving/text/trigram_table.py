"""The trigrams that a query and a title share: of long texts through a hash table, in linear time.

Short texts in Latin and Greek letters are compared directly, in numbers of 32 bits. The table is
in memory of the caller and filled for each pair: 200 trigrams take 0.7 µs. Its content does not
outlive a pair, so nothing has to follow when the query changes.

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
_21, _LAST = np.uint64(21), np.uint64((1 << 21) - 1)  # of a trigram
_ABSENT = 0  # the slot of all trigrams that the query lacks: a lookup has no branch
_SLOTS_PER_KEY = 4  # with 2 a title takes 20 % more time, with 8 no less
# Characters below 1,024 take 10 of their 21 bits: their trigrams are compared as 32 bits.
_WIDE = np.uint64(sum(0x7FF << (place + 10) for place in (0, 21, 42)))
_11, _22, _10_BITS = np.uint64(11), np.uint64(22), np.uint64(0x3FF)
_NO_GRAM = np.uint32(0xFFFFFFFF)
_STEP = 32  # comparisons that a CPU makes at once, at most


class TrigramTable(NamedTuple):
    """Memory of a hash table with open addressing: slot _ABSENT, then the places of trigrams.

    A chain does not wrap: behind the slots of the hashes there are N more.
    """

    keys_S: NDArray[np.uint64]
    flags: NDArray[np.bool_]  # of the S slots: whether a title has their trigram
    short_query: NDArray[np.uint32]  # trigrams of a direct comparison
    short_title: NDArray[np.uint32]  # `num_short` of them, as `seen`
    seen: NDArray[np.uint32]  # whether the query has a title's trigram


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


@compiled(forceinline=True)
def cover(
    grams_query: NDArray[np.uint64],
    grams_title: NDArray[np.uint64],
    table: TrigramTable,
    covered: NDArray[np.float32],
) -> tuple[float, float]:
    """Fill `covered` of the query's words; return the shares of trigrams found, for both sides."""
    num_q, num_t = len(grams_query), len(grams_title)
    if is_long(num_q, num_t) or not _shorten(grams_query, table.short_query):
        return _cover_by_table(grams_query, grams_title, table, covered)
    _shorten(grams_title, table.short_title)
    return _cover_directly(grams_query, num_t, table, covered)


@compiled(forceinline=True)
def num_short(num_grams: int) -> int:
    """The size of `short_title` for so many trigrams: the next multiple of _STEP."""
    return (num_grams + _STEP - 1) // _STEP * _STEP


@compiled(forceinline=True)
def _shorten(grams_N: NDArray[np.uint64], out_N: NDArray[np.uint32]) -> bool:
    """Write trigrams in 32 bits, _NO_GRAM for one with a character from 1,024 on; whether none is.

    Different trigrams without such characters are different numbers.
    """
    wide = np.uint64(0)
    for at in range(len(grams_N)):
        gram = grams_N[at]
        low = ((gram >> _22) & (_10_BITS << np.uint64(20))) | (gram & _10_BITS)
        low |= (gram >> _11) & (_10_BITS << np.uint64(10))
        out_N[at] = _NO_GRAM if gram & _WIDE else np.uint32(low)
        wide |= gram & _WIDE
    return bool(wide == 0)


@compiled(forceinline=True)
def _cover_directly(
    grams_query: NDArray[np.uint64],
    num_title: int,
    table: TrigramTable,
    covered: NDArray[np.float32],
) -> tuple[float, float]:
    """`cover` of short texts, which `_shorten` has written: the product of the lengths."""
    titles, seen, stop = table.short_title, table.seen, num_short(num_title)
    for t in range(stop):
        seen[t] = 0
    for t in range(num_title, stop):
        titles[t] = _NO_GRAM
    found = of_word = found_of_word = word = 0
    for q in range(len(grams_query)):
        gram, hits = table.short_query[q], np.uint32(0)
        for t in range(stop):
            equal = np.uint32(gram == titles[t])
            seen[t] = np.uint32(seen[t] | equal)
            hits = np.uint32(hits | equal)
        hit = hits != 0
        found += hit
        word, of_word, found_of_word = _count_gram(
            grams_query[q], hit, covered, word, of_word, found_of_word
        )
    found_of_title = np.uint32(0)
    for t in range(num_title):
        found_of_title = np.uint32(found_of_title + seen[t])
    return found / max(len(grams_query), 1), found_of_title / max(num_title, 1)


@compiled(forceinline=True)
def _cover_by_table(
    grams_query: NDArray[np.uint64],
    grams_title: NDArray[np.uint64],
    table: TrigramTable,
    covered: NDArray[np.float32],
) -> tuple[float, float]:
    """`cover` of long texts: linear in the lengths."""
    shift, longest = index_trigrams(grams_query, table.keys_S)
    found_of_title = mark_title(grams_title, len(grams_query), table, shift, longest)
    found = of_word = found_of_word = word = 0
    for q in range(len(grams_query)):
        gram = grams_query[q]
        hit = table.flags[find_slot(gram, table.keys_S, shift, longest)]
        found += hit
        word, of_word, found_of_word = _count_gram(gram, hit, covered, word, of_word, found_of_word)
    return found / max(len(grams_query), 1), found_of_title / max(len(grams_title), 1)


@compiled(forceinline=True)
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
    if (gram >> _21) & _LAST == 32:
        return word, of_word, found_of_word
    of_word, found_of_word = of_word + 1, found_of_word + hit
    if gram & _LAST != 32:
        return word, of_word, found_of_word
    covered[word] = found_of_word / of_word
    return word + 1, 0, 0
