"""Sizes and units in one spelling, compiled: `1-1/2"`, `1.50 inches` and `1 1/2 in` are one.

Comes in: lower-case code points of a text. Goes out: the same with its numbers as decimals and the
units behind them by their short names. `docs/ngrams.md` is the specification. Needs numpy and numba
alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.compiled import compiled
from raydistill.hashing import FNV_OFFSET, FNV_PRIME
from raydistill.words import SOLO, SPACE, WORD, is_digit

GROWTH = 5  # `1%`, the worst, becomes `1 percent `

# What a unit is called behind a number, and its other names there. Not in it: single letters that
# mean other things as often (c, f, h, s, t). Bundles are read by this table: a change of it, or of
# the rules below, is a new `raydistill.FORMAT`.
UNITS = {
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yds yard yards",
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "cms centimeter centimeters centimetre centimetres",
    "m": "mtr mtrs meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres",
    "sq": "square",
    "cu": "cubic",
    "fl": "fluid",
    "oz": "ounce ounces",
    "lb": "lbs pound pounds",
    "mg": "milligram milligrams",
    "g": "gm gms gram grams",
    "kg": "kgs kilo kilos kilogram kilograms",
    "ml": "milliliter milliliters millilitre millilitres",
    "l": "ltr ltrs liter liters litre litres",
    "pt": "pint pints",
    "qt": "qts quart quarts",
    "gal": "gals gallon gallons",
    "volt": "v volts",
    "watt": "w watts",
    "kw": "kilowatt kilowatts",
    "amp": "a amps ampere amperes",
    "hp": "horsepower",
    "k": "kelvin",
    "lumen": "lm lumens",
    "hz": "hertz",
    "mb": "megabyte megabytes",
    "gb": "gigabyte gigabytes",
    "tb": "terabyte terabytes",
    "gauge": "ga",
    "ton": "tons tonne tonnes",
    "degree": "° deg degrees",
    "percent": "% pct",
    "pack": "pk pks packs",
    "count": "ct cts counts",
    "piece": "pc pcs pieces",
    "minute": "min mins minutes",
    "hour": "hr hrs hours",
    "month": "mo mos months",
    "year": "yr yrs years",
}
_ARTICLE = ord("a")  # `a` is amperes only right behind its number: 2 a day
_QUOTES, _PRIMES = (0x22, 0x201D), (0x27, 0x2019, 0x2032)  # inches; feet, and two of them inches
_TIMES = (ord("x"), 0xD7, ord("*"))
_B, _Y, _X = ord("b"), ord("y"), np.uint32(ord("x"))
_DOT, _COMMA, _SLASH, _DASH = 0x2E, 0x2C, 0x2F, 0x2D
_MARKS = (_DOT, _COMMA, _SLASH)  # may stand between the digits of one number
_SIGNS = (ord("%"), ord("°"))
_BLANK, _ZERO = np.uint32(0x20), np.uint32(0x30)
_MOST_HALVINGS = 6  # 1/64 is the smallest
_THOUSANDS_DIGITS = 3  # before the first comma, at most
_MOST_WHOLE_DIGITS = 2  # of a number with a fraction behind it: `model 268 1/4 in` is not 268.25


def _hash(name: str) -> int:
    state = int(FNV_OFFSET)
    for char in name:
        state = (state ^ ord(char)) * int(FNV_PRIME) % 2**64
    return state


_NAMES = sorted((_hash(name), place, len(name))
                for place, unit in enumerate(UNITS)
                for name in (unit, *UNITS[unit].split()))  # fmt: skip
_HASHES = np.array([key for key, *_ in _NAMES], np.uint64)
_PLACES = np.array([place for _, place, _ in _NAMES], np.int64)
_LONGEST_NAME = max(length for *_, length in _NAMES)
_LETTERS = np.array([ord(char) for unit in UNITS for char in unit], np.uint32)
_STARTS = np.cumsum([0, *map(len, UNITS)])
_IN, _FT, *_MODIFIERS = (list(UNITS).index(unit) for unit in ("in", "ft", "sq", "cu", "fl"))
_BEFORE_OTHERS = tuple(_MODIFIERS)  # sq ft, cu in, fl oz


@compiled
def respell(
    points: NDArray[np.uint32], num: int, kinds: NDArray[np.uint8], out: NDArray[np.uint32]
) -> int:
    """The text with its sizes in one spelling in `out`; how many characters that are.

    `out` has room for GROWTH times `num`.
    """
    at = count = 0
    inside = False  # a word: its digits are no number (dcd771)
    while at < num:
        if inside or not _is_number(points, at, num):
            out[count] = points[at]
            inside = _kind(points[at], kinds) == WORD
            at, count = at + 1, count + 1
            continue
        at, count = _write_number(points, at, num, out, count)
        at, count = _write_units(points, at, num, kinds, out, count)
        behind = _behind_times(points, at, num, kinds)
        if behind:
            out[count], out[count + 1], out[count + 2] = _BLANK, _X, _BLANK
            at, count = behind, count + 3
        inside = behind == 0 and out[count - 1] != _BLANK
    return count


@compiled
def _kind(code: int, kinds: NDArray[np.uint8]) -> int:
    return int(kinds[code]) if code < len(kinds) else SOLO


@compiled
def _is_number(points: NDArray[np.uint32], at: int, num: int) -> bool:
    if points[at] == _DOT:
        if at and points[at - 1] == _DOT:
            return False
        at += 1
    return at < num and is_digit(points[at])


@compiled
def _write_number(
    points: NDArray[np.uint32], at: int, num: int, out: NDArray[np.uint32], count: int
) -> tuple[int, int]:
    """Write the number that begins at `at`; where it ends in both."""
    start = at
    while at < num and is_digit(points[at]):
        at += 1
    whole = at
    if 0 < at - start <= _THOUSANDS_DIGITS and points[start] != _ZERO:
        while at < num and points[at] == _COMMA and _num_digits(points, at + 1, num) == 3:
            at += 4
    end, split, num_marks = at, at, 0
    while end + 1 < num and points[end] in _MARKS and is_digit(points[end + 1]):
        split, num_marks = end, num_marks + 1
        end += 1 + _num_digits(points, end + 1, num)
    if num_marks > 1:  # a version, a date, a list: as it is
        return end, _copy(points, start, end, out, count)
    if num_marks and points[split] == _SLASH:
        written = 0
        if whole == at:
            written = _write_fraction(points, start, split, end, out, count, 0)
        return end, written if written else _copy(points, start, end, out, count)
    count = _copy_digits(points, start, at, out, count)
    if num_marks:
        return end, _write_decimals(points, split + 1, end, out, count, start == split)
    if whole == at and 0 < at - start <= _MOST_WHOLE_DIGITS:
        return _write_rest(points, at, num, out, count)
    return at, count


@compiled
def _num_digits(points: NDArray[np.uint32], at: int, num: int) -> int:
    start = at
    while at < num and is_digit(points[at]):
        at += 1
    return at - start


@compiled
def _copy(
    points: NDArray[np.uint32], start: int, stop: int, out: NDArray[np.uint32], count: int
) -> int:
    for at in range(start, stop):
        out[count] = points[at]
        count += 1
    return count


@compiled
def _copy_digits(
    points: NDArray[np.uint32], start: int, stop: int, out: NDArray[np.uint32], count: int
) -> int:
    """Copy a whole number without the commas between its thousands."""
    for at in range(start, stop):
        if points[at] != _COMMA:
            out[count] = points[at]
            count += 1
    return count


@compiled
def _write_decimals(
    points: NDArray[np.uint32],
    start: int,
    stop: int,
    out: NDArray[np.uint32],
    count: int,
    bare: bool,
) -> int:
    """Write a point and what is behind it, less the zeros at its end; `bare`: none is before."""
    if bare:
        out[count] = _ZERO
        count += 1
    while stop > start and points[stop - 1] == _ZERO:
        stop -= 1
    if stop == start:
        return count
    out[count] = np.uint32(_DOT)
    return _copy(points, start, stop, out, count + 1)


@compiled
def _write_rest(
    points: NDArray[np.uint32], at: int, num: int, out: NDArray[np.uint32], count: int
) -> tuple[int, int]:
    """Write the fraction behind a whole number (1 1/2, 1-1/2), if there is one."""
    if at + 3 < num and (points[at] == _BLANK or points[at] == _DASH):
        split = at + 1 + _num_digits(points, at + 1, num)
        if split > at + 1 and split + 1 < num and points[split] == _SLASH:
            end = split + 1 + _num_digits(points, split + 1, num)
            more = end + 1 < num and points[end] in _MARKS and is_digit(points[end + 1])
            written = 0 if more else _write_fraction(points, at + 1, split, end, out, count, 1)
            if written:
                return end, written
    return at, count


@compiled
def _write_fraction(
    points: NDArray[np.uint32],
    start: int,
    split: int,
    stop: int,
    out: NDArray[np.uint32],
    count: int,
    whole: int,
) -> int:
    """Write p/q as decimals, behind a number if there is a `whole` one; 0 where it is no measure.

    A measure is below 1 and in halves, quarters, ... 64ths: q = 2^k, p/q = p 5^k / 10^k.
    """
    over, under = _value(points, start, split), _value(points, split + 1, stop)
    halvings = 0
    while halvings <= _MOST_HALVINGS and (1 << halvings) != under:
        halvings += 1
    if not 0 < over < under or halvings > _MOST_HALVINGS:
        return 0
    if not whole:
        out[count] = _ZERO
        count += 1
    out[count] = np.uint32(_DOT)
    digits, size = over * 5**halvings, halvings
    while digits % 10 == 0:
        digits, size = digits // 10, size - 1
    for place in range(size, 0, -1):
        out[count + place] = _ZERO + np.uint32(digits % 10)
        digits //= 10
    return count + 1 + size


@compiled
def _value(points: NDArray[np.uint32], start: int, stop: int) -> int:
    """A whole number below 1,000; -1 for a longer one."""
    if not 0 < stop - start <= 3:
        return -1
    value = 0
    for at in range(start, stop):
        value = value * 10 + int(points[at]) - 48
    return value


@compiled
def _write_units(
    points: NDArray[np.uint32],
    at: int,
    num: int,
    kinds: NDArray[np.uint8],
    out: NDArray[np.uint32],
    count: int,
) -> tuple[int, int]:
    """Write the units that follow a number, each between spaces; where they end in both."""
    place, end = _sign(points, at, num, kinds)
    if place < 0:
        place, end = _named(points, at, num, kinds)
    if place < 0:
        return at, count
    out[count] = _BLANK
    while place >= 0:
        count = _copy(_LETTERS, _STARTS[place], _STARTS[place + 1], out, count + 1)
        out[count] = _BLANK
        at = end
        if place not in _BEFORE_OTHERS:
            break
        place, end = _named(points, at, num, kinds)
    return at, count + 1


@compiled
def _sign(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]
) -> tuple[int, int]:
    """The unit that a quotation mark right behind a number stands for, or -1; where it ends."""
    if at < num and points[at] in _QUOTES:
        return _IN, at + 1
    if at < num and points[at] in _PRIMES:
        if at + 1 < num and points[at + 1] in _PRIMES:
            return _IN, at + 2
        if at + 1 == num or _kind(points[at + 1], kinds) != WORD or is_digit(points[at + 1]):
            return _FT, at + 1  # not the 80's
    return -1, at


@compiled
def _named(
    points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]
) -> tuple[int, int]:
    """The unit whose name comes next, as a word of its own, or -1; where it ends."""
    start = stop = _skip(points, at, num, kinds)
    state = FNV_OFFSET
    while stop < num and stop - start <= _LONGEST_NAME:
        is_name = _kind(points[stop], kinds) == WORD and not is_digit(points[stop])
        if not is_name and not (stop == start and points[stop] in _SIGNS):
            break
        state = (state ^ np.uint64(points[stop])) * FNV_PRIME
        stop += 1
        if not is_name:  # a sign ends itself: 90°c
            break
    ends = stop == num or _kind(points[stop], kinds) != WORD or points[stop - 1] in _SIGNS
    if stop == start or not ends:
        return -1, at
    if stop - start == 1 and start > at and _is_no_letter_unit(points, start, num):
        return -1, at
    found = np.searchsorted(_HASHES, state)
    if found == len(_HASHES) or _HASHES[found] != state:
        return -1, at
    return int(_PLACES[found]), stop


@compiled
def _is_no_letter_unit(points: NDArray[np.uint32], at: int, num: int) -> bool:
    """Whether one letter apart from its number means something else: 2 a day, 2 v-neck tees."""
    return points[at] == _ARTICLE or (at + 1 < num and points[at + 1] == _DASH)


@compiled
def _skip(points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]) -> int:
    """Past what may stand between a number and its unit: a full stop, spaces, one dash."""
    if at < num and points[at] == _DOT and not _is_number(points, at, num):
        at += 1
    while at < num and _kind(points[at], kinds) == SPACE:
        at += 1
    if at < num and points[at] == _DASH:
        at += 1
    while at < num and _kind(points[at], kinds) == SPACE:
        at += 1
    return at


@compiled
def _behind_times(points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]) -> int:
    """Where the number begins that a sign of multiplication parts from the one before; 0: none."""
    at = _skip(points, at, num, kinds)
    if at < num and points[at] in _TIMES:
        at += 1
    elif at + 1 < num and points[at] == _B and points[at + 1] == _Y:
        at += 2
    else:
        return 0
    at = _skip(points, at, num, kinds)
    return at if at < num and _is_number(points, at, num) else 0
