"""Raw texts to clean texts on code points in memory: what `text/cleaning.py` does with strings.

A pass is one round of `cleaning._pass`; passes follow until one changes nothing. Every write is
within its buffer, whatever the tables say: a text that does not fit is truncated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.lexicon import find_word
from raydistill.serving.machine_code.emitted import emitted
from raydistill.serving.native.emit.text.unicode import (
    ALNUM,
    DECIMAL,
    FIRST_CONTROL,
    LAST_CONTROL,
    MARK,
    NONE,
    SPACE,
    UNSEEN,
    Points,
    UnicodeTables,
    nfkc,
    signed,
    trait,
)
from raydistill.serving.text.hashing import FNV_OFFSET, FNV_PRIME, mix64

_BLANK, _TILDE, _AMPERSAND, _SEMICOLON, _NUMBER_SIGN, _QUOTE = 0x20, 0x7E, 0x26, 0x3B, 0x23, 0x27
_ORDINAL, _DEGREE, _ACUTE = 0xBA, 0xB0, 0x301
_MOST_NAME, _MOST_DECIMALS, _MOST_HEXADECIMALS = 31, 7, 6
# `cleaning._MOST_PASSES`, then `&` is removed; the second limit is reached by false tables only.
_MOST_PASSES, _LAST_PASS = 16, 64


class Buffers(NamedTuple):
    """Three buffers of one size."""

    text: Points
    first: Points
    second: Points


@emitted
def clean(buffers: Buffers, num: int, tables: UnicodeTables) -> int:
    """Clean the text of `num` code points in `buffers.text`; return its new number."""
    for passes in range(1, _LAST_PASS):
        count = _pass(buffers, num, tables)
        if _is_same(buffers, num, count):
            break
        if passes >= _MOST_PASSES:
            for at in range(num):
                if buffers.text[at] == _AMPERSAND:
                    buffers.text[at] = _BLANK
            count = _pass(buffers, num, tables)
        for at in range(count):
            buffers.text[at] = buffers.first[at]
        num = count
    return num


@emitted
def _is_same(buffers: Buffers, num: int, count: int) -> bool:
    if count != num:
        return False
    for at in range(num):
        if buffers.text[at] != buffers.first[at]:
            return False
    return True


@emitted
def _pass(buffers: Buffers, num: int, tables: UnicodeTables) -> int:
    """One pass over `text`, whose result is in `first`."""
    first, second = buffers.first, buffers.second
    num = _unescape(buffers.text, num, tables, first)
    is_ascii = True
    for at in range(num):
        is_ascii &= first[at] < 0x80
    if not is_ascii:
        num = _without_unseen(first, num, tables)
        num = _split_fractions(first, num, tables, second)
        _write_degrees(second, num, tables)
        num = nfkc(second, num, tables, first)
        num = _collapse(first, _without_unseen(first, num, tables), tables)
        num = _without_stray_marks(first, _write_apostrophes(first, num), tables)
    num = _collapse(first, num, tables)
    start = 1 if num and first[0] == _BLANK else 0
    stop = num - 1 if num > start and first[num - 1] == _BLANK else num
    for at in range(start, stop):
        first[at - start] = first[at]
    return stop - start


@emitted
def _is(points: Points, at: int, bit: int, tables: UnicodeTables) -> bool:
    return trait(signed(points[at]), tables) & bit != 0


@emitted
def _without_unseen(points: Points, num: int, tables: UnicodeTables) -> int:
    count = 0
    for at in range(num):
        if not _is(points, at, UNSEEN, tables):
            points[count] = points[at]
            count += 1
    return count


@emitted
def _collapse(points: Points, num: int, tables: UnicodeTables) -> int:
    """White space of any kind to single blanks, in place."""
    count = 0
    for at in range(num):
        if not _is(points, at, SPACE, tables):
            points[count] = points[at]
            count += 1
        elif count == 0 or points[count - 1] != _BLANK:
            points[count] = _BLANK
            count += 1
    return count


@emitted
def _split_fractions(points: Points, num: int, tables: UnicodeTables, out: Points) -> int:
    """Write a blank between a digit and the fraction after it."""
    at = count = 0
    while at < num and count + 2 <= len(out):
        out[count] = points[at]
        at, count = at + 1, count + 1
        if not _is(points, at - 1, DECIMAL, tables):
            continue
        stop = _end_of_fraction(points, at, num)
        if stop == at:
            continue
        out[count] = _BLANK
        count += 1
        while at < stop and count < len(out):
            out[count] = points[at]
            at, count = at + 1, count + 1
    return count


@emitted
def _end_of_fraction(points: Points, at: int, num: int) -> int:
    """The end of a fraction at `at`: a character, or raised digits and a slash; `at` for none."""
    if at < num and _is_fraction(signed(points[at])):
        return at + 1
    stop = at
    while stop < num and _is_raised(signed(points[stop])):
        stop += 1
    is_whole = stop > at and stop < num and _is_slash(points[stop])
    return stop + 1 if is_whole else at


@emitted
def _is_slash(code: int) -> bool:
    return code == 0x2F or code == 0x2044


@emitted
def _is_fraction(code: int) -> bool:
    return 0xBC <= code <= 0xBE or 0x2150 <= code <= 0x215E or code == 0x2189


@emitted
def _is_raised(code: int) -> bool:
    return code == 0xB9 or 0xB2 <= code <= 0xB3 or code == 0x2070 or 0x2074 <= code <= 0x2079


@emitted
def _write_degrees(points: Points, num: int, tables: UnicodeTables) -> None:
    """º between a digit and C or F becomes °."""
    for at in range(1, num):
        if points[at] != _ORDINAL:
            continue
        before = at - 1
        if points[before] == _BLANK and before > 0:
            before -= 1
        letter = at + 1
        if letter < num and points[letter] == _BLANK:
            letter += 1
        if letter >= num or points[letter] not in (67, 70, 99, 102):  # C F c f
            continue
        ends = letter + 1 == num or not _is(points, letter + 1, ALNUM, tables)
        if ends and _is(points, before, DECIMAL, tables):
            points[at] = _DEGREE


@emitted
def _write_apostrophes(points: Points, num: int) -> int:
    """A blank with an acute becomes an apostrophe, in place."""
    at = count = 0
    while at < num:
        is_acute = points[at] == _BLANK and at + 1 < num and points[at + 1] == _ACUTE
        points[count] = _QUOTE if is_acute else points[at]
        at, count = at + (2 if is_acute else 1), count + 1
    return count


@emitted
def _without_stray_marks(points: Points, num: int, tables: UnicodeTables) -> int:
    """Remove the marks at the start and after a blank, in place."""
    at = count = 0
    while at < num and _is(points, at, MARK, tables):
        at += 1
    while at < num:
        code = points[at]
        points[count] = code
        at, count = at + 1, count + 1
        while code == _BLANK and at < num and _is(points, at, MARK, tables):
            at += 1
    return count


@emitted
def _unescape(points: Points, num: int, tables: UnicodeTables, out: Points) -> int:
    """Decode the entities, those that were escaped again included; never more than `num`."""
    at = count = 0
    while at < num:
        if points[at] != _AMPERSAND:
            out[count] = points[at]
            at, count = at + 1, count + 1
            continue
        start = _past_escapes(points, at + 1, num)
        end = _end_of_entity(points, start, num)
        written = _write_entity(points, start, end, tables, out, count) if end > start else -1
        if written >= 0:
            at, count = end, written
            continue
        out[count] = _AMPERSAND
        at, count = start, count + 1
    return count


@emitted
def _past_escapes(points: Points, at: int, num: int) -> int:
    """The end of `amp;`, `AMP;` or the number of `&`, any number of times: `cleaning._ESCAPED`."""
    while True:
        stop = _past_escape(points, at, num)
        if stop == at:
            return at
        at = stop


@emitted
def _past_escape(points: Points, at: int, num: int) -> int:
    if at + 4 > num:
        return at
    if points[at] == _NUMBER_SIGN:
        is_hex = points[at + 1] in (120, 88)  # x X
        start, most_zeros = (at + 2, 4) if is_hex else (at + 1, 5)
        digit = start
        while digit < num and points[digit] == 48:
            digit += 1
        if digit - start > most_zeros or digit + 3 > num or points[digit + 2] != _SEMICOLON:
            return at
        tens, ones = (50, 54) if is_hex else (51, 56)  # 26, 38
        return digit + 3 if points[digit] == tens and points[digit + 1] == ones else at
    a, m, p = points[at], points[at + 1], points[at + 2]
    is_name = (a == 97 and m == 109 and p == 112) or (a == 65 and m == 77 and p == 80)
    return at + 4 if is_name and points[at + 3] == _SEMICOLON else at


@emitted
def _is_letter(code: int) -> bool:
    return 65 <= code <= 90 or 97 <= code <= 122


@emitted
def _digit(code: int) -> int:
    """The value of a hexadecimal digit, or 16."""
    if 48 <= code <= 57:
        return code - 48
    if 97 <= code <= 102:
        return code - 87
    return code - 55 if 65 <= code <= 70 else 16


@emitted
def _end_of_entity(points: Points, start: int, num: int) -> int:
    """The end of the entity whose `&` is before `start`, its semicolon included; or `start`."""
    at, base, most = start, 0, _MOST_NAME
    if at < num and points[at] == _NUMBER_SIGN:
        at, base, most = at + 1, 10, _MOST_DECIMALS
        if at < num and points[at] in (120, 88):  # x X
            at, base, most = at + 1, 16, _MOST_HEXADECIMALS
    stop = at
    while stop < num and stop - at <= most:
        code = signed(points[stop])
        is_part = (
            _digit(code) < base if base else _is_letter(code) or (stop > at and 48 <= code <= 57)
        )
        if not is_part:
            break
        stop += 1
    is_whole = 0 < stop - at <= most and stop < num and points[stop] == _SEMICOLON
    return stop + 1 if is_whole else start


@emitted
def _write_entity(
    points: Points, start: int, end: int, tables: UnicodeTables, out: Points, count: int
) -> int:
    """Write what an entity means; the new number of code points, -1 for an unknown name."""
    if points[start] == _NUMBER_SIGN:
        code = _number(points, start + 1, end - 1, tables)
        if code >= 0:
            out[count] = code
        return count + 1 if code >= 0 else count
    state = FNV_OFFSET
    for at in range(start, end):
        state = (state ^ np.uint64(points[at])) * FNV_PRIME
    place = find_word(mix64(state), tables.names, tables.name_places)
    if place < 0:
        return -1
    out[count] = tables.signs[2 * place]
    if tables.signs[2 * place + 1] == NONE:
        return count + 1
    out[count + 1] = tables.signs[2 * place + 1]
    return count + 2


@emitted
def _number(points: Points, start: int, stop: int, tables: UnicodeTables) -> int:
    """The code point of a numeric entity as `html.unescape` has it; -1 for none."""
    is_hex = points[start] in (120, 88)
    base, value = (16 if is_hex else 10), 0
    for at in range(start + (1 if is_hex else 0), stop):
        value = value * base + _digit(signed(points[at]))
    if FIRST_CONTROL <= value <= LAST_CONTROL:
        code = signed(tables.controls[value - FIRST_CONTROL])
        return code if code != NONE else -1
    if value == 0 or 0xD800 <= value <= 0xDFFF or value > 0x10FFFF:
        return 0xFFFD
    is_control = (value < 0x20 and value not in (9, 10, 12, 13)) or value == 0x7F
    is_none = 0xFDD0 <= value <= 0xFDEF or (value & 0xFFFE) == 0xFFFE
    return -1 if is_control or is_none else value


@emitted
def is_plain(data: NDArray[np.uint8], most: int) -> bool:
    """Whether a text's first `most` characters are clean: `cleaning.is_odd` finds nothing in them.

    One more byte is looked at: a mark would join the last character. After a last `&` a name may
    follow.
    """
    num = min(len(data), most + 1)
    if num == 0:
        return True
    last = data[num - 1]
    is_odd = data[0] == _BLANK or last == (_BLANK if num == len(data) else _AMPERSAND)
    for at in range(num):
        is_odd |= (data[at] < _BLANK) | (data[at] > _TILDE)
    for at in range(1, num):
        is_blank, before = data[at] == _BLANK, data[at - 1]
        is_odd |= (is_blank & (before == _BLANK)) | ((not is_blank) & (before == _AMPERSAND))
    return not is_odd
