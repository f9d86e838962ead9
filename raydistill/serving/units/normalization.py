"""Normalize sizes and units, compiled: `1-1/2"`, `1.50 inches` and `1 1/2 in` become the same.

Input: folded code points of a text. Output: the same text with its numbers as decimals, the units
after them by their short names, and without the hyphens of model numbers. The specification is
`docs/features.md`. Imports only NumPy and numba.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import compiled
from raydistill.serving.text.characters import MARK, SINGLE_CHAR_WORD, WORD
from raydistill.serving.text.hashing import FNV_OFFSET, FNV_PRIME
from raydistill.serving.units.numerals import (
    BLANK,
    DASH,
    ZERO,
    copy_points,
    is_between_digits,
    is_digit,
    is_number,
    num_digits,
    past_blanks,
    write_number,
)
from raydistill.serving.units.table import UnitTable, name_hash

_ARTICLE = ord("a")  # `a` is amperes only directly after its number: not in `2 a day`
_QUOTE, _PRIME = 0x22, 0x27  # inches; feet, and two primes inches
_TIMES = (ord("x"), 0xD7, ord("*"), 0x445, 0x3C7)  # the last two: Cyrillic, Greek
_B, _L, _Y, _X = ord("b"), ord("l"), ord("y"), np.uint32(ord("x"))
_DOT, _CARET, _TWO, _THREE, _NINE = 0x2E, 0x5E, ord("2"), ord("3"), ord("9")
# A number before letters is a measure, unless it begins with a zero, or has five digits or more and
# does not end in 00 (12016se): then it is part of a model number.
_MOST_ODD_DIGITS = 4
_MOST_PREFIX_LETTERS = 3  # letters of a model number before its hyphen: wh-1000xm4; not iphone-12
_MOST_DIGITS_BEHIND = 2  # digits of a number directly after a unit
_LEAST_WORD = 4  # letters of a word after the foot sign: 6'runner; not the 80's, nor 6'li
_SIGNS, _SIDES = (ord("%"), ord("°")), tuple(map(ord, "wlhd"))  # width, length, height, depth
# Words before a hyphen and digits that do not begin a model number.
NO_PREFIXES = (
    *("aa", "aaa", "ac", "box", "dc", "in", "lot", "mid", "new", "no", "non", "of", "pk", "pre"),
    *("set", "to", "top", "up", "usb"),
)
_FIRST_NOT_LATIN, _NO_PLACE = 0x370, -1
_NO_PREFIXES = np.array([name_hash(word) for word in NO_PREFIXES], np.uint64)


@compiled
def normalize_units(
    points: NDArray[np.uint32],
    num: int,
    kinds: NDArray[np.uint8],
    table: UnitTable,
    out: NDArray[np.uint32],
) -> int:
    """Write the text with normalized sizes to `out`; return its number of characters.

    `out` must have space for `table.growth` times `num`.
    """
    at, count, inside = 0, 0, False  # inside a word, whose digits are not a number (dcd771)
    while at < num:
        start = at
        while at < num and not DASH <= points[at] <= _NINE:  # most begin no number, join nothing
            out[count] = points[at]
            at, count = at + 1, count + 1
        if at > start:
            inside = _is_inside(points[at - 1], kinds)
            continue
        if inside and points[at] == DASH and _joins(points, at, num, kinds, table):
            at += 1
            continue
        if inside and is_digit(points[at]) and _is_version(points, at, num, kinds):
            out[count] = BLANK
            count, inside = count + 1, False
        if inside or not is_number(points, at, num):
            out[count] = points[at]
            inside = _is_inside(points[at], kinds)
            at, count = at + 1, count + 1
            continue
        start = at
        at, count = write_number(points, at, num, out, count)
        at, count = _write_units(points, at, num, kinds, table, out, count)
        behind = _behind_times(points, at, num, kinds)
        if behind:
            out[count], out[count + 1], out[count + 2] = BLANK, _X, BLANK
            at, count = behind, count + 3
        elif out[count - 1] != BLANK and _is_measure(points, start, at, num, kinds):
            out[count] = BLANK
            count += 1
        inside = behind == 0 and out[count - 1] != BLANK
    return count


@compiled
def _kind(code: int, kinds: NDArray[np.uint8]) -> int:
    return int(kinds[code]) if code < len(kinds) else SINGLE_CHAR_WORD


@compiled
def _is_inside(code: int, kinds: NDArray[np.uint8]) -> bool:
    """Whether a character is part of a word of several characters."""
    return _kind(code, kinds) in (WORD, MARK)


@compiled
def _is_letter(code: int, kinds: NDArray[np.uint8]) -> bool:
    return _is_inside(code, kinds) and not is_digit(code)


@compiled
def _end_of_letters(points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]) -> int:
    while at < num and _is_letter(points[at], kinds):
        at += 1
    return at


@compiled
def _is_measure(
    points: NDArray[np.uint32], start: int, at: int, num: int, kinds: NDArray[np.uint8]
) -> bool:
    """Whether the number start..at and the letters directly after it are separate words.

    True for 5000mah; false for 3d, 1st, 2zy1, and for the model numbers 12016se and 0109dw.
    """
    stop = _end_of_letters(points, at, num, kinds)
    if stop == at or (stop < num and is_digit(points[stop])):
        return False
    if stop - at == 1 and points[at] < _FIRST_NOT_LATIN:
        return False
    if stop - at == 2 and _is_ordinal(points[at], points[at + 1]):
        return False
    whole = start + num_digits(points, start, num)
    if whole - start > 1 and points[start] == ZERO:
        return False
    is_round = points[whole - 1] == ZERO and points[whole - 2] == ZERO
    return whole - start <= _MOST_ODD_DIGITS or is_round


@compiled
def _is_version(points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]) -> bool:
    """Whether a decimal begins at `at`, directly after letters that begin a word: usb3.0."""
    dot = at + num_digits(points, at, num)
    if dot == num or points[dot] != _DOT or not is_between_digits(points, dot, num):
        return False
    end = dot + 1 + num_digits(points, dot + 1, num)
    if end < num and (_is_inside(points[end], kinds) or is_between_digits(points, end, num)):
        return False
    left = _first_of_letters(points, at, kinds)
    return at - left > 1 and (left == 0 or not _is_inside(points[left - 1], kinds))


@compiled
def _first_of_letters(points: NDArray[np.uint32], at: int, kinds: NDArray[np.uint8]) -> int:
    """The start of the run of letters that ends directly before `at`."""
    while at > 0 and _is_letter(points[at - 1], kinds):
        at -= 1
    return at


@compiled
def _is_ordinal(first: int, second: int) -> bool:
    """St, nd, rd or th."""
    d, h, n, r, s, t = 100, 104, 110, 114, 115, 116
    return (
        (first == s and second == t)
        or (second == d and (first == n or first == r))
        or (first == t and second == h)
    )


@compiled
def _joins(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8], table: UnitTable
) -> bool:
    """Whether the hyphen at `at` is inside a model number: WH-1000XM4, not led-60mm or 3-in-1."""
    left = _first_of_letters(points, at, kinds)
    if not 0 < at - left <= _MOST_PREFIX_LETTERS or _is_no_prefix(points, left, at):
        return False
    if left > 0 and (points[left - 1] in (DASH, _PRIME) or _is_inside(points[left - 1], kinds)):
        return False
    stop, has_digit = at + 1, False
    while stop < num and _is_inside(points[stop], kinds):
        has_digit |= is_digit(points[stop])
        stop += 1
    if not has_digit or (stop < num and is_between_digits(points, stop, num)):
        return False
    if at - left > 1 and stop == at + 2:  # cat-6 is cat 6; a-6 is a6
        return False
    if stop == at + 4 and points[at + 2] == _X and points[at + 3] == _L:  # sizes s-3xl
        return False
    return not _is_size(points, at + 1, num, kinds, table)


@compiled
def _is_no_prefix(points: NDArray[np.uint32], left: int, stop: int) -> bool:
    """Whether the letters left..stop are one of NO_PREFIXES: ac-220v, set-12."""
    state = FNV_OFFSET
    for at in range(left, stop):
        state = (state ^ np.uint64(points[at])) * FNV_PRIME
    for other in _NO_PREFIXES:
        if other == state:
            return True
    return False


@compiled
def _is_size(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8], table: UnitTable
) -> bool:
    """Whether `at` begins a number directly before its unit: a sign, or two letters or more."""
    end = at + num_digits(points, at, num)
    if end == at or end == num:
        return False
    if points[end] in (_QUOTE, _PRIME) or points[end] in _SIGNS:
        return True
    place, _, stop = _named(points, end, num, kinds, table)
    return place >= 0 and _is_letter(points[end], kinds) and stop - end > 1


@compiled
def _write_units(
    points: NDArray[np.uint32],
    at: int,
    num: int,
    kinds: NDArray[np.uint8],
    table: UnitTable,
    out: NDArray[np.uint32],
    count: int,
) -> tuple[int, int]:
    """Write the units after a number, each between spaces; return their end in both arrays."""
    place, end = _sign(points, at, num, kinds, table)
    power = 0
    if place < 0:
        place, power, end = _named(points, at, num, kinds, table)
    if place < 0:
        return at, count
    out[count] = BLANK
    count += 1
    while place >= 0:
        if power:
            count = _write_name(table.square if power == 2 else table.cubic, table, out, count)
        count = _write_name(place, table, out, count)
        at = end
        if not table.is_before[place]:
            break
        place, power, end = _named(points, at, num, kinds, table)
    return at, count


@compiled
def _write_name(place: int, table: UnitTable, out: NDArray[np.uint32], count: int) -> int:
    start, stop = table.starts[place], table.starts[place + 1]
    count = copy_points(table.letters, start, stop, out, count)
    out[count] = BLANK
    return count + 1


@compiled
def _sign(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8], table: UnitTable
) -> tuple[int, int]:
    """The unit of a quotation mark after a number, or -1; and its end.

    After a space the mark is a unit only if no word follows: `12 " tv`, not `12 "best of" cards`.
    """
    mark = past_blanks(points, at, num)
    if mark == num or points[mark] not in (_QUOTE, _PRIME):
        return _NO_PLACE, at
    place, end = table.foot, mark + 1
    if points[mark] == _QUOTE:
        place = table.inch
    elif end < num and points[end] == _PRIME:
        place, end = table.inch, mark + 2
    if place == table.inch and mark == at:
        return place, end
    if end == num or not _is_inside(points[end], kinds) or _behind_times(points, end, num, kinds):
        return place, end
    if mark == at and is_digit(points[end]):  # not the 80's
        return place, end
    stop = _end_of_letters(points, end, num, kinds)
    if mark == at and stop - end >= _LEAST_WORD:  # 6'runner
        return place, end
    if mark == at and stop - end == 1 and points[end] in _SIDES:  # 6'h x 8'w
        return place, end
    return _NO_PLACE, at


@compiled
def _named(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8], table: UnitTable
) -> tuple[int, int, int]:
    """The unit whose name follows, or -1; its power (ft2, m³), or 0; and its end."""
    start = stop = _skip(points, at, num)
    state = before = FNV_OFFSET
    while stop < num and stop - start <= table.longest:
        is_name = _is_letter(points[stop], kinds)
        if not is_name and not (stop == start and points[stop] in _SIGNS):
            break
        before, state = state, (state ^ np.uint64(points[stop])) * FNV_PRIME
        stop += 1
        if not is_name:  # a sign is a complete name: 90°c
            break
    place = _place_of(state, table)
    if place < 0 and stop - start > 1 and _is_times_between(points, stop - 1, num):  # 20inx50in
        place = _place_of(before, table)
        return (place, 0, stop - 1) if place >= 0 else (_NO_PLACE, 0, at)
    if place < 0:
        return _NO_PLACE, 0, at
    power, end = _power(points, stop, num, kinds)
    if power and table.is_length[place]:
        return place, power, end
    has_more = stop < num and _is_inside(points[stop], kinds) and points[stop - 1] not in _SIGNS
    if stop - start > 1:
        is_whole = not has_more or _goes_on(points, stop, num, kinds)
        return (place, 0, stop) if is_whole else (_NO_PLACE, 0, at)
    if has_more or (start > at and _is_no_letter_unit(points, at, start, num)):
        return _NO_PLACE, 0, at
    return place, 0, stop


@compiled
def _goes_on(points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]) -> bool:
    """Whether another measure begins at `at`: 6ft3in, 3in1; not 47lb650v."""
    digits = num_digits(points, at, num)
    if not 0 < digits <= _MOST_DIGITS_BEHIND:
        return False
    stop = at + digits
    letters = _end_of_letters(points, stop, num, kinds) - stop
    return letters > 1 or not (stop < num and _is_inside(points[stop], kinds))


@compiled
def _place_of(state: np.uint64, table: UnitTable) -> int:
    """The unit whose name has this hash, or -1."""
    found = np.searchsorted(table.hashes_H, state)
    if found == len(table.hashes_H) or table.hashes_H[found] != state:
        return _NO_PLACE
    return int(table.places_H[found])


@compiled
def _is_times_between(points: NDArray[np.uint32], at: int, num: int) -> bool:
    """Whether `at` is an x directly before a digit."""
    return points[at] == _X and at + 1 < num and is_digit(points[at + 1])


@compiled
def _power(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]
) -> tuple[int, int]:
    """The power 2 or 3 that follows, with or without a caret, and ends a word, or 0; its end."""
    if at < num and points[at] == _CARET:
        at += 1
    if at == num or points[at] not in (_TWO, _THREE):
        return 0, at
    if at + 1 < num and _is_inside(points[at + 1], kinds):
        return 0, at
    return int(points[at]) - 48, at + 1


@compiled
def _is_no_letter_unit(points: NDArray[np.uint32], at: int, start: int, num: int) -> bool:
    """Whether a single letter not directly after its number is no unit: 2 a day, 2 v-neck tees.

    After a dash it is a unit: 18-v-akku.
    """
    if points[start] == _ARTICLE:
        return True
    for place in range(at, start):
        if points[place] == DASH:
            return False
    return start + 1 < num and points[start + 1] == DASH


@compiled
def _skip(points: NDArray[np.uint32], at: int, num: int) -> int:
    """The offset after what may separate a number and its unit: full stop, blanks, one dash."""
    if at < num and points[at] == _DOT and not is_number(points, at, num):
        at += 1
    at = past_blanks(points, at, num)
    if at < num and points[at] == DASH:
        at += 1
    return past_blanks(points, at, num)


@compiled
def _behind_times(points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]) -> int:
    """The start of the number that follows a multiplication sign (x, *, by) at `at`; 0 if none."""
    at = _skip(points, at, num)
    if at < num and points[at] in _TIMES:
        at += 1
    elif at + 1 < num and points[at] == _B and points[at + 1] == _Y:
        at += 2
    else:
        return 0
    at = _skip(points, at, num)
    return at if at < num and is_number(points, at, num) else 0
