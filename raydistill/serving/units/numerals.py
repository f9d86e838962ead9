"""Normalize numbers, compiled: `1,000`, `1 000` and `1000.0` become one, as do 1-1/2 and 1.5.

Input: folded code points of a text. Output: the number that begins at one of them, as a decimal.
The specification is `docs/features.md`. Imports only NumPy and numba.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import borrowing

BLANK, ZERO = np.uint32(0x20), np.uint32(0x30)
DASH = 0x2D
_DOT, _COMMA, _SLASH = 0x2E, 0x2C, 0x2F
_APOSTROPHE = 0x27
_MOST_HALVINGS = 6  # 1/64 is the smallest fraction
_MOST_GROUPS = 4  # groups of thousands after blanks
_GROUP_DIGITS = 3  # digits between two commas, and at most before the first
_MOST_WHOLE_DIGITS = 2  # of a number before a fraction: `model 268 1/4 in` is not 268.25


@borrowing
def is_digit(code: int) -> bool:
    """Whether a code point is one of 0 to 9."""
    return 48 <= code <= 57


@borrowing
def is_number(points: NDArray[np.uint32], at: int, num: int) -> bool:
    """Whether `at` is a digit, or a point before a digit and not after another point."""
    if points[at] == _DOT:
        if at and points[at - 1] == _DOT:
            return False
        at += 1
    return at < num and is_digit(points[at])


@borrowing
def num_digits(points: NDArray[np.uint32], at: int, num: int) -> int:
    """Number of consecutive digits from `at` on."""
    start = at
    while at < num and is_digit(points[at]):
        at += 1
    return at - start


@borrowing
def is_between_digits(points: NDArray[np.uint32], at: int, num: int) -> bool:
    """Whether `at` is a point, a comma or a slash that a digit follows."""
    is_mark = (points[at] == _DOT) | (points[at] == _COMMA) | (points[at] == _SLASH)
    return is_mark and at + 1 < num and is_digit(points[at + 1])


@borrowing
def _is_group(points: NDArray[np.uint32], at: int, num: int) -> bool:
    """Whether `at` is a comma before three digits: 1,000, or an apostrophe (Swiss shops)."""
    is_comma = (points[at] == _COMMA) | (points[at] == _APOSTROPHE)
    return is_comma and num_digits(points, at + 1, num) == _GROUP_DIGITS


@borrowing
def past_blanks(points: NDArray[np.uint32], at: int, num: int) -> int:
    """The offset after the blanks that begin at `at`; `at` without a blank."""
    while at < num and points[at] == BLANK:
        at += 1
    return at


@borrowing
def write_number(
    points: NDArray[np.uint32], at: int, num: int, out: NDArray[np.uint32], count: int
) -> tuple[int, int]:
    """Write the number that begins at `at`; return its end in `points` and in `out`."""
    start = at
    at += num_digits(points, at, num)
    whole = at
    if 0 < at - start <= _GROUP_DIGITS and points[start] != ZERO:
        while at < num and _is_group(points, at, num):
            at += 4
        if at == whole:
            at = _end_of_groups(points, at, num)
    end, split, num_marks = at, at, 0
    while end < num and is_between_digits(points, end, num):
        split, num_marks = end, num_marks + 1
        end += 1 + num_digits(points, end + 1, num)
    if num_marks > 1:  # a version, a date, a list: unchanged
        return end, copy_points(points, start, end, out, count)
    if num_marks and points[split] == _SLASH:
        written = 0
        if whole == at:
            written = _write_fraction(points, start, split, end, out, count, 0)
        return end, written if written else copy_points(points, start, end, out, count)
    count = _copy_digits(points, start, at, out, count)
    if num_marks:
        return end, _write_decimals(points, split + 1, end, out, count, start == split)
    if whole == at and 0 < at - start <= _MOST_WHOLE_DIGITS:
        return _write_rest(points, at, num, out, count)
    return at, count


@borrowing
def _end_of_groups(points: NDArray[np.uint32], at: int, num: int) -> int:
    """The end of blank-separated groups of three digits, the last of them 000 (1 000); or `at`.

    Other groups are separate numbers: usb 3 128 gb, 18 135mm.
    """
    stop = at
    for _ in range(_MOST_GROUPS):
        if stop < num and points[stop] == BLANK and num_digits(points, stop + 1, num) == 3:
            stop += 4
    if stop == at or (stop < num and is_between_digits(points, stop, num)):
        return at
    zeros = points[stop - 3 : stop]
    return stop if zeros[0] == zeros[1] == zeros[2] == ZERO else at


@borrowing
def copy_points(
    points: NDArray[np.uint32], start: int, stop: int, out: NDArray[np.uint32], count: int
) -> int:
    """Append the code points start..stop to `out`; return the new number of code points in it."""
    for at in range(start, stop):
        out[count] = points[at]
        count += 1
    return count


@borrowing
def _copy_digits(
    points: NDArray[np.uint32], start: int, stop: int, out: NDArray[np.uint32], count: int
) -> int:
    """Append the digits of an integer without its thousands separators; return the new count."""
    for at in range(start, stop):
        if is_digit(points[at]):
            out[count] = points[at]
            count += 1
    return count


@borrowing
def _write_decimals(
    points: NDArray[np.uint32],
    start: int,
    stop: int,
    out: NDArray[np.uint32],
    count: int,
    bare: bool,
) -> int:
    """Write a point and decimals without trailing zeros; `bare`: no digit before it, write 0."""
    if bare:
        out[count] = ZERO
        count += 1
    while stop > start and points[stop - 1] == ZERO:
        stop -= 1
    if stop == start:
        return count
    out[count] = np.uint32(_DOT)
    return copy_points(points, start, stop, out, count + 1)


@borrowing
def _write_rest(
    points: NDArray[np.uint32], at: int, num: int, out: NDArray[np.uint32], count: int
) -> tuple[int, int]:
    """Write the fraction after an integer (1 1/2, 1-1/2, 1 - 1/2), if there is one."""
    start = past_blanks(points, at, num)
    if start < num and points[start] == DASH:
        start = past_blanks(points, start + 1, num)
    split = start + num_digits(points, start, num)
    if start > at and split > start and split + 1 < num and points[split] == _SLASH:
        end = split + 1 + num_digits(points, split + 1, num)
        more = end < num and is_between_digits(points, end, num)
        written = 0 if more else _write_fraction(points, start, split, end, out, count, 1)
        if written:
            return end, written
    return at, count


@borrowing
def _write_fraction(
    points: NDArray[np.uint32],
    start: int,
    split: int,
    stop: int,
    out: NDArray[np.uint32],
    count: int,
    whole: int,
) -> int:
    """Write p/q as decimals, after an integer if `whole`; return the new count, 0 if not a measure.

    A measure is below 1, in lowest terms, in halves, quarters, ... 64ths: q = 2^k, p/q = p 5^k /
    10^k. 4/64 GB is not a measure but two sizes.
    """
    over, under = _value(points, start, split), _value(points, split + 1, stop)
    halvings = 0
    while halvings <= _MOST_HALVINGS and (1 << halvings) != under:
        halvings += 1
    if not 0 < over < under or over % 2 == 0 or halvings > _MOST_HALVINGS:
        return 0
    if not whole:
        out[count] = ZERO
        count += 1
    out[count] = np.uint32(_DOT)
    digits, size = over * 5**halvings, halvings
    while digits % 10 == 0:
        digits, size = digits // 10, size - 1
    for place in range(size, 0, -1):
        out[count + place] = ZERO + np.uint32(digits % 10)
        digits //= 10
    return count + 1 + size


@borrowing
def _value(points: NDArray[np.uint32], start: int, stop: int) -> int:
    """The integer at start..stop, if it has 1 to 3 digits; otherwise -1."""
    if not 0 < stop - start <= 3:
        return -1
    value = 0
    for at in range(start, stop):
        value = value * 10 + int(points[at]) - 48
    return value
