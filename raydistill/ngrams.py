"""Text to n-gram ids and match features: one compiled function for training and for serving.

Comes in: UTF-8 bytes and offsets of queries and titles. Goes out: flat ids, bag offsets and a few
dense features a pair. `docs/ngrams.md` is the specification. No Arrow, no torch: a bundle needs
numpy and numba alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from raydistill.hashing import mix64
from raydistill.words import Texts, character_tables, decode, split_words, trigrams

DENSE_NAMES = (
    "query_words_found",
    "title_words_found",
    "query_bigrams_found",
    "query_trigrams_found",
    "title_trigrams_found",
    "all_query_words_found",
    "query_idf_found",
    "title_idf_found",
    "log_query_words",
    "log_title_words",
    "first_match_position",
    "last_query_word_found",
    "query_numbers_found",
    "query_number_missing",
    "longest_run",
    "no_query",
)
_BIGRAM = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
_START, _END = np.uint64(0x5354415254), np.uint64(0x454E44)  # "START", "END"
_MATCHED, _QUERY_ONLY, _TITLE_ONLY = np.uint64(0x4D), np.uint64(0x51), np.uint64(0x54)
_ONE, _64 = np.uint64(1), np.uint64(64)
_BLOCK_ROWS = 8_192  # rows whose ids are laid out at once: some MB


@dataclass(frozen=True)
class NgramSpec:
    """What decides the ids; stored in the bundle."""

    preset: Literal["match", "bert2dnn"]
    hash_bits: int

    @property
    def num_rows(self) -> int:
        """Rows of the embedding table."""
        return 1 << self.hash_bits

    @property
    def num_bags(self) -> int:
        """Bags a pair: the n-grams, and with `match` the words tagged matched or unmatched."""
        return 2 if self.preset == "match" else 1

    @property
    def num_dense(self) -> int:
        """Dense features a pair."""
        return len(DENSE_NAMES) if self.preset == "match" else 0


@dataclass(frozen=True)
class Features:
    """B pairs as the student reads them.

    `ids_N` int32; `offsets` int64 of B * num_bags + 1 (pair r, bag b starts at r * num_bags + b);
    `dense_BF` float32, not yet standardised.
    """

    ids_N: NDArray[np.int32]
    offsets: NDArray[np.int64]
    dense_BF: NDArray[np.float32]

    @property
    def num_pairs(self) -> int:
        """B."""
        return len(self.dense_BF)

    def take(self, rows: NDArray[np.int64]) -> Features:
        """The features of some pairs, in the order given."""
        num_bags = (len(self.offsets) - 1) // max(self.num_pairs, 1)
        bags = (rows[:, None] * num_bags + np.arange(num_bags)).reshape(-1)
        ids, offsets = _take_bags(self.ids_N, self.offsets, bags)
        return Features(ids, offsets, self.dense_BF[rows])


def concatenate(parts: Sequence[Features]) -> Features:
    """The pairs of several Features, one after the other."""
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    ids = np.concatenate([part.ids_N for part in parts])
    return Features(ids, offsets, np.concatenate([part.dense_BF for part in parts]))


def featurize(
    queries: Texts, titles: Texts, *, spec: NgramSpec, idf_V: NDArray[np.float32]
) -> Features:
    """N-gram ids and match features of B pairs; `idf_V` weighs the words of `match`."""
    num_rows = len(queries[1]) - 1
    if len(titles[1]) - 1 != num_rows:
        raise ValueError(f"{num_rows} queries for {len(titles[1]) - 1} titles")
    blocks = [
        _featurize_block(
            queries[0],
            queries[1][at : at + _BLOCK_ROWS + 1],
            titles[0],
            titles[1][at : at + _BLOCK_ROWS + 1],
            *character_tables(),
            spec.preset == "match",
            np.uint64(64 - spec.hash_bits),
            idf_V,
        )
        for at in range(0, max(num_rows, 1), _BLOCK_ROWS)
    ]
    counts = np.concatenate([counts for _, counts, _ in blocks])
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    dense = np.concatenate([dense for _, _, dense in blocks])
    ids = np.concatenate([ids for ids, _, _ in blocks])
    return Features(ids, offsets, dense[:, : spec.num_dense])


def document_counts(titles: Texts, *, spec: NgramSpec) -> NDArray[np.int64]:
    """For each row of the embedding table, the titles that hold a word of that row; shape V."""
    tables = character_tables()
    return np.asarray(
        _document_counts(*titles, *tables, spec.preset == "match", np.uint64(64 - spec.hash_bits))
    )


def idf(counts_V: NDArray[np.int64], *, num_documents: int) -> NDArray[np.float32]:
    """Inverse document frequency ln((N + 1) / (df + 1)); a word never seen has the largest."""
    return np.log((num_documents + 1) / (counts_V + 1)).astype(np.float32)


@njit(cache=True, nogil=True)
def _bigram(left: np.uint64, right: np.uint64) -> np.uint64:
    return mix64(left * _BIGRAM + right)


@njit(cache=True, nogil=True)
def _add_ngrams(
    words: NDArray[np.uint64], num: int, shift: np.uint64, ids: NDArray[np.int32], at: int
) -> int:
    """N words as 2n + 1 ids: each word, and each neighbouring two with start and end marks."""
    before = _START
    for word in range(num):
        ids[at] = words[word] >> shift
        ids[at + 1] = _bigram(before, words[word]) >> shift
        before = words[word]
        at += 2
    ids[at] = _bigram(before, _END) >> shift
    return at + 1


@njit(cache=True, nogil=True)
def _trigram_shares(
    query: NDArray[np.uint64], num_q: int, title: NDArray[np.uint64], num_t: int
) -> tuple[float, float]:
    """Shares of the query's trigrams found in the title, and of the title's in the query."""
    seen = np.zeros(num_t, np.bool_)
    found = 0
    for q in range(num_q):
        hit = False
        for t in range(num_t):
            equal = query[q] == title[t]
            seen[t] |= equal
            hit |= equal
        found += hit
    return found / max(num_q, 1), seen.sum() / max(num_t, 1)


@njit(cache=True, nogil=True)
def _match_words(
    query: NDArray[np.uint64], num_q: int, title: NDArray[np.uint64], num_t: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each word of one side, its first place on the other, or -1; both ways."""
    of_query = np.full(num_q, -1, np.int32)
    of_title = np.full(num_t, -1, np.int32)
    for q in range(num_q):
        for t in range(num_t):
            if query[q] == title[t]:
                if of_query[q] < 0:
                    of_query[q] = t
                if of_title[t] < 0:
                    of_title[t] = q
    return of_query, of_title


@njit(cache=True, nogil=True)
def _word_features(
    query: NDArray[np.uint64],
    title: NDArray[np.uint64],
    numeric: NDArray[np.bool_],
    of_query: NDArray[np.int32],
    of_title: NDArray[np.int32],
    shift: np.uint64,
    idf_V: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """The dense features that go by words, in the order of DENSE_NAMES."""
    num_q, num_t = len(of_query), len(of_title)
    found, bigrams, run, longest, first = 0, 0, 0, 0, num_t
    numbers, numbers_found = 0, 0
    idf_all, idf_found = np.float32(0), np.float32(0)
    for q in range(num_q):
        place = of_query[q]
        weight = idf_V[query[q] >> shift]
        idf_all += weight
        if numeric[q]:
            numbers += 1
            numbers_found += place >= 0
        if place < 0:
            run = 0
            continue
        found += 1
        idf_found += weight
        first = min(first, place)
        follows = q > 0 and place > 0 and title[place - 1] == query[q - 1]
        bigrams += follows
        run = run + 1 if follows else 1
        longest = max(longest, run)
    title_found = 0
    title_idf, title_idf_found = np.float32(0), np.float32(0)
    for t in range(num_t):
        weight = idf_V[title[t] >> shift]
        title_idf += weight
        if of_title[t] >= 0:
            title_found += 1
            title_idf_found += weight
    out[0] = found / max(num_q, 1)
    out[1] = title_found / max(num_t, 1)
    out[2] = bigrams / max(num_q - 1, 1)
    out[5] = num_q > 0 and found == num_q
    out[6] = idf_found / idf_all if idf_all > 0 else 0.0
    out[7] = title_idf_found / title_idf if title_idf > 0 else 0.0
    out[8] = np.log1p(num_q)
    out[9] = np.log1p(num_t)
    out[10] = first / max(num_t, 1)
    out[11] = num_q > 0 and of_query[num_q - 1] >= 0
    out[12] = numbers_found / numbers if numbers else 1.0
    out[13] = numbers_found < numbers
    out[14] = longest / max(num_q, 1)
    out[15] = num_q == 0


@njit(cache=True, nogil=True)
def _add_tagged(
    query: NDArray[np.uint64],
    title: NDArray[np.uint64],
    of_query: NDArray[np.int32],
    of_title: NDArray[np.int32],
    shift: np.uint64,
    ids: NDArray[np.int32],
    at: int,
) -> int:
    """Ids of matched words, of query words that are missing, and of title words not asked for."""
    for q in range(len(of_query)):
        tag = _MATCHED if of_query[q] >= 0 else _QUERY_ONLY
        ids[at] = mix64(query[q] + tag) >> shift
        at += 1
    for t in range(len(of_title)):
        if of_title[t] < 0:
            ids[at] = mix64(title[t] + _TITLE_ONLY) >> shift
            at += 1
    return at


@njit(cache=True, nogil=True)
def _longest(offsets: NDArray[np.int32]) -> int:
    most = 0
    for row in range(len(offsets) - 1):
        most = max(most, offsets[row + 1] - offsets[row])
    return most


@njit(cache=True, nogil=True)
def _featurize_block(
    query_data: NDArray[np.uint8],
    query_offsets: NDArray[np.int32],
    title_data: NDArray[np.uint8],
    title_offsets: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    lower: NDArray[np.uint32],
    match: bool,
    shift: np.uint64,
    idf_V: NDArray[np.float32],
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]:
    """Ids laid flat, ids of each bag, dense features of the rows between the offsets."""
    rows, bags = len(query_offsets) - 1, 2 if match else 1
    most = max(_longest(query_offsets), _longest(title_offsets)) + 1
    points_q, points_t = np.empty(most, np.uint32), np.empty(most, np.uint32)
    words_q, words_t = np.empty(most, np.uint64), np.empty(most, np.uint64)
    numeric_q, numeric_t = np.empty(most, np.bool_), np.empty(most, np.bool_)
    grams_q, grams_t = np.empty(most + 2, np.uint64), np.empty(most + 2, np.uint64)
    num_bytes = int(query_offsets[-1] - query_offsets[0] + title_offsets[-1] - title_offsets[0])
    # A word takes at least one byte and most a separator: at most 2n + 1 ids, and n more tagged.
    ids = np.empty((3 if match else 2) * num_bytes + 2 * rows, np.int32)
    counts = np.empty(rows * bags, np.int64)
    dense = np.zeros((rows, 16), np.float32)
    at = 0
    for row in range(rows):
        len_q = decode(query_data, query_offsets[row], query_offsets[row + 1], lower, points_q)
        len_t = decode(title_data, title_offsets[row], title_offsets[row + 1], lower, points_t)
        num_q = split_words(points_q, len_q, kinds, match, words_q, numeric_q)
        num_t = split_words(points_t, len_t, kinds, match, words_t, numeric_t)
        begin = at
        if num_q:  # single texts have no query: nothing marks its absence
            at = _add_ngrams(words_q, num_q, shift, ids, at)
        at = _add_ngrams(words_t, num_t, shift, ids, at)
        counts[row * bags] = at - begin
        if match:
            begin = at
            of_query, of_title = _match_words(words_q, num_q, words_t, num_t)
            at = _add_tagged(words_q, words_t, of_query, of_title, shift, ids, at)
            counts[row * bags + 1] = at - begin
            _word_features(
                words_q, words_t, numeric_q, of_query, of_title, shift, idf_V, dense[row]
            )
            grams_of_q = trigrams(points_q, len_q, kinds, grams_q)
            grams_of_t = trigrams(points_t, len_t, kinds, grams_t)
            dense[row, 3], dense[row, 4] = _trigram_shares(grams_q, grams_of_q, grams_t, grams_of_t)
    return ids[:at].copy(), counts, dense


@njit(cache=True, nogil=True)
def _take_bags(
    ids_N: NDArray[np.int32],
    offsets: NDArray[np.int64],
    bags: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    taken = np.zeros(len(bags) + 1, np.int64)
    for at in range(len(bags)):
        taken[at + 1] = taken[at] + offsets[bags[at] + 1] - offsets[bags[at]]
    out = np.empty(taken[-1], np.int32)
    for at in range(len(bags)):
        out[taken[at] : taken[at + 1]] = ids_N[offsets[bags[at]] : offsets[bags[at] + 1]]
    return out, taken


@njit(cache=True, nogil=True)
def _document_counts(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    lower: NDArray[np.uint32],
    fine: bool,
    shift: np.uint64,
) -> NDArray[np.int64]:
    most = _longest(offsets) + 1
    points, words = np.empty(most, np.uint32), np.empty(most, np.uint64)
    numeric = np.empty(most, np.bool_)
    counts = np.zeros(_ONE << (_64 - shift), np.int64)
    last = np.full(len(counts), -1, np.int64)  # the title that a row was last counted for
    for row in range(len(offsets) - 1):
        num = decode(data, offsets[row], offsets[row + 1], lower, points)
        for word in range(split_words(points, num, kinds, fine, words, numeric)):
            at = words[word] >> shift
            if last[at] != row:
                last[at] = row
                counts[at] += 1
    return counts
