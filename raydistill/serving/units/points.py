"""What a code point is beside numbers, and runs of letters, compiled.

Imports only NumPy and numba.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import borrowing
from raydistill.serving.text.characters import MARK, SINGLE_CHAR_WORD, WORD
from raydistill.serving.units.numerals import is_digit

QUOTE, PRIME = 0x22, 0x27  # inches; feet, and two primes inches
X = np.uint32(ord("x"))
_PERCENT, _DEGREE = ord("%"), ord("°")
_WIDTH, _LENGTH, _HEIGHT, _DEPTH = map(ord, "wlhd")
# What is written for x.
_CROSS, _STAR, _CYRILLIC_X, _CHI = 0xD7, ord("*"), 0x445, 0x3C7


@borrowing
def _kind(code: int, kinds: NDArray[np.uint8]) -> int:
    """Its class; `kinds` as in `characters.py`."""
    return int(kinds[code]) if code < len(kinds) else SINGLE_CHAR_WORD


@borrowing
def is_inside(code: int, kinds: NDArray[np.uint8]) -> bool:
    """Whether a character is part of a word of several characters."""
    kind = _kind(code, kinds)
    return (kind == WORD) | (kind == MARK)


@borrowing
def is_letter(code: int, kinds: NDArray[np.uint8]) -> bool:
    """Part of a word of several characters, and no digit."""
    return is_inside(code, kinds) and not is_digit(code)


@borrowing
def is_quote(code: int) -> bool:
    """The sign of inches or feet."""
    return (code == QUOTE) | (code == PRIME)


@borrowing
def is_sign(code: int) -> bool:
    """A unit that is no letter."""
    return (code == _PERCENT) | (code == _DEGREE)


@borrowing
def is_side(code: int) -> bool:
    """Width, length, height or depth."""
    return (code == _WIDTH) | (code == _LENGTH) | (code == _HEIGHT) | (code == _DEPTH)


@borrowing
def is_times(code: int) -> bool:
    """A multiplication sign, or what looks like one: 2 x 4, 2*4."""
    is_x = (code == X) | (code == _CYRILLIC_X) | (code == _CHI)
    return is_x | (code == _CROSS) | (code == _STAR)


@borrowing
def end_of_letters(points: NDArray[np.uint32], at: int, num: int, kinds: NDArray[np.uint8]) -> int:
    """The end of the run of letters that begins at `at`."""
    while at < num and is_letter(points[at], kinds):
        at += 1
    return at


@borrowing
def first_of_letters(points: NDArray[np.uint32], at: int, kinds: NDArray[np.uint8]) -> int:
    """The start of the run of letters that ends directly before `at`."""
    while at > 0 and is_letter(points[at - 1], kinds):
        at -= 1
    return at
