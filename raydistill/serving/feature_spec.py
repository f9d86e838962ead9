"""The features of pairs: the settings that determine them, and their arrays in memory.

`featurize.py` computes them. Imports only numpy and numba.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import compiled
from raydistill.serving.match_features import NUM_DENSE
from raydistill.serving.units.names import Names

# Version of the features of students and trees: models of another version are stale.
FORMAT = 9
VOCABULARY_BITS = 24  # bits of an id: 150,000 / 2^24 = 1 % of other n-grams collide with a kept id


@dataclass(frozen=True)
class NgramSpec:
    """The settings that determine ids and dense features; stored in the bundle."""

    preset: Literal["match", "bert2dnn"]
    hash_bits: int
    char_ngrams: int = 0  # length of the character n-grams, one bag per side; 0: none
    word_dim: int = 0  # columns of the word vectors; 0: none
    vocabulary_rows: int = 0  # size of a vocabulary of n-grams; 0: 2^hash_bits rows, all hashed
    units: bool = False  # normalize sizes and units
    extra_units: Names = ()  # (short name, other names) of units besides the built-in ones

    @property
    def num_rows(self) -> int:
        """Rows of the embedding table."""
        return self.vocabulary_rows or 1 << self.hash_bits

    @property
    def id_bits(self) -> int:
        """Bits of an id; with a vocabulary, before the id is mapped to a row."""
        return VOCABULARY_BITS if self.vocabulary_rows else self.hash_bits

    @property
    def uncut(self) -> NgramSpec:
        """The spec without a vocabulary, whose rows are the ids from which one is chosen."""
        return replace(self, hash_bits=VOCABULARY_BITS, vocabulary_rows=0)

    @property
    def has_match(self) -> bool:
        """Whether there are match features."""
        return self.preset == "match"

    @property
    def num_bags(self) -> int:
        """Bags per pair: n-grams, words tagged matched or unmatched, character n-grams."""
        return 1 + int(self.has_match) + (2 if self.char_ngrams else 0)

    @property
    def num_dense(self) -> int:
        """Dense features per pair."""
        return NUM_DENSE + 2 * self.word_dim if self.has_match else 0


@dataclass(frozen=True)
class Features:
    """The input of the student for B pairs.

    `ids_N` int32; `offsets` int64, B * num_bags + 1 (bag b of pair r is entry r * num_bags + b);
    `dense_BF` float32, not standardised.
    """

    ids_N: NDArray[np.int32]
    offsets: NDArray[np.int64]
    dense_BF: NDArray[np.float32]

    @property
    def num_pairs(self) -> int:
        """B."""
        return len(self.dense_BF)

    def take(self, rows: NDArray[np.int64]) -> Features:
        """The features of some pairs, in the order given."""
        num_bags = (len(self.offsets) - 1) // max(self.num_pairs, 1)
        bags = (rows[:, None] * num_bags + np.arange(num_bags)).reshape(-1)
        ids, offsets = _take_bags(self.ids_N, self.offsets, bags)
        return Features(ids, offsets, self.dense_BF[rows])


def concatenate(parts: Iterable[Features]) -> Features:
    """The concatenation of several Features, in order.

    The arrays grow by one part at a time without a copy: with lazy `parts` the peak of memory is
    the result and one part.

    Raises:
        ValueError: there are no parts, so the shapes are unknown.
    """
    arrays: list[NDArray[Any]] | None = None
    for part in parts:
        if arrays is None:
            arrays = [part.ids_N.copy(), part.offsets.copy(), part.dense_BF.copy()]
            continue
        _append(arrays[1], part.offsets[1:] + arrays[1][-1])
        _append(arrays[0], part.ids_N)
        _append(arrays[2], part.dense_BF)
    if arrays is None:
        raise ValueError("no features to concatenate: give at least one part")
    return Features(*arrays)


def _append(array: NDArray[Any], more: NDArray[Any]) -> None:
    """Append rows in place to an array without other references.

    `resize` calls realloc, which remaps the pages of a large array and copies no data.
    """
    start = len(array)
    array.resize((start + len(more), *array.shape[1:]), refcheck=False)
    array[start:] = more


@compiled
def _take_bags(
    ids_N: NDArray[np.int32],
    offsets: NDArray[np.int64],
    bags: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    taken = np.zeros(len(bags) + 1, np.int64)
    for at in range(len(bags)):
        taken[at + 1] = taken[at] + offsets[bags[at] + 1] - offsets[bags[at]]
    out = np.empty(taken[-1], np.int32)
    for at in range(len(bags)):
        out[taken[at] : taken[at + 1]] = ids_N[offsets[bags[at]] : offsets[bags[at] + 1]]
    return out, taken
