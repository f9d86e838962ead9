"""Text to n-gram ids and match features: one compiled function for training and serving.

Input: UTF-8 bytes and offsets of queries and titles. Output: flat ids, bag offsets and dense
features per pair. The specification is `docs/features.md`. Imports only numpy and numba.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.feature_spec import Features, NgramSpec
from raydistill.serving.lexicon import Lexicon, find_word
from raydistill.serving.machine_code.compiled import borrowing, compiled
from raydistill.serving.match_features import (
    TextWords,
    allocate_words,
    fill_match_features,
    look_up_words,
    match_words,
    mean_vector,
    slice_words,
    weigh_words,
)
from raydistill.serving.text.arrow_text import Block, Texts, row_block, row_spans
from raydistill.serving.text.characters import Tables, character_tables
from raydistill.serving.text.hashing import mix64
from raydistill.serving.text.trigram_table import TrigramTable, index_query, num_slots
from raydistill.serving.tokenizer import (
    char_ngrams,
    classify,
    longest,
    spell,
    split_words,
    trigrams,
)
from raydistill.serving.units.table import UnitTable, unit_table

_BIGRAM = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
_START, _END = np.uint64(0x5354415254), np.uint64(0x454E44)  # "START", "END"
_MATCHED, _QUERY_ONLY, _TITLE_ONLY = np.uint64(0x4D), np.uint64(0x51), np.uint64(0x54)
_BLOCK_ROWS = 8_192  # rows per block: a few MB of ids
_BLOCK_BYTES = 2**24  # limit for long texts: 16 MB of one side give at most 600 MB of ids


class Layout(NamedTuple):
    """The fields of an NgramSpec for compiled code."""

    match: bool
    units: bool
    size: int  # length of character n-grams; 0: none
    bags: int  # per pair
    shift: np.uint64  # a 64-bit hash >> shift is an id
    growth: int  # most characters of the normalized text per character of the text


def featurize(queries: Texts, titles: Texts, *, spec: NgramSpec, lexicon: Lexicon) -> Features:
    """N-gram ids and match features of B pairs of clean texts.

    Raises:
        ValueError: the sides differ in length, or the lexicon's vectors do not fit `spec`.
    """
    num_rows = len(queries[1]) - 1
    if len(titles[1]) - 1 != num_rows:
        raise ValueError(f"{num_rows} queries for {len(titles[1]) - 1} titles")
    if spec.has_match and lexicon.dim != spec.word_dim:
        raise ValueError(f"word vectors of {lexicon.dim} columns, {spec.word_dim} wanted")
    table = unit_table(spec.extra_units)
    layout = Layout(
        spec.has_match,
        spec.units,
        spec.char_ngrams,
        spec.num_bags,
        np.uint64(64 - spec.id_bits),
        table.growth if spec.units else 1,
    )
    dense = np.empty((num_rows, spec.num_dense), np.float32)
    blocks = [
        _featurize_block(
            row_block(queries, start, stop),
            row_block(titles, start, stop),
            character_tables(),
            table,
            lexicon,
            layout,
            dense[start:stop],
        )
        for start, stop in row_spans(queries, titles, max_rows=_BLOCK_ROWS, max_bytes=_BLOCK_BYTES)
    ]
    counts = np.concatenate([counts for _, counts in blocks])
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    ids = np.concatenate([ids for ids, _ in blocks])
    if spec.vocabulary_rows:
        ids, offsets = _known_rows(ids, offsets, lexicon)
    return Features(ids, offsets, dense)


def spelled_words(texts: Texts, *, spec: NgramSpec) -> list[list[str]]:
    """The words of clean texts as a student reads them: folded, sizes in one spelling."""
    tables, table = character_tables(), unit_table(spec.extra_units)
    blocks = [row_block(texts, row, row + 1) for row in range(len(texts[1]) - 1)]
    return [
        _spaced(block, tables, table, spec.units, spec.has_match)
        .tobytes()
        .decode("utf-32-le")
        .split(" ")[1:-1]
        for block in blocks
    ]


@borrowing(forceinline=True)
def _bigram(left: np.uint64, right: np.uint64) -> np.uint64:
    return mix64(left * _BIGRAM + right)


@borrowing(forceinline=True)
def _add_ngrams(
    words: NDArray[np.uint64], shift: np.uint64, ids: NDArray[np.int32], at: int
) -> int:
    """Write n words as 2n + 1 ids: unigrams, and bigrams with start and end marks; their end."""
    before = _START
    for word in range(len(words)):
        ids[at] = words[word] >> shift
        ids[at + 1] = _bigram(before, words[word]) >> shift
        before = words[word]
        at += 2
    ids[at] = _bigram(before, _END) >> shift
    return at + 1


@borrowing(forceinline=True)
def _add_tagged(
    query: TextWords, title: TextWords, shift: np.uint64, ids: NDArray[np.int32], at: int
) -> int:
    """Write ids of matched words, of query words and title words without a match; their end."""
    for q in range(len(query.words)):
        tag = _MATCHED if query.match[q] >= 0 else _QUERY_ONLY
        ids[at] = mix64(query.words[q] + tag) >> shift
        at += 1
    for t in range(len(title.words)):
        if title.match[t] < 0:
            ids[at] = mix64(title.words[t] + _TITLE_ONLY) >> shift
            at += 1
    return at


class Scratch(NamedTuple):
    """Buffers for one side of a pair, reused for every pair."""

    words: TextWords
    points: NDArray[np.uint32]  # folded characters
    spelled: NDArray[np.uint32]  # folded characters with normalized sizes
    classes: NDArray[np.uint8]  # of the characters
    spaced: NDArray[np.uint32]  # characters with single spaces around words
    grams: NDArray[np.uint64]  # trigrams
    mean_E: NDArray[np.float32]  # the mean of the words' vectors; query only


@compiled(forceinline=True)
def _scratch(most: int, growth: int, dim: int) -> Scratch:
    """Buffers for texts of `most` characters, each of which may be between two spaces."""
    return Scratch(
        allocate_words(growth * most),
        np.empty(most, np.uint32),
        np.empty(growth * most, np.uint32),
        np.empty(growth * most, np.uint8),
        np.empty(3 * growth * most, np.uint32),
        np.empty(3 * growth * most, np.uint64),
        np.empty(dim, np.float32),
    )


@compiled
def _spaced(
    texts: Block, tables: Tables, table: UnitTable, units: bool, match: bool
) -> NDArray[np.uint32]:
    """The characters of a block's first text with single spaces around words."""
    most = longest(texts[1]) + 1
    spelled = np.empty((table.growth if units else 1) * most, np.uint32)
    points, num = spell(texts, 0, tables, table, units, np.empty(most, np.uint32), spelled)
    classes, out = np.empty(num, np.uint8), np.empty(3 * num + 1, np.uint32)
    words, numeric = np.empty(num, np.uint64), np.empty(num, np.bool_)
    classify(points, num, tables[0], match, classes)
    return out[: split_words(points, classes, num, words, numeric, out)[1]].copy()


@compiled(forceinline=True)
def read_text(
    texts: Block,
    row: int,
    tables: Tables,
    table: UnitTable,
    scratch: Scratch,
    lexicon: Lexicon,
    layout: Layout,
) -> Scratch:
    """Read one text into `scratch`: words, and if `layout` needs them characters and trigrams."""
    kinds, classes = tables[0], scratch.classes
    points, num = spell(texts, row, tables, table, layout.units, scratch.points, scratch.spelled)
    classify(points, num, kinds, layout.match, classes)
    numeric, spaced, grams = scratch.words.numeric, scratch.spaced, scratch.grams
    num_words, end = split_words(points, classes, num, scratch.words.words, numeric, spaced)
    num_listed = look_up_words(scratch.words, num_words, lexicon) if layout.match else 0
    words = slice_words(scratch.words, num_words, num_listed)
    if not layout.match and not layout.size:
        return Scratch(words, *scratch[1:4], spaced[:0], grams[:0], scratch.mean_E)
    if not layout.match:  # character n-grams are of other words than those of white space
        classify(points, num, kinds, True, classes)
        end = split_words(points, classes, num, grams, numeric, spaced)[1]
    grams = grams[: trigrams(spaced[:end], grams)]
    return Scratch(words, *scratch[1:4], spaced[:end], grams, scratch.mean_E)


@borrowing(forceinline=True)
def prepare_query(query: Scratch, grams: TrigramTable, lexicon: Lexicon) -> None:
    """Write what the match features of all titles need of a query that was read."""
    weigh_words(query.words, lexicon.idf_I)
    mean_vector(query.words, lexicon.vectors_KE, query.mean_E)
    index_query(query.grams, grams)


@borrowing(forceinline=True)
def _is_as_before(texts: Block, row: int) -> bool:
    """Whether a text equals that of the previous row."""
    data, offsets = texts
    before, start, stop = offsets[row - 1], offsets[row], offsets[row + 1]
    if start - before != stop - start:
        return False
    for at in range(stop - start):
        if data[before + at] != data[start + at]:
            return False
    return True


@borrowing(forceinline=True)
def add_query(query: Scratch, layout: Layout, ids: NDArray[np.int32], at: int) -> int:
    """Write the ids of a query's words, with which a pair begins, from `at` on; their end."""
    if len(query.words.words) == 0:  # single texts
        return at
    return _add_ngrams(query.words.words, layout.shift, ids, at)


@borrowing(forceinline=True)
def add_pair(
    query: Scratch,
    title: Scratch,
    grams: TrigramTable,
    lexicon: Lexicon,
    layout: Layout,
    ids: NDArray[np.int32],
    at: int,
    ends: NDArray[np.int64],
    bag: int,
    dense: NDArray[np.float32],
    is_new: bool,
) -> tuple[int, int]:
    """Write the ids of a pair from `at` on, the ends of its bags after `bag`, and `dense`.

    Those of the query's words are there already, or were in the pair before (`add_query`); those of
    its characters are written only if it `is_new`. Returns the end of the ids and the last bag.
    """
    at = _add_ngrams(title.words.words, layout.shift, ids, at)
    bag += 1
    ends[bag] = at
    if layout.match:
        match_words(query.words, title.words)
        at = _add_tagged(query.words, title.words, layout.shift, ids, at)
        bag += 1
        ends[bag] = at
        fill_match_features(
            *(query.words, title.words, query.grams, title.grams),
            *(grams, lexicon, query.mean_E, dense),
        )
    if layout.size:
        if is_new:
            at = char_ngrams(query.spaced, layout.size, layout.shift, ids, at)
        ends[bag + 1] = at
        at = char_ngrams(title.spaced, layout.size, layout.shift, ids, at)
        ends[bag + 2] = at
        bag += 2
    return at, bag


@compiled
def _featurize_block(
    queries: Block,
    titles: Block,
    tables: Tables,
    table: UnitTable,
    lexicon: Lexicon,
    layout: Layout,
    dense: NDArray[np.float32],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Flat ids and the number of ids per bag of all pairs of a block; fills `dense`."""
    rows = len(queries[1]) - 1
    most = max(longest(queries[1]), longest(titles[1])) + 1
    dim = lexicon.vectors_KE.shape[1]
    scratch_q, scratch_t = _scratch(most, layout.growth, dim), _scratch(most, layout.growth, 0)
    num_grams = 3 * layout.growth * (longest(queries[1]) + 1)
    grams = TrigramTable(
        np.empty(num_slots(num_grams), np.int32),
        np.empty(num_grams, np.int32),
        np.empty(num_grams, np.int32),
        np.empty(num_grams, np.bool_),
        np.empty(len(scratch_t.grams), np.int32),
    )
    num_bytes = int(queries[1][-1] - queries[1][0] + titles[1][-1] - titles[1][0])
    # Upper bound. A word has at least one byte, also in sizes: 2n + 1 ids and n tagged ids. With
    # spaces around words, at most three character n-grams per byte, or `growth` in sizes.
    ids = np.empty(
        (3 + max(3, layout.growth) if layout.size else 3) * num_bytes + 6 * rows, np.int32
    )
    ends = np.empty(rows * layout.bags + 1, np.int64)
    ends[0] = at = bag = 0
    query = title = scratch_q
    for row in range(rows):
        if row == 0 or not _is_as_before(queries, row):  # the titles of a query are adjacent
            query = read_text(queries, row, tables, table, scratch_q, lexicon, layout)
            if layout.match:
                prepare_query(query, grams, lexicon)
        title = read_text(titles, row, tables, table, scratch_t, lexicon, layout)
        at = add_query(query, layout, ids, at)
        at, bag = add_pair(
            query, title, grams, lexicon, layout, ids, at, ends, bag, dense[row], True
        )
    return ids[:at].copy(), np.diff(ends)


@compiled
def _known_rows(
    ids_N: NDArray[np.int32], offsets: NDArray[np.int64], lexicon: Lexicon
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows of the ids that are in the vocabulary, and the new offsets of the bags."""
    rows, starts = np.empty(len(ids_N), np.int32), np.empty(len(offsets), np.int64)
    num = starts[0] = 0
    for bag in range(len(offsets) - 1):
        for at in range(offsets[bag], offsets[bag + 1]):
            row = find_word(np.uint64(ids_N[at]), lexicon.ngrams_R, lexicon.ngram_places)
            if row >= 0:
                rows[num] = row
                num += 1
        starts[bag + 1] = num
    return rows[:num].copy(), starts
