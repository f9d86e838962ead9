"""What drove a score: the logit of a pair as a sum over its n-grams and match features.

Integrated gradients (`integrated_gradients.py`) from a baseline: no n-grams, and match features and
word vectors at their means over the training pairs. The values add up to the logit less that of the
baseline. Ablation does not: leaving a word out changes the bag's root, the match features and what
other words do, so its differences count shared effects twice or not at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.explanation.feature_names import (
    FEATURES,
    QUERY_VECTORS,
    SHOWN,
    TITLE_VECTORS,
)
from raydistill.serving.explanation.integrated_gradients import logit_of, mean_gradient
from raydistill.serving.explanation.ngram_texts import Ngram, bags_of, ngram_ids
from raydistill.serving.explanation.spans import Reading, encoded, reading
from raydistill.serving.explanation.weights import Weights
from raydistill.serving.feature_spec import Features, NgramSpec
from raydistill.serving.featurize import featurize, spelled_words
from raydistill.serving.match_features import DENSE_NAMES
from raydistill.serving.scorer import Scorer

METHOD = "integrated gradients"
FEATURE = "match feature"
UNTRAINED = "not seen in training"
UNKNOWN = "not in the vocabulary"
_MOST_SAME = 3  # common n-grams of one row that are named


@dataclass(frozen=True)
class Driver:
    """A part of a logit.

    `value` is in logits. `note`: what limits its meaning, "" if nothing does. A match feature also
    has its name in docs/features.md, its family, what it is for the pair and its mean over training
    pairs; the word vectors of a side are one driver, without the last two.
    """

    kind: str
    text: str
    value: float
    note: str = ""
    name: str | None = None
    family: str | None = None
    found: float | None = None
    mean: float | None = None


@dataclass(frozen=True)
class Explanation:
    """The drivers of a score, the largest first, and what they add up to; the words that are read.

    The sum of their values is `explained_logit` - `baseline_logit`. `logit` is that of the scorer;
    it differs from `explained_logit` where layers are int8, as much as their rounding does.
    """

    score: float
    logit: float
    explained_logit: float
    baseline_logit: float
    drivers: list[Driver]
    query_words: list[str]
    title_words: list[str]

    def in_families(self) -> list[Driver]:
        """The drivers with one for each family of match features, the largest first.

        `name`, `found` and `mean` of a family are those of the feature that says most of it.
        """
        features = {one.name: one for one in self.drivers if one.family is not None}
        sums: dict[str, float] = defaultdict(float)
        for one in features.values():
            sums[str(one.family)] += one.value
        found = [one for one in self.drivers if one.family is None]
        for family, value in sums.items():
            shown = features.get(SHOWN.get(family))
            whole = Driver(FEATURE, family, value, family=family)
            if shown is not None:
                whole = replace(shown, text=family, value=value)
            found.append(whole)
        return _ranked(found)


def _ranked(drivers: Iterable[Driver]) -> list[Driver]:
    return sorted(drivers, key=lambda one: (-abs(one.value), one.kind, one.text))


def with_numbers(driver: Driver) -> str:
    """The text of a driver; of a match feature with what it is for the pair, and its average."""
    if driver.found is None:
        return driver.text
    return f"{driver.text} ({driver.found:.2f}, average {driver.mean:.2f})"


class Explainer:
    """Explains scores of a loaded bundle; thread-safe."""

    def __init__(self, scorer: Scorer, *, common: Sequence[str] = ()) -> None:
        """The explainer of a scorer's student.

        `common`: n-grams as `read_ngrams` gives them; a driver that has the row of one says so.
        """
        self._scorer, self._weights = scorer, Weights(scorer.settings, scorer.model)
        self._lexicon, spec = self._weights.lexicon(), self._weights.spec
        # Ids before a vocabulary leaves some out, so that each has its text.
        self._spec = spec.uncut if spec.vocabulary_rows else spec
        self._common = _texts_by_id(common, spec=spec)
        num_inputs = self._weights.layers[0][0].shape[1]
        self._baseline_logit = logit_of(self._weights.layers, np.zeros(num_inputs))

    @property
    def spec(self) -> NgramSpec:
        """How the student reads texts."""
        return self._weights.spec

    def explain(self, query: str, title: str) -> Explanation:
        """The explanation of a pair's score; for single texts the query is ""."""
        header = self._weights.header
        texts = (
            encoded(query, max_chars=header["max_query"]),
            encoded(title, max_chars=header["max_title"]),
        )
        features = featurize(*texts, spec=self._spec, lexicon=self._lexicon)
        ngrams = _Ngrams(self._weights, features, bags_of(*texts, spec=self._spec))
        dense_F = features.dense_BF[0]
        standard_F = (dense_F - self._weights.mean_F) / self._weights.std_F
        x_X = np.concatenate([*ngrams.bags(), standard_F.astype(np.float64)])
        gradient_X = mean_gradient(self._weights.layers, x_X)
        width = len(x_X) - len(dense_F)
        drivers = [
            *ngrams.drivers(gradient_X[:width], common=self._common),
            *self._features(dense_F, x_X[width:] * gradient_X[width:]),
        ]
        explained = logit_of(self._weights.layers, x_X)
        scored = self._weights.scored_logit(x_X)
        return Explanation(
            score=float(self._scorer.score_pairs([query], [title])[0]),
            logit=explained if scored is None else scored,
            explained_logit=explained,
            baseline_logit=self._baseline_logit,
            drivers=_ranked(drivers),
            query_words=spelled_words(texts[0], spec=self.spec)[0],
            title_words=spelled_words(texts[1], spec=self.spec)[0],
        )

    def readings(self, query: str, title: str) -> tuple[Reading, Reading]:
        """Which characters of the query and of the title are read as which words."""
        header, spec = self._weights.header, self.spec
        return (
            reading(query, spec=spec, max_chars=header["max_query"]),
            reading(title, spec=spec, max_chars=header["max_title"]),
        )

    def _features(
        self, dense_F: NDArray[np.float32], values_F: NDArray[np.float64]
    ) -> list[Driver]:
        """The match features, and the word vectors of each side as one."""
        if not len(dense_F):
            return []
        num, width = len(DENSE_NAMES), self._weights.spec.word_dim
        numbers, means = dense_F.tolist(), self._weights.mean_F.tolist()
        found = [
            _feature(name, values_F[at], found=numbers[at], mean=means[at])
            for at, name in enumerate(DENSE_NAMES)
        ]
        vectors = (QUERY_VECTORS, num), (TITLE_VECTORS, num + width)
        if width:
            found += [_feature(name, values_F[at : at + width].sum()) for name, at in vectors]
        return found


def _feature(
    name: str, value: float, *, found: float | None = None, mean: float | None = None
) -> Driver:
    family, text = FEATURES[name]
    return Driver(FEATURE, text, float(value), name=name, family=family, found=found, mean=mean)


def _texts_by_id(texts: Sequence[str], *, spec: NgramSpec) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    if texts:
        for text, number in zip(texts, ngram_ids(texts, spec=spec).tolist(), strict=True):
            found[number].append(text)
    return {number: same[:_MOST_SAME] for number, same in found.items()}


class _Ngrams:
    """The n-grams of one pair with their rows, in the bags' order."""

    def __init__(self, weights: Weights, features: Features, bags: list[list[Ngram]]) -> None:
        places_N = weights.places(features.ids_N.astype(np.int64))
        rows_ND, self._has_row_N = weights.rows(places_N)
        self._ids_N, self._places_N = features.ids_N, places_N
        ends = features.offsets.tolist()
        self._spans = [slice(start, end) for start, end in pairwise(ends)]
        self._ngrams = [ngram for bag in bags for ngram in bag]
        if [len(bag) for bag in bags] != np.diff(features.offsets).tolist():
            raise ValueError(f"{[len(bag) for bag in bags]} n-grams for bags that end at {ends}")
        for span in self._spans:
            num_known = int(np.count_nonzero(places_N[span] >= 0))
            rows_ND[span] /= np.sqrt(max(num_known, 1))
        self._parts_ND = rows_ND

    def bags(self) -> Iterator[NDArray[np.float64]]:
        """The vector of each bag."""
        return (self._parts_ND[span].sum(axis=0) for span in self._spans)

    def drivers(
        self, gradient_X: NDArray[np.float64], *, common: Mapping[int, Sequence[str]]
    ) -> Iterator[Driver]:
        """A driver for each distinct n-gram of a side; `common`: other n-grams by id."""
        values_N = np.zeros(len(self._ngrams))
        for span, gradient_D in zip(
            self._spans, gradient_X.reshape(len(self._spans), -1), strict=True
        ):
            values_N[span] = self._parts_ND[span] @ gradient_D
        sums: dict[Ngram, float] = defaultdict(float)
        for ngram, value in zip(self._ngrams, values_N.tolist(), strict=True):
            sums[ngram] += value
        notes = dict(zip(self._ngrams, self._notes(common), strict=True))
        return (Driver(*ngram, value, notes[ngram]) for ngram, value in sums.items())

    def _notes(self, common: Mapping[int, Sequence[str]]) -> Iterator[str]:
        texts: dict[int, dict[str, None]] = defaultdict(dict)  # of one id, in order
        for ngram, number in zip(self._ngrams, self._ids_N.tolist(), strict=True):
            texts[number][ngram.text] = None
        for number, found in texts.items():
            found.update(dict.fromkeys(common.get(number, ())))
        for ngram, number, place, has_row in zip(
            self._ngrams, self._ids_N.tolist(), self._places_N, self._has_row_N, strict=True
        ):
            yield _note(
                place >= 0, has_row, (other for other in texts[number] if other != ngram.text)
            )


def _note(is_known: bool, has_row: bool, others: Iterable[str]) -> str:
    if not is_known:
        return UNKNOWN
    if not has_row:
        return UNTRAINED
    names = ", ".join(others)
    return f"has the row of {names}" if names else ""
