"""The lexicon: IDF, word vectors and a vocabulary of n-grams, all from before training.

Word vectors come from a teacher's encoder (`student/lexicon/`), so `couch` and `sofa` are close
even if no training pair has both. Imports only numpy and numba.

Shapes: I values of a word's highest bits, K known words, E size of their vectors, R n-grams of the
vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import borrowing, compiled

_SLOTS_PER_WORD = 4  # with 2 a quarter of a title's words are not at the first place that is read
IDF, WORDS, VECTORS, NGRAMS = "idf", "words", "word_vectors", "ngrams"  # names in a bundle's arrays


class Lexicon(NamedTuple):
    """IDF of all words, unit vectors of the known words, and an optional vocabulary of n-grams.

    `idf_I` float32, indexed by the highest bits of a word's hash; `words_K` uint64, the hashes of
    the words; `vectors_KE` float32, of length 1 each, E = 0 without word vectors.
    """

    idf_I: NDArray[np.float32]
    words_K: NDArray[np.uint64]
    vectors_KE: NDArray[np.float32]
    places: NDArray[np.int32]  # hash table by a word's lowest bits: its index in words_K, or -1
    ngrams_R: NDArray[np.uint64]  # ids with a row of the table; empty: every id is a row
    ngram_places: NDArray[np.int32]  # hash table of ngrams_R

    @classmethod
    def from_idf(
        cls,
        idf_I: NDArray[np.float32],
        *,
        words_K: NDArray[np.uint64] | None = None,
        vectors_KE: NDArray[np.float32] | None = None,
    ) -> Lexicon:
        """A lexicon of the given words and vectors; without words, of the IDF alone.

        Raises:
            ValueError: words and vectors differ in number.
        """
        words = np.empty(0, np.uint64) if words_K is None else words_K
        vectors = np.empty((len(words), 0), np.float32) if vectors_KE is None else vectors_KE
        if len(words) != len(vectors):
            raise ValueError(f"{len(words)} words for {len(vectors)} vectors")
        vectors = np.ascontiguousarray(vectors, np.float32)
        none = np.empty(0, np.uint64)
        places = hash_places(words, _SLOTS_PER_WORD)
        return cls(idf_I, words, vectors, places, none, hash_places(none))

    def with_ngrams(self, ids_R: NDArray[np.int32]) -> Lexicon:
        """The lexicon with a vocabulary of n-grams: id ids_R[r] has row r, other ids have none."""
        ngrams = ids_R.astype(np.uint64)
        return self._replace(ngrams_R=ngrams, ngram_places=hash_places(ngrams))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Lexicon:
        """The lexicon stored by `to_arrays`."""
        lexicon = cls.from_idf(arrays[IDF], words_K=arrays[WORDS], vectors_KE=arrays[VECTORS])
        return lexicon.with_ngrams(arrays[NGRAMS])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays to store; vectors as float16, so every reader has the same values."""
        vectors = self.vectors_KE.astype(np.float16)
        ngrams = self.ngrams_R.astype(np.int32)
        return {IDF: self.idf_I, WORDS: self.words_K, VECTORS: vectors, NGRAMS: ngrams}

    def narrowed(self, dim: int) -> Lexicon:
        """The lexicon with the first `dim` columns of its vectors (principal components)."""
        if dim == self.dim:
            return self
        kept = unit_rows(self.vectors_KE[:, :dim])
        return self._replace(vectors_KE=np.ascontiguousarray(kept))

    @property
    def dim(self) -> int:
        """E."""
        return int(self.vectors_KE.shape[1])


def unit_rows(vectors_KE: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row divided by its length; a row of zeros is unchanged."""
    lengths = np.linalg.norm(vectors_KE, axis=1, keepdims=True)
    return np.asarray(vectors_KE / np.where(lengths > 0, lengths, 1), np.float32)


@borrowing
def find_word(word: np.uint64, words_K: NDArray[np.uint64], places: NDArray[np.int32]) -> int:
    """The index of a word in `words_K`, or -1; `places` is its hash table."""
    mask = len(places) - 1
    at = np.int64(word) & mask
    while places[at] >= 0:
        if words_K[places[at]] == word:
            return int(places[at])
        at = (at + 1) & mask
    return -1


@compiled
def hash_places(words_K: NDArray[np.uint64], slots_per_word: int = 2) -> NDArray[np.int32]:
    """A hash table of word indices with open addressing, by the lowest bits; -1 is empty."""
    size = 2
    while size < slots_per_word * len(words_K):
        size *= 2
    places = np.full(size, -1, np.int32)
    for at in range(len(words_K)):
        place = np.int64(words_K[at]) & (size - 1)
        while places[place] >= 0:
            place = (place + 1) & (size - 1)
        places[place] = at
    return places
