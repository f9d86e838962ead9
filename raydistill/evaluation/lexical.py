"""Scores of pairs without a model, to compare with: word overlap, character trigrams, BM25.

Input: clean texts. Output: one score in 0..1 a pair and method, higher is better; no probability.
Words are those of the match features: folded, split at spaces and punctuation (docs/features.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import compiled
from raydistill.serving.text.arrow_text import Block, Texts, row_block, row_blocks, row_spans
from raydistill.serving.text.characters import Tables, character_tables
from raydistill.serving.tokenizer import (
    classify,
    decode,
    longest,
    split_words,
    trigrams,
)

WORD_OVERLAP, TRIGRAMS, BM25 = "word overlap", "character trigrams", "BM25"
LEXICAL = (WORD_OVERLAP, TRIGRAMS, BM25)
_K1, _B = 1.2, 0.75  # Robertson and Zaragoza 2009, section 3.4.2
_BLOCK_ROWS, _BLOCK_BYTES = 65_536, 2**26


@dataclass(frozen=True)
class DocumentFrequencies:
    """Of each known word the number of titles that have it; D words, sorted by hash."""

    words_D: NDArray[np.uint64]
    counts_D: NDArray[np.int64]
    num_titles: int
    mean_words: float  # of a title

    @property
    def idf_D(self) -> NDArray[np.float64]:
        """ln(1 + (N - n + 0.5) / (n + 0.5)) of each word; the 1 keeps it positive.

        Robertson and Zaragoza 2009 (https://doi.org/10.1561/1500000019), equation 3.3, with the 1
        of Lucene (Kamphuis et al. 2020, https://doi.org/10.1007/978-3-030-45442-5_4).
        """
        return _idf(self.counts_D, self.num_titles)


def _idf(counts: NDArray[np.int64], num_titles: int) -> NDArray[np.float64]:
    return np.log1p((num_titles - counts + 0.5) / (counts + 0.5))


def document_frequencies(titles: Texts) -> DocumentFrequencies:
    """The document frequencies of the words of some titles."""
    blocks = row_blocks(titles, max_rows=_BLOCK_ROWS, max_bytes=_BLOCK_BYTES)
    parts = [_distinct_words(block, character_tables()) for block in blocks]
    words_D, counts_D = np.unique(np.concatenate([one for one, _ in parts]), return_counts=True)
    num_titles = len(titles[1]) - 1
    mean_words = sum(num for _, num in parts) / max(num_titles, 1)
    return DocumentFrequencies(words_D, counts_D.astype(np.int64), num_titles, mean_words)


def lexical_scores(
    queries: Texts, titles: Texts, *, frequencies: DocumentFrequencies
) -> dict[str, NDArray[np.float32]]:
    """The scores of B pairs by method.

    Word overlap: the share of the query's words that the title has. Character trigrams: the Dice
    coefficient of the sets of trigrams of both texts, 2 |A and B| / (|A| + |B|). BM25: s / (1 + s)
    of the sum s over the query's words, which has the order of s.

    Raises:
        ValueError: the sides differ in length.
    """
    num_rows = len(queries[1]) - 1
    if len(titles[1]) - 1 != num_rows:
        raise ValueError(f"{num_rows} queries for {len(titles[1]) - 1} titles")
    unknown = float(_idf(np.zeros(1, np.int64), frequencies.num_titles)[0])
    weights = _Weights(
        frequencies.words_D, frequencies.idf_D, unknown, max(frequencies.mean_words, 1.0)
    )
    out_MB = np.empty((len(LEXICAL), num_rows), np.float32)
    spans = row_spans(queries, titles, max_rows=_BLOCK_ROWS, max_bytes=_BLOCK_BYTES)
    for start, stop in spans:
        blocks = row_block(queries, start, stop), row_block(titles, start, stop)
        _score(*blocks, character_tables(), weights, out_MB[:, start:stop])
    return dict(zip(LEXICAL, out_MB, strict=True))


def num_words(texts: Texts) -> NDArray[np.int64]:
    """The number of words of each text; in scripts without spaces each character is a word."""
    blocks = row_blocks(texts, max_rows=_BLOCK_ROWS, max_bytes=_BLOCK_BYTES)
    return np.concatenate([_num_words(block, character_tables()) for block in blocks])


class _Weights(NamedTuple):
    """The words' inverse document frequencies, for compiled code."""

    words_D: NDArray[np.uint64]
    idf_D: NDArray[np.float64]
    unknown: float  # the IDF of any other word
    mean_words: float


class _Buffers(NamedTuple):
    """Memory for the words and trigrams of one text."""

    points: NDArray[np.uint32]
    classes: NDArray[np.uint8]
    words: NDArray[np.uint64]
    numeric: NDArray[np.bool_]
    spaced: NDArray[np.uint32]
    grams: NDArray[np.uint64]


@compiled
def _buffers(most: int) -> _Buffers:
    return _Buffers(
        np.empty(most + 1, np.uint32),
        np.empty(most + 1, np.uint8),
        np.empty(most + 1, np.uint64),
        np.empty(most + 1, np.bool_),
        np.empty(3 * most + 1, np.uint32),
        np.empty(3 * most + 1, np.uint64),
    )


@compiled
def _read_words(texts: Block, row: int, tables: Tables, buffers: _Buffers) -> tuple[int, int]:
    """Fill words and spaced characters; returns the number of words and of these characters."""
    data, offsets = texts
    num = decode(data, offsets[row], offsets[row + 1], tables, buffers.points)
    classify(buffers.points, num, tables[0], True, buffers.classes)
    words, numeric, spaced = buffers.words, buffers.numeric, buffers.spaced
    return split_words(buffers.points, buffers.classes, num, words, numeric, spaced)


@compiled
def _read_grams(num_spaced: int, buffers: _Buffers) -> int:
    """Fill the distinct trigrams, sorted; returns their number."""
    return _make_distinct(buffers.grams, trigrams(buffers.spaced[:num_spaced], buffers.grams))


@compiled
def _make_distinct(values: NDArray[np.uint64], num: int) -> int:
    """Sort the first `num` values and keep one of each; returns how many."""
    values[:num].sort()
    count = 0
    for at in range(num):
        if at == 0 or values[at] != values[at - 1]:
            values[count] = values[at]
            count += 1
    return count


@compiled
def _num_shared(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> int:
    """The values that both sorted arrays of distinct values have."""
    here = there = found = 0
    while here < len(one) and there < len(other):
        if one[here] == other[there]:
            found += 1
        step = one[here] <= other[there]
        there += one[here] >= other[there]
        here += step
    return found


@compiled
def _idf_of(word: np.uint64, weights: _Weights) -> float:
    """The word's IDF, found by bisection."""
    low, high = 0, len(weights.words_D)
    while low < high:
        middle = (low + high) // 2
        if weights.words_D[middle] < word:
            low = middle + 1
        else:
            high = middle
    if low < len(weights.words_D) and weights.words_D[low] == word:
        return float(weights.idf_D[low])
    return weights.unknown


@compiled
def _match(
    query: NDArray[np.uint64], title: NDArray[np.uint64], weights: _Weights
) -> tuple[float, float]:
    """Word overlap and BM25."""
    found, total = 0, 0.0
    norm = _K1 * (1 - _B + _B * len(title) / weights.mean_words)
    for word in query:
        times = 0
        for other in title:
            times += word == other
        if times:
            found += 1
            total += _idf_of(word, weights) * times * (_K1 + 1) / (times + norm)
    return found / max(len(query), 1), total


@compiled
def _score(
    queries: Block,
    titles: Block,
    tables: Tables,
    weights: _Weights,
    out_MB: NDArray[np.float32],
) -> None:
    most = max(longest(queries[1]), longest(titles[1]))
    one, other = _buffers(most), _buffers(most)
    for row in range(out_MB.shape[1]):
        words_q, spaced_q = _read_words(queries, row, tables, one)
        words_t, spaced_t = _read_words(titles, row, tables, other)
        overlap, bm25 = _match(one.words[:words_q], other.words[:words_t], weights)
        grams_q, grams_t = _read_grams(spaced_q, one), _read_grams(spaced_t, other)
        shared = _num_shared(one.grams[:grams_q], other.grams[:grams_t])
        out_MB[0, row] = overlap
        out_MB[1, row] = 2 * shared / max(grams_q + grams_t, 1)
        out_MB[2, row] = bm25 / (1 + bm25)


@compiled
def _num_words(texts: Block, tables: Tables) -> NDArray[np.int64]:
    counts = np.zeros(len(texts[1]) - 1, np.int64)
    buffers = _buffers(longest(texts[1]))
    for row in range(len(counts)):
        counts[row] = _read_words(texts, row, tables, buffers)[0]
    return counts


@compiled
def _distinct_words(texts: Block, tables: Tables) -> tuple[NDArray[np.uint64], int]:
    """The distinct words of each title, one title after the other; and the number of all words."""
    num_titles = len(texts[1]) - 1
    buffers = _buffers(longest(texts[1]))
    found = np.empty(texts[1][num_titles] - texts[1][0] + 1, np.uint64)
    total = at = 0
    for row in range(num_titles):
        num = _read_words(texts, row, tables, buffers)[0]
        total += num
        num = _make_distinct(buffers.words, num)
        found[at : at + num] = buffers.words[:num]
        at += num
    return found[:at], total
