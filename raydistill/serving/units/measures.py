"""The unit of a number, compiled: by its sign or name, with a power, and what follows it.

Input: folded code points of a text and the offset behind a number. Imports only NumPy and numba.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import borrowing
from raydistill.serving.text.hashing import FNV_OFFSET, FNV_PRIME
from raydistill.serving.units.numerals import DASH, is_digit, is_number, num_digits, past_blanks
from raydistill.serving.units.points import (
    PRIME,
    QUOTE,
    X,
    end_of_letters,
    is_inside,
    is_letter,
    is_quote,
    is_side,
    is_sign,
    is_times,
)
from raydistill.serving.units.table import UnitTable

_ARTICLE = ord("a")  # `a` is amperes only directly after its number: not in `2 a day`
_B, _Y = ord("b"), ord("y")
_DOT, _CARET, _TWO, _THREE = 0x2E, 0x5E, ord("2"), ord("3")
_MOST_DIGITS_BEHIND = 2  # digits of a number directly after a unit
_LEAST_WORD = 4  # letters of a word after the foot sign: 6'runner; not the 80's, nor 6'li
_NO_PLACE = -1


@borrowing
def signed_unit(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8], table: UnitTable
) -> tuple[int, int]:
    """The unit of a quotation mark after a number, or -1; and its end.

    After a space the mark is a unit only if no word follows: `12 " tv`, not `12 "best of" cards`.
    """
    mark = past_blanks(points, at, num)
    if mark == num or not is_quote(points[mark]):
        return _NO_PLACE, at
    place, end = table.foot, mark + 1
    if points[mark] == QUOTE:
        place = table.inch
    elif end < num and points[end] == PRIME:
        place, end = table.inch, mark + 2
    if place == table.inch and mark == at:
        return place, end
    if end == num or not is_inside(points[end], kinds) or behind_times(points, end, num, kinds):
        return place, end
    if mark == at and is_digit(points[end]):  # not the 80's
        return place, end
    stop = end_of_letters(points, end, num, kinds)
    if mark == at and stop - end >= _LEAST_WORD:  # 6'runner
        return place, end
    if mark == at and stop - end == 1 and is_side(points[end]):  # 6'h x 8'w
        return place, end
    return _NO_PLACE, at


@borrowing
def named_unit(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8], table: UnitTable
) -> tuple[int, int, int]:
    """The unit whose name follows, or -1; its power (ft2, m³), or 0; and its end."""
    start = stop = _skip(points, at, num)
    state = before = FNV_OFFSET
    while stop < num and stop - start <= table.longest:
        is_name = is_letter(points[stop], kinds)
        if not is_name and not (stop == start and is_sign(points[stop])):
            break
        before, state = state, (state ^ np.uint64(points[stop])) * FNV_PRIME
        stop += 1
        if not is_name:  # a sign is a complete name: 90°c
            break
    place = _place_of(state, table) if stop > start else _NO_PLACE
    if place < 0 and stop - start > 1 and _is_times_between(points, stop - 1, num):  # 20inx50in
        place = _place_of(before, table)
        return (place, 0, stop - 1) if place >= 0 else (_NO_PLACE, 0, at)
    if place < 0:
        return _NO_PLACE, 0, at
    power, end = _power(points, stop, num, kinds)
    if power and table.is_length[place]:
        return place, power, end
    ends = is_sign(points[stop - 1])
    has_more = not ends and stop < num and is_inside(points[stop], kinds)
    if stop - start > 1:
        is_whole = not has_more or _goes_on(points, stop, num, kinds)
        return (place, 0, stop) if is_whole else (_NO_PLACE, 0, at)
    if has_more or (start > at and _is_no_letter_unit(points, at, start, num)):
        return _NO_PLACE, 0, at
    return place, 0, stop


@borrowing
def _goes_on(points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]) -> bool:
    """Whether another measure begins at `at`: 6ft3in, 3in1; not 47lb650v."""
    digits = num_digits(points, at, num)
    if not 0 < digits <= _MOST_DIGITS_BEHIND:
        return False
    stop = at + digits
    letters = end_of_letters(points, stop, num, kinds) - stop
    return letters > 1 or not (stop < num and is_inside(points[stop], kinds))


@borrowing
def _place_of(state: np.uint64, table: UnitTable) -> int:
    """The unit whose name has this hash, or -1."""
    found, size = 0, len(table.hashes_H)
    if size == 0:
        return _NO_PLACE
    while size > 1:  # no branch depends on the name
        half = size >> 1
        found += half if table.hashes_H[found + half] <= state else 0
        size -= half
    return int(table.places_H[found]) if table.hashes_H[found] == state else _NO_PLACE


@borrowing
def _is_times_between(points: NDArray[np.uint32], at: int, num: int) -> bool:
    """Whether `at` is an x directly before a digit."""
    return points[at] == X and at + 1 < num and is_digit(points[at + 1])


@borrowing
def _power(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]
) -> tuple[int, int]:
    """The power 2 or 3 that follows, with or without a caret, and ends a word, or 0; its end."""
    if at < num and points[at] == _CARET:
        at += 1
    if at == num or (points[at] != _TWO and points[at] != _THREE):
        return 0, at
    if at + 1 < num and is_inside(points[at + 1], kinds):
        return 0, at
    return int(points[at]) - 48, at + 1


@borrowing
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


@borrowing
def _skip(points: NDArray[np.uint32], at: int, num: int) -> int:
    """The offset after what may separate a number and its unit: full stop, blanks, one dash."""
    if at < num and points[at] == _DOT and not is_number(points, at, num):
        at += 1
    at = past_blanks(points, at, num)
    if at < num and points[at] == DASH:
        at += 1
    return past_blanks(points, at, num)


@borrowing
def behind_times(points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]) -> int:
    """The start of the number that follows a multiplication sign (x, *, by) at `at`; 0 if none."""
    at = _skip(points, at, num)
    if at < num and is_times(points[at]):
        at += 1
    elif at + 1 < num and points[at] == _B and points[at + 1] == _Y:
        at += 2
    else:
        return 0
    at = _skip(points, at, num)
    return at if at < num and is_number(points, at, num) else 0
