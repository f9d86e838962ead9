"""Raw texts to clean ones: HTML entities decoded, NFKC, single spaces, no control characters.

Comes in: an Arrow array of strings without nulls. Goes out: the same number of texts. Most are
clean already: one compiled pass finds those that are not, and only they pay for Unicode.
"""

from __future__ import annotations

import html
from functools import cache
from html.entities import html5

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.compiled import compiled
from raydistill.hashing import hash_bytes, hash_texts
from raydistill.texts import MAX_BYTES, Block, row_blocks, to_arrow, to_texts
from raydistill.words import FRACTION, FRACTION_SLASH

# Zero-width space, byte-order mark and soft hyphen carry no text; other white space and control
# characters separate words.
_INVISIBLE = r"[\x{200B}\x{FEFF}\x{00AD}]"
_SPACES = r"[\p{Z}\p{Cc}]+"
# As words.ENTITY: the longest name has 31 letters.
_LONGEST = 32
_AMPERSAND, _HASH, _SEMICOLON, _X, _SPACE = (np.uint8(ord(char)) for char in "&#;x ")
_NO_CHARACTER = -1
_BLOCK_BYTES = 2**26  # of texts whose entities are decoded at once


def normalise(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Entities decoded once, NFKC, invisible characters dropped, white space to single spaces.

    1½ is 1 1/2. The result is `string`, or `large_string` where the texts came so or are over 2 GB;
    `texts.to_arrow` says what is taken and what raises.
    """
    texts = to_arrow(texts)
    needs = np.concatenate([_needs_work(*block) for block in row_blocks(to_texts(texts))])
    if not needs.any():
        return texts
    mask = pa.array(needs)
    odd = _clean(texts.filter(mask))
    if texts.type != odd.type and texts.nbytes + odd.nbytes <= MAX_BYTES:
        odd = odd.cast(texts.type)
    if needs.all():
        return odd
    return pc.replace_with_mask(texts.cast(odd.type), mask, odd)


def _clean(texts: pa.Array) -> pa.LargeStringArray:
    """As `normalise`, for texts that need it; large, for they may grow to the elevenfold."""
    blocks = row_blocks(to_texts(texts), max_bytes=_BLOCK_BYTES)
    odd = pa.concat_arrays([_decode_entities(block) for block in blocks])
    odd = pc.replace_substring_regex(odd, pattern=FRACTION, replacement=r"\1 \2")
    odd = pc.utf8_normalize(odd, form="NFKC")
    odd = pc.replace_substring(odd, pattern=FRACTION_SLASH, replacement="/")
    odd = pc.replace_substring_regex(odd, pattern=_INVISIBLE, replacement="")
    odd = pc.replace_substring_regex(odd, pattern=_SPACES, replacement=" ")
    return pc.utf8_trim(odd, characters=" ")


@compiled
def _needs_work(data: NDArray[np.uint8], offsets: NDArray[np.int32]) -> NDArray[np.bool_]:
    """False for printable ASCII with single spaces inside and no `&`: most texts, as they are."""
    needs = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(needs)):
        before = _SPACE
        for at in range(offsets[row], offsets[row + 1]):
            byte = data[at]
            if byte < 32 or byte > 126 or byte == _AMPERSAND or byte == before == _SPACE:
                needs[row] = True
                break
            before = byte
        if before == _SPACE and offsets[row + 1] > offsets[row]:
            needs[row] = True
    return needs


def _decode_entities(texts: Block) -> pa.LargeStringArray:
    data, offsets = texts
    decoded, stops = _decode_rows(data, offsets, *_named(), _small_codes())
    starts = pa.py_buffer(stops)
    return pa.LargeStringArray.from_buffers(len(stops) - 1, starts, pa.py_buffer(decoded))


@cache
def _named() -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint8]]:
    """Hashes of the names that end in a semicolon, sorted; where each one's UTF-8 begins."""
    texts = {name[:-1]: text.encode() for name, text in html5.items() if name.endswith(";")}
    hashes = hash_texts(pa.array(list(texts)))
    order = np.argsort(hashes)
    parts = [list(texts.values())[at] for at in order]
    starts = np.cumsum([0, *map(len, parts)])
    return hashes[order], starts, np.frombuffer(b"".join(parts), np.uint8)


@cache
def _small_codes() -> NDArray[np.int32]:
    """What `&#0;` to `&#159;` stand for (HTML reads some as Windows-1252); -1: nothing."""
    texts = [html.unescape(f"&#{code};") for code in range(160)]
    return np.array([ord(text) if text else _NO_CHARACTER for text in texts], np.int32)


@compiled
def _decode_rows(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    starts: NDArray[np.int64],
    blob: NDArray[np.uint8],
    small: NDArray[np.int32],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    size = offsets[-1] - offsets[0]
    out = np.empty(size + size // 5 + 8, np.uint8)  # `&nGt;`, the worst, is 5 bytes and becomes 6
    stops = np.zeros(len(offsets), np.int64)
    num = 0
    for row in range(len(offsets) - 1):
        at, stop = offsets[row], offsets[row + 1]
        while at < stop:
            end = _entity_end(data, at, stop) if data[at] == _AMPERSAND else 0
            length = 0
            if end:
                length = _decode_one(data, at + 1, end, hashes, starts, blob, small, out, num)
            if end and length >= 0:
                num += length
                at = end + 1
            else:
                out[num] = data[at]
                num += 1
                at += 1
        stops[row + 1] = num
    return out[:num], stops


@compiled
def _is_alphanumeric(byte: int) -> bool:
    return 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122


@compiled
def _entity_end(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Where the semicolon of the entity that begins at `start` lies; 0 where there is none."""
    for at in range(start + 1, min(stop, start + _LONGEST + 1)):
        if data[at] == _SEMICOLON:
            return at if at > start + 1 else 0
        if not (_is_alphanumeric(data[at]) or (data[at] == _HASH and at == start + 1)):
            return 0
    return 0


@compiled
def _decode_one(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    hashes: NDArray[np.uint64],
    starts: NDArray[np.int64],
    blob: NDArray[np.uint8],
    small: NDArray[np.int32],
    out: NDArray[np.uint8],
    num: int,
) -> int:
    """Write what the entity stands for at `out[num:]`; its bytes, or -1 where it is none."""
    if data[start] == _HASH:
        code = _number(data, start + 1, stop)
        return _write_code(code, small, out, num) if code >= 0 else -1
    key = hash_bytes(data, start, stop)
    found = np.searchsorted(hashes, key)
    if found == len(hashes) or hashes[found] != key:
        return -1
    length = int(starts[found + 1] - starts[found])
    out[num : num + length] = blob[starts[found] : starts[found + 1]]
    return length


@compiled
def _number(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """The value of `931` or `x3A3`; -1 where it is no number, or one of too many digits."""
    is_hex = start < stop and (data[start] | 32) == _X
    base, first = (16, start + 1) if is_hex else (10, start)
    if not 0 < stop - first <= (6 if is_hex else 7):
        return -1
    value = 0
    for at in range(first, stop):
        byte = int(data[at])
        digit = byte - 48 if byte < 58 else (byte | 32) - 87
        if not 0 <= digit < base:
            return -1
        value = value * base + digit
    return value


@compiled
def _write_code(code: int, small: NDArray[np.int32], out: NDArray[np.uint8], num: int) -> int:
    """A code point as UTF-8, by HTML's rules: what is none becomes U+FFFD, noncharacters go."""
    if code < len(small):
        code = small[code]
    elif 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
        code = 0xFFFD
    elif 0xFDD0 <= code <= 0xFDEF or (code & 0xFFFE) == 0xFFFE:
        code = _NO_CHARACTER
    if code == _NO_CHARACTER:
        return 0
    if code < 0x80:
        out[num] = code
        return 1
    size = 2 if code < 0x800 else 3 if code < 0x10000 else 4
    for at in range(size - 1, 0, -1):
        out[num + at] = 0x80 | (code & 0x3F)
        code >>= 6
    out[num] = (0xF00 >> size) & 0xFF | code
    return size
