"""The query key, equal for different spellings of one query; and the stem of an English plural.

Input: texts as `tokenizer.encode` returns them. Output: 64 bits per text. Compiled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import compiled
from raydistill.serving.text.arrow_text import Block, Texts, row_blocks
from raydistill.serving.text.characters import (
    SINGLE_CHAR_WORD,
    SKIP,
    SPACE,
    WORD,
    WORD_START,
    Tables,
    character_tables,
)
from raydistill.serving.text.hashing import FNV_OFFSET, FNV_PRIME, mix64
from raydistill.serving.tokenizer import classify, decode, longest
from raydistill.serving.units.names import Names
from raydistill.serving.units.normalization import normalize_units
from raydistill.serving.units.numerals import is_digit
from raydistill.serving.units.table import UnitTable, unit_table


def query_keys(texts: Texts, *, extra_units: Names = ()) -> NDArray[np.uint64]:
    """A 64-bit key of each text; texts that the features treat as one query have the same key.

    The key is the sum of the hashes of all letters and complete numbers, after sizes and units are
    normalized and plurals removed. It does not depend on word order or spaces: `Sofa beds`, `bed
    sofa` and `sofabed` have one key, as have `2" pan` and `2 inch pan`. Unrelated texts may share a
    key: harmless, since keys only keep queries together. A text without words has the key of its
    bytes.
    """
    tables, table = character_tables(), unit_table(extra_units)
    blocks = row_blocks(texts)
    return np.concatenate([_query_keys(block, tables, table) for block in blocks])


@compiled
def _query_keys(texts: Block, tables: Tables, table: UnitTable) -> NDArray[np.uint64]:
    data, offsets = texts
    keys = np.empty(len(offsets) - 1, np.uint64)
    most = longest(offsets)
    points = np.empty(most, np.uint32)
    spelled = np.empty(table.growth * most, np.uint32)
    classes = np.empty(len(spelled), np.uint8)
    for row in range(len(keys)):
        start, stop = offsets[row], offsets[row + 1]
        num = decode(data, start, stop, tables, points)
        num = normalize_units(points, num, tables[0], table, spelled)
        classify(spelled, num, tables[0], True, classes)
        total = _sum_of_letters(spelled, classes, num)
        if total == 0:
            total = FNV_OFFSET
            for at in range(start, stop):
                total = (total ^ np.uint64(data[at])) * FNV_PRIME
        keys[row] = mix64(total)
    return keys


@compiled
def _sum_of_letters(points: NDArray[np.uint32], classes: NDArray[np.uint8], num: int) -> np.uint64:
    total = np.uint64(0)
    length = 0  # of the current word, whose letters are copied to the front of `points`
    for at in range(num + 1):
        kind = classes[at] if at < num else np.uint8(SPACE)
        if kind == SKIP:
            continue
        if kind in (WORD, WORD_START):  # WORD_START does not end a word
            code = points[at]
            if length and is_digit(code) and not _is_of_number(points[length - 1]):
                total += _sum_of_word(points, stem(points, length))  # iphone13 is iphone 13
                length = 0
            points[length] = code
            length += 1
            continue
        total += _sum_of_word(points, stem(points, length))
        length = 0
        if kind == SINGLE_CHAR_WORD:
            total += mix64(np.uint64(points[at]))
    return total


@compiled
def _is_of_number(code: int) -> bool:
    """Whether a code point of a word is part of a number: a digit, a point or a slash."""
    return is_digit(code) or code in (46, 47)


@compiled
def _sum_of_word(points: NDArray[np.uint32], length: int) -> np.uint64:
    total, number = np.uint64(0), FNV_OFFSET
    for at in range(length):
        code = points[at]
        if _is_of_number(code):  # 12, 1.5, 1/2: the order of their characters counts
            number = (number ^ np.uint64(code)) * FNV_PRIME
            if at + 1 < length and _is_of_number(points[at + 1]):
                continue
            total += mix64(number)
            number = FNV_OFFSET
        else:
            total += mix64(np.uint64(code))
    return total


@compiled
def stem(points: NDArray[np.uint32], length: int) -> int:
    """Length of a word without its English plural; may change its last letter in `points`.

    Box and boxes, house and houses, knife and knives, battery and batteries have equal stems.
    """
    e, f, i, s, u, v, y = 101, 102, 105, 115, 117, 118, 121
    if length > 1 and is_digit(points[length - 2]):  # 12v
        return length
    if length > 3 and points[length - 1] == s and points[length - 2] not in (i, s, u):
        length -= 1
    if length > 3 and points[length - 1] == e:
        length -= 1
    if length > 1 and points[length - 1] == y:
        points[length - 1] = i
    elif length > 1 and points[length - 1] == v:
        points[length - 1] = f
    return length
