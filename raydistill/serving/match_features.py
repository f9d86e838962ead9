"""Match features: what a query and a title have in common, as a few dozen numbers per pair (numba).

Input: hashes of words, trigrams, and the lexicon. Output: one row of DENSE_NAMES, and the mean word
vectors of both sides. The specification is `docs/features.md`.

Shapes: Q words of a query, T words of a title, K known words, E columns of their vectors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.lexicon import Lexicon, find_word
from raydistill.serving.machine_code.compiled import borrowing, compiled
from raydistill.serving.machine_code.prefetch import prefetch_item
from raydistill.serving.text.trigram_table import TrigramTable, cover
from raydistill.serving.tokenizer import word_hash

# Per query word, a number in 0..1: how much of the word is in the title.
_KINDS = ("found", "part_found", "near")  # the word itself; its trigrams; the nearest title word
_SUMMARIES = ("mean", "idf", "least", "last", "missing")
DENSE_NAMES = (
    *(f"query_{kind}_{summary}" for kind in _KINDS for summary in _SUMMARIES),
    *("title_found", "title_found_idf", "title_near", "title_near_idf"),
    *("query_trigrams_found", "title_trigrams_found", "bm25", "cosine"),
    *("rarest_missing", "rarest_unlike", "rarest", "query_idf"),
    *("log_query_words", "log_title_words", "query_bigrams_found", "longest_run"),
    *("first_match_position", "all_query_words_found", "no_query", "query_unknown"),
    *("query_numbers", "query_numbers_found", "query_number_missing", "title_numbers"),
    *("head_near", "head_last_near", "last_before_head"),
)
NUM_DENSE = len(DENSE_NAMES)
_32 = np.uint64(32)
_AT_TITLE = len(_KINDS) * len(_SUMMARIES)
# The word before one of these is the head of the title (what the product is); the words after it
# tell what it has, is for, or looks like. English, German, Dutch, French, Spanish; words are folded
# and have no accents: für is fur.
HEAD_ENDS = (
    *("with", "without", "for", "in", "mit", "ohne", "fur", "met", "zonder", "voor"),
    *("avec", "sans", "pour", "con", "sin", "para"),
)
_HEAD_ENDS = np.array([word_hash(word) for word in HEAD_ENDS])
# After these `in` is inches or part of an expression: 8 sq in, drop-in, made in Spain.
NO_ENDS = (
    *("sq", "cu", "all", "built", "clip", "drop", "fill", "lace", "made", "plug", "push", "roll"),
    *("screw", "slide", "slip", "snap", "step", "tie", "walk"),
)
# After these `fur` is the English noun.
NO_FOR = ("faux", "fake", "real", "soft", "cat", "dog", "pet", "fox", "mink", "rabbit")
_NO_ENDS, _IN = np.array([word_hash(word) for word in NO_ENDS]), word_hash("in")
_NO_FOR, _FUR = np.array([word_hash(word) for word in NO_FOR]), word_hash("fur")
# Robertson et al. 1994 (Okapi at TREC-3); the mean title is assumed to have 12 words.
_K1, _B, _MEAN_WORDS = 1.2, 0.75, 12.0
_LOGS = np.array([math.log1p(num) for num in range(64)])  # the C function takes 10 ns


class TextWords(NamedTuple):
    """The words of a query or a title, with values per word."""

    words: NDArray[np.uint64]  # hashes
    numeric: NDArray[np.bool_]  # whether the word has a digit
    match: NDArray[np.int32]  # first index of the word on the other side, or -1
    found: NDArray[np.float32]  # 1 if the word is on the other side, else 0
    times: NDArray[np.int32]  # occurrences on the other side; query only
    known: NDArray[np.int32]  # index among the K known words, or -1
    listed: NDArray[np.int32]  # the places in the text of words that are known
    weight: NDArray[np.float32]  # IDF
    covered: NDArray[np.float32]  # share of the word's trigrams on the other side; query only
    near: NDArray[np.float32]  # cosine with the nearest word of the other side


@compiled(forceinline=True)
def allocate_words(num: int) -> TextWords:
    """Uninitialised arrays for `num` words."""
    return TextWords(
        np.empty(num, np.uint64),
        np.empty(num, np.bool_),
        np.empty(num, np.int32),
        np.empty(num, np.float32),
        np.empty(num, np.int32),
        np.empty(num, np.int32),
        np.empty(num, np.int32),
        np.empty(num, np.float32),
        np.empty(num, np.float32),
        np.empty(num, np.float32),
    )


@compiled(forceinline=True)
def slice_words(scratch: TextWords, num: int, num_listed: int) -> TextWords:
    """The first `num` words of `scratch`, `num_listed` of them known."""
    return TextWords(
        scratch.words[:num],
        scratch.numeric[:num],
        scratch.match[:num],
        scratch.found[:num],
        scratch.times[:num],
        scratch.known[:num],
        scratch.listed[:num_listed],
        scratch.weight[:num],
        scratch.covered[:num],
        scratch.near[:num],
    )


@borrowing(forceinline=True)
def match_words(query: TextWords, title: TextWords) -> None:
    """Fill `match` and `found` of both sides and `times` of the query."""
    for t in range(len(title.words)):
        title.match[t], title.found[t] = -1, 0
    for q in range(len(query.words)):
        query.match[q], query.found[q], query.times[q] = -1, 0, 0
        for t in range(len(title.words)):
            if query.words[q] == title.words[t]:
                query.times[q] += 1
                query.found[q] = title.found[t] = 1
                if query.match[q] < 0:
                    query.match[q] = t
                if title.match[t] < 0:
                    title.match[t] = q


@borrowing(forceinline=True)
def _idf_place(word: np.uint64, num: int) -> int:
    """The index of a word's IDF among `num`, a power of 2 of at most 32 bits: its highest bits."""
    return int(np.int64(((word >> _32) * np.uint64(num)) >> _32))


@borrowing(forceinline=True)
def weigh_words(words: TextWords, idf_I: NDArray[np.float32]) -> None:
    """Fill `weight`."""
    for at in range(len(words.words)):
        words.weight[at] = idf_I[_idf_place(words.words[at], len(idf_I))]


@borrowing(forceinline=True)
def look_up_words(words: TextWords, num: int, lexicon: Lexicon) -> int:
    """Fill `known` and `listed` of the first `num` words; return the number of those listed.

    Their IDF comes from memory until `weigh_words`.
    """
    num_idf, mask = len(lexicon.idf_I), len(lexicon.places) - 1
    # Each loop reads from memory for all words at once: no word waits for the branches of another.
    for at in range(num):
        prefetch_item(lexicon.idf_I, _idf_place(words.words[at], num_idf))
        words.known[at] = lexicon.places[np.int64(words.words[at]) & mask]
    if len(lexicon.words_K) == 0:
        return 0
    for at in range(num):
        place = words.known[at]
        is_other = lexicon.words_K[max(place, 0)] != words.words[at]
        words.match[at] = is_other & (place >= 0)  # `match_words` writes over it
    for at in range(num):
        if words.match[at]:  # another word has the first place
            words.known[at] = find_word(words.words[at], lexicon.words_K, lexicon.places)
    num_listed = 0
    for at in range(num):
        words.listed[num_listed] = at
        num_listed += words.known[at] >= 0
    return num_listed


@borrowing(fastmath={"reassoc", "contract"}, forceinline=True)
def _dot(one_E: NDArray[np.float32], other_E: NDArray[np.float32]) -> np.float32:
    """The cosine of two vectors of length 1."""
    total = np.float32(0)
    for col in range(len(one_E)):
        total += one_E[col] * other_E[col]
    return np.float32(total)


@borrowing(forceinline=True)
def _find_near(query: TextWords, title: TextWords, vectors_KE: NDArray[np.float32]) -> None:
    """Fill `near`: 1 for a word that the other side has, else the highest cosine, at least 0."""
    for t in range(len(title.words)):
        title.near[t] = title.match[t] >= 0
    for q in range(len(query.words)):
        query.near[q] = query.match[q] >= 0
    for q in query.listed:
        vector = vectors_KE[query.known[q]]
        for t in title.listed:
            if query.near[q] == 1 and title.near[t] == 1:
                continue
            cosine = _dot(vector, vectors_KE[title.known[t]])
            query.near[q] = max(query.near[q], cosine)
            title.near[t] = max(title.near[t], cosine)


@borrowing(forceinline=True)
def _mean_and_weighted(
    values: NDArray[np.float32], weight: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    total = weighted = all_weight = np.float32(0)
    for at in range(len(values)):
        total += values[at]
        weighted += weight[at] * values[at]
        all_weight += weight[at]
    out[0] = total / max(len(values), 1)
    out[1] = weighted / all_weight if all_weight > 0 else 0.0


@borrowing(forceinline=True)
def _summarise(values: NDArray[np.float32], query: TextWords, out: NDArray[np.float32]) -> None:
    """Write mean, IDF-weighted mean, minimum, value of the last word, and mean of missing words."""
    _mean_and_weighted(values, query.weight, out)
    least, missing, num_missing = np.float32(1), np.float32(0), 0
    for q in range(len(values)):
        least = min(least, values[q])
        if query.match[q] < 0:
            missing += values[q]
            num_missing += 1
    out[2] = least if len(values) else 0.0
    out[3] = values[len(values) - 1] if len(values) else 0.0
    out[4] = missing / num_missing if num_missing else 1.0


@borrowing(forceinline=True)
def _rarity(query: TextWords, num_title_words: int, out: NDArray[np.float32]) -> float:
    """Write the highest IDF of missing, of dissimilar and of all words, and the sum; return BM25.

    The IDF of dissimilar words is weighted by the share of their trigrams that the title lacks.
    """
    score, norm = 0.0, _K1 * (1 - _B + _B * num_title_words / _MEAN_WORDS)
    out[:] = 0
    for q in range(len(query.words)):
        weight, times = query.weight[q], query.times[q]
        score += weight * times * (_K1 + 1) / (times + norm)
        if times == 0:
            out[0] = max(out[0], weight)
        out[1] = max(out[1], weight * (1 - query.covered[q]))
        out[2] = max(out[2], weight)
        out[3] += weight
    return score


@borrowing(forceinline=True)
def _log1p(num: int) -> float:
    return float(_LOGS[num]) if num < len(_LOGS) else float(np.log1p(num))


@borrowing(forceinline=True)
def _order(query: TextWords, title: TextWords, out: NDArray[np.float32]) -> None:
    """Write the features of the number and order of words: log_query_words to query_unknown."""
    num_q, num_t = len(query.words), len(title.words)
    found, bigrams, run, longest, first, unknown = 0, 0, 0, 0, num_t, 0
    for q in range(num_q):
        place = query.match[q]
        if place < 0:
            unknown += query.known[q] < 0
            run = 0
            continue
        found += 1
        first = min(first, place)
        follows = q > 0 and place > 0 and title.words[place - 1] == query.words[q - 1]
        bigrams += follows
        run = run + 1 if follows else 1
        longest = max(longest, run)
    out[0], out[1] = _log1p(num_q), _log1p(num_t)
    out[2] = bigrams / max(num_q - 1, 1)
    out[3] = longest / max(num_q, 1)
    out[4] = first / max(num_t, 1)
    out[5] = num_q > 0 and found == num_q
    out[6] = num_q == 0
    out[7] = unknown / max(num_q, 1)


@borrowing(forceinline=True)
def _numbers(query: TextWords, title: TextWords, out: NDArray[np.float32]) -> None:
    """Write the features of words with a digit: query_numbers to title_numbers."""
    asked, found = 0, 0
    for q in range(len(query.words)):
        asked += query.numeric[q]
        found += query.numeric[q] and query.match[q] >= 0
    out[0] = asked
    out[1] = found / asked if asked else 1.0
    out[2] = found < asked
    digits = 0
    for t in range(len(title.words)):
        digits += title.numeric[t]
    out[3] = digits / max(len(title.words), 1)


@borrowing(forceinline=True)
def _is_one_of(word: np.uint64, words: NDArray[np.uint64]) -> bool:
    """Whether a word is among others; without a branch several are compared at once."""
    found = False
    for other in words:
        found |= word == other
    return found


@borrowing(forceinline=True)
def _head_place(title: TextWords) -> int:
    """The index of a title's head, the word that names the product; -1 without words."""
    for t in range(1, len(title.words)):
        end, before = title.words[t], title.words[t - 1]
        if title.numeric[t - 1] or not _is_one_of(end, _HEAD_ENDS):
            continue
        is_no_end = (end == _IN and _is_one_of(before, _NO_ENDS)) or (
            end == _FUR and _is_one_of(before, _NO_FOR)
        )
        if not is_no_end:
            return t - 1
    return len(title.words) - 1


@borrowing(forceinline=True)
def _head(
    query: TextWords, title: TextWords, vectors_KE: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Write the features of the title's head and of the query's last word, its head in English."""
    out[0:2], out[2] = 0, 1
    head, last = _head_place(title), len(query.words) - 1
    if head < 0 or last < 0:
        return
    out[0] = title.near[head]
    if query.words[last] == title.words[head]:
        out[1] = 1
    elif query.known[last] >= 0 and title.known[head] >= 0:
        one, other = vectors_KE[query.known[last]], vectors_KE[title.known[head]]
        out[1] = max(out[1], _dot(one, other))
    for t in range(head + 1):
        if title.words[t] == query.words[last]:
            out[2] = (head - t) / (head + 1)


@borrowing(fastmath={"reassoc", "contract"}, forceinline=True)
def mean_vector(
    words: TextWords, vectors_KE: NDArray[np.float32], out_E: NDArray[np.float32]
) -> None:
    """Write the IDF-weighted mean of the words' vectors, scaled to length 1."""
    out_E[:] = 0
    for at in words.listed:
        weight, vector = words.weight[at], vectors_KE[words.known[at]]
        for col in range(len(out_E)):
            out_E[col] += weight * vector[col]
    square = np.float32(0)
    for col in range(len(out_E)):
        square += out_E[col] * out_E[col]
    if square > 0:
        scale = np.float32(1 / np.sqrt(square))
        for col in range(len(out_E)):
            out_E[col] *= scale


@borrowing(forceinline=True)
def fill_match_features(
    query: TextWords,
    title: TextWords,
    grams_query: NDArray[np.uint64],
    grams_title: NDArray[np.uint64],
    table: TrigramTable,
    lexicon: Lexicon,
    mean_query_E: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write all dense features of a pair, in the order of DENSE_NAMES, then both mean vectors.

    `look_up_words` and `match_words` must have filled both sides, and `weigh_words`, `mean_vector`
    and `index_query` have read the query.
    """
    at = _AT_TITLE
    out[at + 4], out[at + 5] = cover(grams_query, grams_title, table, query.covered)
    _find_near(query, title, lexicon.vectors_KE)
    weigh_words(title, lexicon.idf_I)  # as late as possible
    _summarise(query.found, query, out[0:5])
    _summarise(query.covered, query, out[5:10])
    _summarise(query.near, query, out[10:15])
    _mean_and_weighted(title.found, title.weight, out[at : at + 2])
    _mean_and_weighted(title.near, title.weight, out[at + 2 : at + 4])
    out[at + 6] = _rarity(query, len(title.words), out[at + 8 : at + 12])
    _order(query, title, out[at + 12 : at + 20])
    _numbers(query, title, out[at + 20 : at + 24])
    _head(query, title, lexicon.vectors_KE, out[at + 24 : at + 27])
    width = lexicon.vectors_KE.shape[1]
    mean_title_E = out[NUM_DENSE + width :]
    for col in range(width):
        out[NUM_DENSE + col] = mean_query_E[col]
    mean_vector(title, lexicon.vectors_KE, mean_title_E)
    out[at + 7] = _dot(mean_query_E, mean_title_E)
