"""Model files with false numbers, whose checksum is right all the same."""

import random

import numpy as np

from raydistill.serving.native.layout import (
    AT,
    HEADER_BYTES,
    ITEM_TYPES,
    SECTION,
    SECTIONS,
    TYPE_FIELDS,
    checksum,
)

_NUMBERS = (0, 1, -1, 2, 63, 64, 127, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
# Sections whose values other functions follow.
INDEXES = [name for name in SECTIONS if name not in ("idf", "vectors", "dense_mean", "table")]


def header_of(data: np.ndarray) -> np.ndarray:
    return data[:HEADER_BYTES].view("<i8")


def section(data: np.ndarray, name: str) -> np.ndarray:
    """A view of a section, to write to."""
    header = header_of(data)
    kind = SECTIONS[name] or ITEM_TYPES[header[AT[TYPE_FIELDS[name]]]]
    offset, items = header[SECTION[name] : SECTION[name] + 2].tolist()
    return data[offset : offset + items * np.dtype(kind).itemsize].view(kind)


def sign(data: np.ndarray) -> None:
    """Write the checksum that the bytes have."""
    header_of(data).view("<u8")[AT["checksum"]] = checksum(data.view("<u8"))


def falsify(data: np.ndarray, rng: random.Random) -> None:
    """Change one to three things: numbers of the header, items of sections, any bytes."""
    for _ in range(rng.randint(1, 3)):
        rng.choice((_false_number, _false_place, _swapped, _false_item, _false_item, _false_bytes))(
            data, rng
        )
    sign(data)


def _near(value: int, rng: random.Random) -> int:
    number = rng.choice((*_NUMBERS, value + 1, value - 1, value * 2, value // 2, value + 64))
    return (number + 2**63) % 2**64 - 2**63


def _false_number(data: np.ndarray, rng: random.Random) -> None:
    at = AT[rng.choice([name for name in AT if name not in ("magic", "format", "bytes")])]
    header_of(data)[at] = _near(int(header_of(data)[at]), rng)


def _false_place(data: np.ndarray, rng: random.Random) -> None:
    at = SECTION[rng.choice(list(SECTION))] + rng.randint(0, 1)
    header_of(data)[at] = _near(int(header_of(data)[at]), rng)


def _swapped(data: np.ndarray, rng: random.Random) -> None:
    one, other = (SECTION[name] for name in rng.sample(list(SECTION), 2))
    header = header_of(data)
    header[[one, one + 1, other, other + 1]] = header[[other, other + 1, one, one + 1]]


def _false_item(data: np.ndarray, rng: random.Random) -> None:
    header, name = header_of(data), rng.choice(INDEXES)
    size, (offset, items) = (
        np.dtype(SECTIONS[name] or "<u1").itemsize,
        header[SECTION[name] : SECTION[name] + 2].tolist(),
    )
    if not (0 < offset <= len(data) and 0 < items * size <= len(data) - offset):
        return
    for _ in range(rng.choice((1, 1, 10, 1_000))):
        at = offset + rng.randrange(items) * size
        data[at : at + size] = list(rng.choice((
            rng.randbytes(size), bytes(size), b"\xff" * size, (1).to_bytes(size, "little"),
        )))  # fmt: skip


def _false_bytes(data: np.ndarray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 8, 64))):
        data[rng.randrange(HEADER_BYTES, len(data))] ^= rng.randint(1, 255)
