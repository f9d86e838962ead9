"""The units of a run as arrays for compiled code: hashes of names, letters of short names."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.text.characters import fold
from raydistill.serving.text.hashing import FNV_OFFSET, FNV_PRIME
from raydistill.serving.units.names import BEFORE_OTHERS, LENGTHS, UNITS, Names


class UnitTable(NamedTuple):
    """The units as arrays for compiled code: H names, U units."""

    hashes_H: NDArray[np.uint64]  # of the names, sorted
    places_H: NDArray[np.int64]  # the unit of each name, as index into U
    letters: NDArray[np.uint32]  # of all short names, concatenated
    starts: NDArray[np.int64]  # offset of each short name in `letters`, U + 1
    is_before: NDArray[np.bool_]  # U: another unit may follow
    is_length: NDArray[np.bool_]  # U: may be squared or cubed
    longest: int  # letters of the longest name
    growth: int  # most output characters per input character
    inch: int
    foot: int
    square: int
    cubic: int


@cache
def unit_table(extra: Names = ()) -> UnitTable:
    """The built-in units and `extra`: further names of built-in units, or new units.

    A name that occurs more than once belongs to the last unit that has it.
    """
    shorts = list(dict.fromkeys([*UNITS, *(fold(short) for short, _ in extra)]))
    place_of = {
        name: shorts.index(fold(short))
        for short, names in (*UNITS.items(), *extra)
        for name in (fold(short), *fold(names).split())
    }
    named = sorted((name_hash(name), place, len(name)) for name, place in place_of.items())
    hashes, places, lengths = zip(*named, strict=True)
    return UnitTable(
        np.array(hashes, np.uint64),
        np.array(places, np.int64),
        np.array([ord(char) for short in shorts for char in short], np.uint32),
        np.cumsum([0, *map(len, shorts)]),
        np.array([short in BEFORE_OTHERS for short in shorts]),
        np.array([short in LENGTHS for short in shorts]),
        max(lengths),
        max(_growth(len(shorts[place]), len(name)) for name, place in place_of.items()),
        *(shorts.index(short) for short in ("in", "ft", "sq", "cu")),
    )


def _growth(num_short: int, num_name: int) -> int:
    """Output characters per input character in the worst cases `1%` (to `1 percent `) and `1%x`."""
    alone, times = (3 + num_short) / (1 + num_name), (6 + num_short) / (2 + num_name)
    return math.ceil(max(alone, times))


def name_hash(name: str) -> int:
    """FNV-1a of the code points of a name, without the finaliser."""
    state = int(FNV_OFFSET)
    for char in name:
        state = (state ^ ord(char)) * int(FNV_PRIME) % 2**64
    return state
