"""UTF-8 text to folded words and character n-grams, compiled.

Input: bytes and offsets. Output: a 64-bit hash of each word, trigrams, ids of character n-grams.
The specification is `docs/features.md`. Imports only numpy and numba.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import borrowing, compiled
from raydistill.serving.text.arrow_text import MAX_BYTES, Block, Texts, row_blocks
from raydistill.serving.text.characters import (
    FIRST_TAG,
    LAST_TAG,
    LONG,
    MARK,
    PUNCTUATION,
    SINGLE_CHAR_WORD,
    SKIP,
    SPACE,
    WORD,
    WORD_START,
    Tables,
    character_tables,
)
from raydistill.serving.text.cleaning import clean_text, is_odd
from raydistill.serving.text.hashing import FNV_OFFSET, FNV_PRIME, mix64
from raydistill.serving.units.normalization import normalize_units
from raydistill.serving.units.numerals import is_digit
from raydistill.serving.units.table import UnitTable

_APOSTROPHE, _POINT, _SLASH = 0x27, 0x2E, 0x2F
_21, _42 = np.uint64(21), np.uint64(42)
_CHARS = np.uint64(0x43)  # separates the ids of character n-grams from those of words


def encode(texts: Sequence[str], *, max_chars: int | None = None) -> Texts:
    """Python strings as UTF-8 bytes and offsets, cleaned as in `prepare`.

    A clean text is truncated to `max_chars` characters: the time of a pair grows with the product
    of the lengths of its texts.
    """
    most = sys.maxsize if max_chars is None else max_chars
    strings = list(texts)  # for access by position: a pandas Series uses its index
    parts = [text.encode("utf-8", "replace") for text in strings]
    whole = _joined(parts)
    odd = np.flatnonzero(is_odd(whole) | (np.diff(whole[1]) > most))
    if len(odd) == 0:
        return whole
    for row in odd.tolist():
        parts[row] = clean_text(strings[row])[:most].encode("utf-8", "replace")
    return _joined(parts)


def _joined(parts: Sequence[bytes]) -> Texts:
    data = b"".join(parts)
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    narrow = offsets.astype(np.int32) if len(data) <= MAX_BYTES else offsets
    narrow.setflags(write=False)  # compiled code takes only read-only arrays
    return np.frombuffer(data, np.uint8), narrow


@borrowing
def longest(offsets: NDArray[np.int32]) -> int:
    """The number of bytes of the longest text."""
    most = 0
    for row in range(len(offsets) - 1):
        most = max(most, offsets[row + 1] - offsets[row])
    return most


@borrowing(forceinline=True)
def _is_ascii(data: NDArray[np.uint8], start: int, stop: int) -> bool:
    bits = np.uint8(0)
    for at in range(start, stop):
        bits = np.uint8(bits | data[at])
    return bool(bits < 0x80)


@borrowing
def decode(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    tables: Tables,
    points: NDArray[np.uint32],
) -> int:
    """Decode UTF-8 to folded code points in `points`, at most one per byte; return their number."""
    folds, forms = tables[1], tables[2]
    if _is_ascii(data, start, stop):  # most texts: each character has one folded character
        for at in range(start, stop):
            points[at - start] = folds[data[at]]
        return stop - start
    num, at = 0, start
    while at < stop:
        byte = np.uint32(data[at])
        size = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        code = byte if size == 1 else byte & np.uint32(0xFF >> (size + 1))
        for more in range(1, size):
            if at + more < stop:
                code = (code << np.uint32(6)) | (np.uint32(data[at + more]) & np.uint32(0x3F))
        at += size
        if code >= len(folds):
            if not FIRST_TAG <= code <= LAST_TAG:
                points[num] = code
                num += 1
            continue
        form = folds[code]
        if form < LONG:
            points[num] = form
            num += 1
            continue
        place = form - np.uint32(LONG)
        for part in range(1, forms[place] + 1):
            points[num] = forms[place + part]
            num += 1
    return num


@compiled(forceinline=True)
def spell(
    texts: Block,
    row: int,
    tables: Tables,
    table: UnitTable,
    units: bool,
    points: NDArray[np.uint32],
    spelled: NDArray[np.uint32],
) -> tuple[NDArray[np.uint32], int]:
    """The buffer with the folded characters of one text, with normalized sizes if `units`.

    Also returns their number.
    """
    num = decode(texts[0], texts[1][row], texts[1][row + 1], tables, points)
    if not units:
        return points, num
    return spelled, normalize_units(points, num, tables[0], table, spelled)


@borrowing
def classify(
    points: NDArray[np.uint32],
    num: int,
    kinds: NDArray[np.uint8],
    fine: bool,
    out: NDArray[np.uint8],
) -> None:
    """Write the class of each character in its context to `out`.

    1.5 and 1/2 are single words, and so is women's (as womens). For n't, and for `women 's` as
    treebanks write it, see `_contract`. Not `fine`: words are separated by white space only.
    """
    for at in range(num):
        code = points[at]
        kind = kinds[code] if code < len(kinds) else np.uint8(SINGLE_CHAR_WORD)
        if not fine:
            kind = kind if (kind == SPACE) | (kind == SKIP) else np.uint8(WORD)
        elif (kind == PUNCTUATION) | (kind == MARK):  # few characters
            kind = _in_context(points, at, num, kinds, kind, out)
        out[at] = kind


@borrowing
def _in_context(
    points: NDArray[np.uint32],
    at: int,
    num: int,
    kinds: NDArray[np.uint8],
    kind: np.uint8,
    out: NDArray[np.uint8],
) -> np.uint8:
    """The class of a mark or of punctuation; may change the classes before it."""
    before = out[at - 1] if at else np.uint8(SKIP)
    if kind == MARK:
        return np.uint8(WORD if before == WORD or before == WORD_START else SKIP)
    if at == 0 or at == num - 1:
        return kind
    code = points[at]
    if code == _POINT or code == _SLASH:
        is_inside = is_digit(points[at - 1]) and is_digit(points[at + 1])
        return np.uint8(WORD) if is_inside else kind
    is_inside = code == _APOSTROPHE and _contract(points, at, num, kinds, out)
    return np.uint8(SKIP) if is_inside else kind


@borrowing
def _contract(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8], out: NDArray[np.uint8]
) -> bool:
    """Whether the apostrophe at `at` is inside a word; may change the classes before it.

    `don't` and `do n't` (treebank spelling) become `do nt`; `women's` and `women 's` `womens`.
    """
    n, t = 110, 116
    before = out[at - 1]
    if before == WORD:
        ends = at + 2 == num or not _is_word(points[at + 2], kinds)
        if points[at - 1] == n and points[at + 1] == t and ends and at > 1 and out[at - 2] == WORD:
            out[at - 1] = WORD_START
        return True
    left = at - 1
    while left > 0 and out[left] == SPACE:
        left -= 1
    if out[left] != WORD or is_digit(points[left]) or not _is_tail(points, at + 1, num, kinds):
        return False
    out[left + 1 : at] = SKIP
    return True


@borrowing
def _is_word(code: int, kinds: NDArray[np.uint8]) -> bool:
    kind = kinds[code] if code < len(kinds) else np.uint8(SINGLE_CHAR_WORD)
    return bool((kind == WORD) | (kind == MARK))


@borrowing
def _is_tail(points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]) -> bool:
    """Whether the word at `at` is an English ending after an apostrophe: s d m ll re ve."""
    d, e, ell, m, r, s, v = 100, 101, 108, 109, 114, 115, 118
    stop = at
    while stop < num and _is_word(points[stop], kinds):
        stop += 1
    if stop < num and points[stop] == _APOSTROPHE:  # 'S' hooks: a quoted letter
        return False
    if stop - at == 1:
        return points[at] in (d, m, s)
    if stop - at != 2:
        return False
    first, second = points[at], points[at + 1]
    return (first == ell and second == ell) or (first in (r, v) and second == e)


@borrowing
def split_words(
    points: NDArray[np.uint32],
    classes: NDArray[np.uint8],
    num: int,
    words: NDArray[np.uint64],
    numeric: NDArray[np.bool_],
    spaced: NDArray[np.uint32],
) -> tuple[int, int]:
    """Write the hash of each word, whether it has a digit, and the words between single spaces.

    Returns the number of words, and of the characters in `spaced`: 0 for a text without words.
    `spaced` must have space for 3 * num + 1.
    """
    count, end, inside, digits, blank = 0, 1, False, False, np.uint32(32)
    state = FNV_OFFSET
    spaced[0] = blank
    for at in range(num):
        kind, point = classes[at], points[at]
        if kind == WORD or kind == WORD_START:
            if kind == WORD_START and inside:
                words[count], numeric[count], spaced[end] = mix64(state), digits, blank
                count, end = count + 1, end + 1
                digits, state = False, FNV_OFFSET
            state = (state ^ np.uint64(point)) * FNV_PRIME
            digits |= is_digit(point)
            spaced[end] = point
            inside, end = True, end + 1
            continue
        if kind == SKIP:
            continue
        if inside:
            words[count], numeric[count], spaced[end] = mix64(state), digits, blank
            count, end = count + 1, end + 1
            inside = digits = False
            state = FNV_OFFSET
        if kind == SINGLE_CHAR_WORD:
            words[count] = mix64((state ^ np.uint64(point)) * FNV_PRIME)
            numeric[count] = is_digit(point)
            spaced[end], spaced[end + 1] = point, blank
            count, end = count + 1, end + 2
    if inside:
        words[count], numeric[count], spaced[end] = mix64(state), digits, blank
        count, end = count + 1, end + 1
    return count, end if count else 0


def word_hash(word: str) -> np.uint64:
    """Hash of a word of folded letters, the same as in compiled code; for constants."""
    state = FNV_OFFSET
    with np.errstate(over="ignore"):
        for letter in word:
            state = (state ^ np.uint64(ord(letter))) * FNV_PRIME
        return np.uint64(mix64.py_func(state))


def single_words(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Hash of the first word of each text, and whether there is exactly one."""
    parts = [_single_words(b, character_tables()) for b in row_blocks(encode(texts))]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


@compiled
def _single_words(texts: Block, tables: Tables) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    data, offsets = texts
    hashes = np.zeros(len(offsets) - 1, np.uint64)
    single = np.zeros(len(hashes), np.bool_)
    most = longest(offsets) + 1
    points, words = np.empty(most, np.uint32), np.empty(most, np.uint64)
    numeric, classes = np.empty(most, np.bool_), np.empty(most, np.uint8)
    spaced = np.empty(3 * most, np.uint32)
    for row in range(len(hashes)):
        num = decode(data, offsets[row], offsets[row + 1], tables, points)
        classify(points, num, tables[0], True, classes)
        num_words, _ = split_words(points, classes, num, words, numeric, spaced)
        single[row] = num_words == 1
        if num_words:
            hashes[row] = words[0]
    return hashes, single


@borrowing
def trigrams(spaced: NDArray[np.uint32], out: NDArray[np.uint64]) -> int:
    """Write the trigrams of the `spaced` characters of a text, 3 x 21 bits each; their number."""
    for at in range(len(spaced) - 2):
        first, second = np.uint64(spaced[at]), np.uint64(spaced[at + 1])
        out[at] = (first << _42) | (second << _21) | np.uint64(spaced[at + 2])
    return max(len(spaced) - 2, 0)


@borrowing
def char_ngrams(
    spaced: NDArray[np.uint32], size: int, shift: np.uint64, ids: NDArray[np.int32], at: int
) -> int:
    """Write ids of the n-grams of the `spaced` characters of a text from `at` on; their end."""
    for start in range(len(spaced) - size + 1):
        state = FNV_OFFSET
        for inside in range(start, start + size):
            state = (state ^ np.uint64(spaced[inside])) * FNV_PRIME
        ids[at] = mix64(state + _CHARS) >> shift
        at += 1
    return at
