"""UTF-8 and NFKC on code points in memory, as Python has them, without allocation.

The tables come from the Python that writes a model, so a model is read with one Unicode version
everywhere. `cleaning.py` uses these functions; invalid UTF-8 becomes U+FFFD, as in
`bytes.decode("utf-8", "replace")`.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from html import unescape
from html.entities import html5
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.lexicon import find_word, hash_places
from raydistill.serving.machine_code.emitted import emitted
from raydistill.serving.text import cleaning
from raydistill.serving.text.hashing import mix64
from raydistill.serving.tokenizer import word_hash

Points = NDArray[np.uint32]
NUM_POINTS, BLOCK_BITS = 0x110000, 8
# Bits of a trait: the canonical combining class, then the classes of `text/cleaning.py`.
CLASS, ALNUM, MARK, DECIMAL, UNSEEN, SPACE = 0xFF, 1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12
LENGTH_BITS = 5  # of a span: its start << 5 | its length
MOST_PARTS = (1 << LENGTH_BITS) - 1
NONE = 0xFFFFFFFF  # no second code point in `signs`, no code point in `controls`
FIRST_CONTROL, LAST_CONTROL = 0x80, 0x9F  # &#128; to &#159; mean Windows-1252
_REPLACEMENT = 0xFFFD
_32 = np.uint64(32)
# Hangul syllables are composed by arithmetic: section 3.12 of the Unicode standard.
_L, _V, _T, _S = 0x1100, 0x1161, 0x11A7, 0xAC00
_NUM_L, _NUM_V, _NUM_T, _NUM_S = 19, 21, 28, 11172


class UnicodeTables(NamedTuple):
    """Tables of NFKC, of cleaning and of HTML entities."""

    trait_blocks: NDArray[np.uint16]  # by code point >> 8: its block in `traits`
    traits: NDArray[np.uint16]
    span_blocks: NDArray[np.uint16]
    spans: NDArray[np.int32]  # of `decomposed`; 0: the code point itself
    decomposed: Points
    pairs: NDArray[np.uint64]  # mix64(first << 32 | second) of pairs that are composed
    pair_places: NDArray[np.int32]  # hash table of `pairs`
    composed: Points
    names: NDArray[np.uint64]  # hash of an entity's name with its semicolon
    name_places: NDArray[np.int32]  # hash table of `names`
    signs: Points  # two for each name
    controls: Points  # what the numbers 0x80 to 0x9F mean in an entity


@cache
def unicode_tables() -> UnicodeTables:
    """The tables of this Python's Unicode version."""
    names = [name for name in html5 if name.endswith(";")]
    hashes = np.array([word_hash(name) for name in names], np.uint64)
    signs = [[*map(ord, html5[name]), NONE][:2] for name in names]
    controls = [unescape(f"&#{code};") for code in range(FIRST_CONTROL, LAST_CONTROL + 1)]
    pairs, composed = _compositions()
    signs_of_names = np.array(signs, np.uint32).reshape(-1)
    spans, decomposed = _decompositions()
    traits = np.array([_trait_of(chr(code)) for code in range(NUM_POINTS)], np.uint16)
    return UnicodeTables(
        *_blocks(traits),
        *_blocks(spans),
        decomposed,
        pairs,
        hash_places(pairs),
        composed,
        hashes,
        hash_places(hashes),
        signs_of_names,
        np.array([ord(char) if char else NONE for char in controls], np.uint32),
    )


def _blocks(values: NDArray[Any]) -> tuple[NDArray[np.uint16], NDArray[Any]]:
    """Values of all code points as blocks of 256, each different block once; and the blocks."""
    rows = values.reshape(-1, 1 << BLOCK_BITS)
    different, index = np.unique(rows, axis=0, return_inverse=True)
    return index.reshape(-1).astype(np.uint16), different.reshape(-1)


def _trait_of(char: str) -> int:
    category = unicodedata.category(char)
    if category == "Cn" or category == "Co":
        return UNSEEN if cleaning.is_unseen(char) else 0
    return (
        unicodedata.combining(char)
        | (ALNUM if char.isalnum() or char == "_" else 0)
        | (MARK if category[0] == "M" and ord(char) < 0x10000 else 0)
        | (DECIMAL if category == "Nd" else 0)
        | (UNSEEN if cleaning.is_unseen(char) else 0)
        | (SPACE if category[0] == "Z" or category == "Cc" else 0)
    )


def _is_hangul(code: int) -> bool:
    return _S <= code < _S + _NUM_S


def _decompositions() -> tuple[NDArray[np.int32], Points]:
    """What each code point becomes in NFKD, after the signs that cleaning maps otherwise."""
    spans, parts = np.zeros(NUM_POINTS, np.int32), [0]
    for code in range(NUM_POINTS):
        char = chr(code)
        sign = char.translate(cleaning.SIGNS)
        if sign == char and (_is_hangul(code) or not unicodedata.decomposition(char)):
            continue
        form = unicodedata.normalize("NFKD", sign).replace("\u2044", "/")
        spans[code] = len(parts) << LENGTH_BITS | len(form)
        parts += map(ord, form)
    return spans, np.array(parts, np.uint32)


def _compositions() -> tuple[NDArray[np.uint64], Points]:
    """Keys of the pairs that canonical composition joins, and what they become."""
    pairs, composed = [], []
    for code in range(NUM_POINTS):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) != 2 or parts[0].startswith("<"):
            continue
        first, second = (chr(int(part, 16)) for part in parts)
        if unicodedata.normalize("NFC", first + second) == chr(code):
            key = np.uint64(ord(first) << 32 | ord(second))
            with np.errstate(over="ignore"):
                pairs.append(mix64.py_func(key))
            composed.append(code)
    return np.array(pairs, np.uint64), np.array(composed, np.uint32)


@emitted
def signed(value: Any) -> int:  # noqa: ANN401 - any of numpy's integers
    """A number as int64: unsigned and signed 64-bit numbers together would become float64."""
    return int(np.int64(value))


@emitted
def trait(code: int, tables: UnicodeTables) -> int:
    """The bits of a code point: its combining class, ALNUM, MARK, ..."""
    block = signed(tables.trait_blocks[code >> BLOCK_BITS])
    return signed(tables.traits[(block << BLOCK_BITS) | (code & 255)])


@emitted
def decode_utf8(data: NDArray[np.uint8], num: int, out: Points) -> int:
    """Decode `num` bytes; the number of code points in `out`, at most one for each byte."""
    at = count = 0
    while at < num:
        first = signed(data[at])
        size = _size_of(first)
        code = first if size == 1 else first & (0x7F >> size)
        end, low, high = at + 1, _lowest(first), _highest(first)
        while end < at + size and end < num and low <= data[end] <= high:
            code = (code << 6) | (signed(data[end]) & 0x3F)
            end, low, high = end + 1, 0x80, 0xBF
        is_whole = size > 0 and end == at + size
        out[count] = code if is_whole else _REPLACEMENT
        at, count = end, count + 1
    return count


@emitted
def _size_of(first: int) -> int:
    """Bytes of a character by its first byte; 0: no first byte."""
    if first < 0x80:
        return 1
    if first < 0xC2 or first > 0xF4:
        return 0
    return 2 if first < 0xE0 else 3 if first < 0xF0 else 4


@emitted
def _lowest(first: int) -> int:
    """The least second byte: less would be an overlong form."""
    return 0xA0 if first == 0xE0 else 0x90 if first == 0xF0 else 0x80


@emitted
def _highest(first: int) -> int:
    """The largest second byte: more would be a surrogate, or beyond U+10FFFF."""
    return 0x9F if first == 0xED else 0x8F if first == 0xF4 else 0xBF


@emitted
def encode_utf8(points: Points, num: int, out: NDArray[np.uint8]) -> int:
    """Encode `num` code points; the number of bytes in `out`, at most 4 for each."""
    count = 0
    for at in range(num):
        code = signed(points[at])
        if code < 0x80:
            out[count] = code
            count += 1
            continue
        size = 2 if code < 0x800 else 3 if code < 0x10000 else 4
        out[count] = ((0xF00 >> size) & 0xFF) | (code >> (6 * (size - 1)))
        for more in range(1, size):
            out[count + more] = 0x80 | ((code >> (6 * (size - 1 - more))) & 0x3F)
        count += size
    return count


@emitted
def nfkc(points: Points, num: int, tables: UnicodeTables, out: Points) -> int:
    """Write the NFKC form to `out`, as far as it has space; the number of its code points."""
    count = 0
    for at in range(num):
        if count + MOST_PARTS > len(out):
            break
        count = _decompose(signed(points[at]), tables, out, count)
    _order_marks(out, count, tables)
    return _compose(out, count, tables)


@emitted
def _decompose(code: int, tables: UnicodeTables, out: Points, count: int) -> int:
    index = code - _S
    if 0 <= index < _NUM_S:
        out[count] = _L + index // (_NUM_V * _NUM_T)
        out[count + 1] = _V + index // _NUM_T % _NUM_V
        count += 2
        if index % _NUM_T:
            out[count] = _T + index % _NUM_T
            count += 1
        return count
    block = signed(tables.span_blocks[code >> BLOCK_BITS])
    span = signed(tables.spans[(block << BLOCK_BITS) | (code & 255)])
    if span == 0:
        out[count] = code
        return count + 1
    start, length = span >> LENGTH_BITS, span & MOST_PARTS
    for part in range(length):
        out[count + part] = tables.decomposed[start + part]
    return count + length


@emitted
def _order_marks(points: Points, num: int, tables: UnicodeTables) -> None:
    """Sort each run of marks by combining class, stably."""
    for at in range(1, num):
        code, place = points[at], at
        order = trait(signed(code), tables) & CLASS
        if order == 0:
            continue
        while place > 0 and trait(signed(points[place - 1]), tables) & CLASS > order:
            points[place] = points[place - 1]
            place -= 1
        points[place] = code


@emitted
def _compose(points: Points, num: int, tables: UnicodeTables) -> int:
    """Compose in place; `last` is the class of what stands between the starter and a character."""
    count, starter, last = 0, -1, -1
    for at in range(num):
        code = signed(points[at])
        order = trait(code, tables) & CLASS
        if starter >= 0 and last < order:
            both = _composed(signed(points[starter]), code, tables)
            if both >= 0:
                points[starter] = both
                continue
        if order == 0:
            starter, last = count, -1
        else:
            last = order
        points[count] = code
        count += 1
    return count


@emitted
def _composed(first: int, second: int, tables: UnicodeTables) -> int:
    """The character that two become, or -1."""
    if _L <= first < _L + _NUM_L and _V <= second < _V + _NUM_V:
        return _S + ((first - _L) * _NUM_V + second - _V) * _NUM_T
    is_open = _S <= first < _S + _NUM_S and (first - _S) % _NUM_T == 0
    if is_open and _T < second < _T + _NUM_T:
        return first + second - _T
    if second < 0x300:  # U+0300 is the least second character of a pair
        return -1
    key = mix64((np.uint64(first) << _32) | np.uint64(second))
    place = find_word(key, tables.pairs, tables.pair_places)
    return signed(tables.composed[place]) if place >= 0 else -1
