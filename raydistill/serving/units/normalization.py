"""Normalize sizes and units, compiled: `1-1/2"`, `1.50 inches` and `1 1/2 in` become the same.

Input: folded code points of a text. Output: the same text with its numbers as decimals, the units
after them by their short names, and without the hyphens of model numbers. The specification is
`docs/features.md`. Imports only NumPy and numba.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import borrowing
from raydistill.serving.text.hashing import FNV_OFFSET, FNV_PRIME
from raydistill.serving.units.measures import behind_times, named_unit, signed_unit
from raydistill.serving.units.numerals import (
    BLANK,
    DASH,
    ZERO,
    copy_points,
    is_between_digits,
    is_digit,
    is_number,
    num_digits,
    write_number,
)
from raydistill.serving.units.points import (
    PRIME,
    X,
    end_of_letters,
    first_of_letters,
    is_inside,
    is_letter,
    is_quote,
    is_sign,
)
from raydistill.serving.units.table import UnitTable, name_hash

_L, _DOT, _NINE = ord("l"), 0x2E, ord("9")
# A number before letters is a measure, unless it begins with a zero, or has five digits or more and
# does not end in 00 (12016se): then it is part of a model number.
_MOST_ODD_DIGITS = 4
_MOST_PREFIX_LETTERS = 3  # letters of a model number before its hyphen: wh-1000xm4; not iphone-12
# Words before a hyphen and digits that do not begin a model number.
NO_PREFIXES = (
    *("aa", "aaa", "ac", "box", "dc", "in", "lot", "mid", "new", "no", "non", "of", "pk", "pre"),
    *("set", "to", "top", "up", "usb"),
)
_FIRST_NOT_LATIN = 0x370
_NO_PREFIXES = np.array([name_hash(word) for word in NO_PREFIXES], np.uint64)


@borrowing
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
            inside = is_inside(points[at - 1], kinds)
            continue
        if inside and points[at] == DASH and _joins(points, at, num, kinds, table):
            at += 1
            continue
        if inside and is_digit(points[at]) and _is_version(points, at, num, kinds):
            out[count] = BLANK
            count, inside = count + 1, False
        if inside or not is_number(points, at, num):
            out[count] = points[at]
            inside = is_inside(points[at], kinds)
            at, count = at + 1, count + 1
            continue
        start = at
        at, count = write_number(points, at, num, out, count)
        at, count = _write_units(points, at, num, kinds, table, out, count)
        behind = behind_times(points, at, num, kinds)
        if behind:
            out[count], out[count + 1], out[count + 2] = BLANK, X, BLANK
            at, count = behind, count + 3
        elif out[count - 1] != BLANK and _is_measure(points, start, at, num, kinds):
            out[count] = BLANK
            count += 1
        inside = behind == 0 and out[count - 1] != BLANK
    return count


@borrowing
def _is_measure(
    points: NDArray[np.uint32], start: int, at: int, num: int, kinds: NDArray[np.uint8]
) -> bool:
    """Whether the number start..at and the letters directly after it are separate words.

    True for 5000mah; false for 3d, 1st, 2zy1, and for the model numbers 12016se and 0109dw.
    """
    stop = end_of_letters(points, at, num, kinds)
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


@borrowing
def _is_version(points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]) -> bool:
    """Whether a decimal begins at `at`, directly after letters that begin a word: usb3.0."""
    dot = at + num_digits(points, at, num)
    if dot == num or points[dot] != _DOT or not is_between_digits(points, dot, num):
        return False
    end = dot + 1 + num_digits(points, dot + 1, num)
    if end < num and (is_inside(points[end], kinds) or is_between_digits(points, end, num)):
        return False
    left = first_of_letters(points, at, kinds)
    return at - left > 1 and (left == 0 or not is_inside(points[left - 1], kinds))


@borrowing
def _is_ordinal(first: int, second: int) -> bool:
    """St, nd, rd or th."""
    d, h, n, r, s, t = 100, 104, 110, 114, 115, 116
    return (
        (first == s and second == t)
        or (second == d and (first == n or first == r))
        or (first == t and second == h)
    )


@borrowing
def _joins(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8], table: UnitTable
) -> bool:
    """Whether the hyphen at `at` is inside a model number: WH-1000XM4, not led-60mm or 3-in-1."""
    left = first_of_letters(points, at, kinds)
    if not 0 < at - left <= _MOST_PREFIX_LETTERS or _is_no_prefix(points, left, at):
        return False
    before = int(points[left - 1]) if left else int(BLANK)
    if before == DASH or before == PRIME or is_inside(before, kinds):
        return False
    stop, has_digit = at + 1, False
    while stop < num and is_inside(points[stop], kinds):
        has_digit |= is_digit(points[stop])
        stop += 1
    if not has_digit or (stop < num and is_between_digits(points, stop, num)):
        return False
    if at - left > 1 and stop == at + 2:  # cat-6 is cat 6; a-6 is a6
        return False
    if stop == at + 4 and points[at + 2] == X and points[at + 3] == _L:  # sizes s-3xl
        return False
    return not _is_size(points, at + 1, num, kinds, table)


@borrowing
def _is_no_prefix(points: NDArray[np.uint32], left: int, stop: int) -> bool:
    """Whether the letters left..stop are one of NO_PREFIXES: ac-220v, set-12."""
    state = FNV_OFFSET
    for at in range(left, stop):
        state = (state ^ np.uint64(points[at])) * FNV_PRIME
    for other in _NO_PREFIXES:
        if other == state:
            return True
    return False


@borrowing
def _is_size(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8], table: UnitTable
) -> bool:
    """Whether `at` begins a number directly before its unit: a sign, or two letters or more."""
    end = at + num_digits(points, at, num)
    if end == at or end == num:
        return False
    if is_quote(points[end]) or is_sign(points[end]):
        return True
    place, _, stop = named_unit(points, end, num, kinds, table)
    return place >= 0 and is_letter(points[end], kinds) and stop - end > 1


@borrowing
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
    place, end = signed_unit(points, at, num, kinds, table)
    power = 0
    if place < 0:
        place, power, end = named_unit(points, at, num, kinds, table)
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
        place, power, end = named_unit(points, at, num, kinds, table)
    return at, count


@borrowing
def _write_name(place: int, table: UnitTable, out: NDArray[np.uint32], count: int) -> int:
    start, stop = table.starts[place], table.starts[place + 1]
    count = copy_points(table.letters, start, stop, out, count)
    out[count] = BLANK
    return count + 1
