"""Texts to search terms, compiled: case-folded words without plural endings.

Input: an Arrow array of strings without nulls. Output: each text's terms, joined by single spaces.
Words are those of `tokenizer.py`. In a script without spaces each character is a term, and so are
two adjacent characters.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.data.query_key import stem
from raydistill.serving.machine_code.compiled import compiled
from raydistill.serving.text.arrow_text import Block, narrowed, row_blocks, to_texts
from raydistill.serving.text.characters import (
    SINGLE_CHAR_WORD,
    SKIP,
    WORD,
    WORD_START,
    Tables,
    character_tables,
)
from raydistill.serving.tokenizer import classify, decode, longest

_BLOCK_ROWS = 65_536  # rows whose terms are in memory at the same time: some MB
_BLOCK_BYTES = 2**26  # limit for long rows: terms may take four times the bytes
_SPACE_BYTE = np.uint8(32)


def search_terms(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The terms of each text; "" for a text without words.

    The type is `string`, or `large_string` for more than 2 GB of terms. Accepted types and errors:
    see `arrow_text.to_arrow`.
    """
    blocks = row_blocks(to_texts(texts), max_rows=_BLOCK_ROWS, max_bytes=_BLOCK_BYTES)
    return narrowed(pa.concat_arrays([_block(block) for block in blocks]))


def _block(texts: Block) -> pa.LargeStringArray:
    out, stops = _terms(*texts, character_tables())
    starts = pa.py_buffer(stops)
    return pa.LargeStringArray.from_buffers(len(stops) - 1, starts, pa.py_buffer(out))


@compiled
def _terms(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int32],
    tables: Tables,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    # Worst case: a 3-byte character is a term and ends a pair: 3 + 1 + 6 + 1 bytes.
    out = np.empty(4 * (offsets[-1] - offsets[0]) + 16, np.uint8)
    stops = np.zeros(len(offsets), np.int64)
    most = longest(offsets) + 1
    points, word = np.empty(most, np.uint32), np.empty(most, np.uint32)
    classes = np.empty(most, np.uint8)
    at_out = 0
    for row in range(len(offsets) - 1):
        begin, length, solo = at_out, 0, np.uint32(0)
        num = decode(data, offsets[row], offsets[row + 1], tables, points)
        classify(points, num, tables[0], True, classes)
        for at in range(num):
            kind = classes[at]
            if kind == SKIP:
                continue
            if kind != WORD and length:
                at_out = _write(word, stem(word, length), out, at_out, begin)
                length = 0
            if kind in (WORD, WORD_START):
                word[length] = points[at]
                length += 1
            if kind != SINGLE_CHAR_WORD:
                solo = np.uint32(0)
                continue
            word[0], word[1] = solo, points[at]
            at_out = _write(word[1:], 1, out, at_out, begin)
            if solo:
                at_out = _write(word, 2, out, at_out, begin)
            solo = points[at]
        if length:
            at_out = _write(word, stem(word, length), out, at_out, begin)
        stops[row + 1] = at_out
    return out[:at_out], stops


@compiled
def _write(
    word: NDArray[np.uint32], length: int, out: NDArray[np.uint8], at: int, begin: int
) -> int:
    """Write a term as UTF-8, after a space unless it is the text's first; returns its end."""
    if at > begin:
        out[at] = _SPACE_BYTE
        at += 1
    for place in range(length):
        code = int(word[place])
        size = 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4
        if size == 1:
            out[at] = code
        else:
            for byte in range(size - 1, 0, -1):
                out[at + byte] = 0x80 | (code & 0x3F)
                code >>= 6
            out[at] = (0xF00 >> size) & 0xFF | code
        at += size
    return at
