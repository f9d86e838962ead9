"""The nearest n-grams of a word: by its row of the trained table, or by its word vector.

Neither a bundle nor a lexicon has the words themselves, only their hashes: candidates are given as
texts, from the bundle's `ngrams.json` or from a file of pairs.
"""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.serving.bundle import GOLDEN, NGRAMS, current_bundle, read_ngrams, read_settings
from raydistill.serving.explanation.ngram_texts import ngram_ids
from raydistill.serving.explanation.weights import Weights
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import spelled_words
from raydistill.serving.lexicon import find_word, unit_rows
from raydistill.serving.scorer import Scorer
from raydistill.serving.tokenizer import encode, single_words

logger = logging.getLogger("raydistill")
WORDS, TABLE = "words", "table"
Vectors = Literal["words", "table"]
_MOST_CLOSE = 3


class Neighbor(NamedTuple):
    """An n-gram and its cosine with the word asked for."""

    text: str
    cosine: float


def count_ngrams(texts: Iterable[str], *, spec: NgramSpec) -> Counter[str]:
    """In how many of the texts each word and each two neighbouring words stand, as `spec` reads."""
    counts: Counter[str] = Counter()
    for words in spelled_words(encode(list(texts)), spec=spec):
        # A text that repeats a word is one text: a rare word is not common for it.
        counts.update(list(dict.fromkeys(words)))
        counts.update(list(dict.fromkeys(" ".join(two) for two in pairwise(words))))
    return counts


def common_ngrams(folder: Path) -> list[str]:
    """The n-grams that a bundle's files hold: its common ones, or else those of its golden pairs.

    Raises:
        UserError: it has neither file.
    """
    folder = current_bundle(folder)
    if (found := read_ngrams(folder)) is not None:
        return found
    if not (folder / GOLDEN).is_file():
        raise UserError(f"{folder} has no words ({NGRAMS}, {GOLDEN}); give --pairs FILE")
    logger.warning(
        "this bundle was exported without %s: neighbors are of the few words in %s; --pairs FILE "
        "has more, or export again",
        *(NGRAMS, GOLDEN),
    )
    pairs = read_settings(folder / GOLDEN)["pairs"]
    texts = [pair[side] for pair in pairs for side in ("words_query", "words_title")]
    return sorted({" ".join(two) for words in texts for two in (*zip(words), *pairwise(words))})


class Neighbors:
    """Finds the nearest of the candidates that a student knows; thread-safe."""

    def __init__(
        self, scorer: Scorer, candidates: Sequence[str], *, vectors: Vectors | None = None
    ) -> None:
        """`candidates`: words, and two words with a space between, as the student reads them.

        `vectors`: "table", the trained rows; "words", the word vectors that the student was given,
        for single words alone. Default: word vectors where the student has them.

        Raises:
            UserError: the student has no word vectors.
        """
        self._weights = Weights(scorer.settings, scorer.model)
        self._spec = self._weights.spec
        has_words = self._spec.has_match and self._spec.word_dim > 0
        if vectors == WORDS and not has_words:
            raise UserError('this bundle has no word vectors; give --vectors "table"')
        self.vectors: Vectors = vectors or ("words" if has_words else "table")
        self._lexicon = self._weights.lexicon() if self.vectors == WORDS else None
        self.candidates = list(dict.fromkeys(candidates))
        vectors_ND, is_known = self._rows(self.candidates)
        self.candidates = [
            text for text, known in zip(self.candidates, is_known, strict=True) if known
        ]
        self._unit_ND = vectors_ND[is_known]

    def nearest(self, text: str, *, num: int) -> list[Neighbor]:
        """The nearest candidates besides the word itself, by cosine.

        Raises:
            UserError: the text is not one word (or two, with the table), or is not known.
        """
        word = self.spelled(text)
        vector_1D, is_known = self._rows([word])
        if not is_known[0]:
            close = difflib.get_close_matches(word, self.candidates, _MOST_CLOSE)
            hint = f"; close to it: {', '.join(close)}" if close else ""
            raise UserError(f"{word!r} is no word that this bundle knows{hint}")
        cosines = self._unit_ND @ vector_1D[0]
        order = np.argsort(-cosines, kind="stable")[: num + 1]
        found = [Neighbor(self.candidates[at], float(cosines[at])) for at in order]
        return [one for one in found if one.text != word][:num]

    def spelled(self, text: str) -> str:
        """A word as the student reads it; with the table also two words.

        Raises:
            UserError: it has no word, or too many.
        """
        words = spelled_words(encode([text]), spec=self._spec)[0]
        most = 1 if self.vectors == WORDS else 2
        if not 1 <= len(words) <= most:
            wanted = "give one word" if most == 1 else "give one word, or two"
            read = " | ".join(words) or "none"
            raise UserError(f"{text!r} has {len(words)} words ({read}); {wanted}")
        return " ".join(words)

    def _rows(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A vector of length 1 for each text, and whether it is known."""
        if not texts:
            return np.empty((0, 1), np.float32), np.empty(0, bool)
        rows = self._word_rows(texts) if self._lexicon is not None else self._table_rows(texts)
        unit_ND = unit_rows(np.asarray(rows, np.float32))
        return unit_ND, np.asarray(unit_ND.any(axis=1))

    def _word_rows(self, texts: Sequence[str]) -> NDArray[np.float32]:
        hashes_N, is_single = single_words(texts)
        lexicon: Any = self._lexicon
        found = [find_word(one, lexicon.words_K, lexicon.places) for one in hashes_N]
        places_N = np.where(is_single, np.array(found, np.int64), -1)
        return np.asarray(np.where((places_N >= 0)[:, None], lexicon.vectors_KE[places_N], 0))

    def _table_rows(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Rows of the table; zeros where there is none."""
        ids_N = ngram_ids(texts, spec=self._spec)
        places_N = np.where(ids_N >= 0, self._weights.places(ids_N), -1)
        return self._weights.rows(places_N)[0]
