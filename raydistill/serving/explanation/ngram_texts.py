"""The n-grams of a pair as texts, in the order in which `featurize` writes their ids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import featurize, spelled_words
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.text.arrow_text import Texts
from raydistill.serving.tokenizer import encode

QUERY, TITLE = "n-gram of the query", "n-gram of the title"
START, END = "[start]", "[end]"
_ALSO, _NOT = "{} (also in the title)", "{} (not in the title)"  # tagged words of a query
_ADDED = "{} (not in the query)"  # of a title
_UNIGRAM_IDS, _BIGRAM_IDS = 3, 5  # n words have 2n + 1 ids
_BIGRAM_AT = 3  # of: first word, its bigram with the start, second word, both, the end's bigram


class Ngram(NamedTuple):
    """One n-gram: the side it is of, and its text."""

    kind: str
    text: str


def bags_of(query: Texts, title: Texts, *, spec: NgramSpec) -> list[list[Ngram]]:
    """The n-grams of one pair of clean texts, a list for each bag."""
    (query_words,), (title_words,) = (spelled_words(text, spec=spec) for text in (query, title))
    bags = [
        _words(QUERY, query_words) * bool(query_words) + _words(TITLE, title_words),
    ]
    if spec.has_match:
        bags.append(_tagged(query_words, title_words))
    if spec.char_ngrams:
        fine = replace(spec, preset="match")  # characters are those of its words in each preset
        for kind, text in ((QUERY, query), (TITLE, title)):
            bags.append(_characters(kind, spelled_words(text, spec=fine)[0], spec.char_ngrams))
    return bags


def _words(kind: str, words: Sequence[str]) -> list[Ngram]:
    """Each word behind the bigram that ends in it, as ids are; then the last bigram."""
    texts = []
    for before, word in pairwise([START, *words]):
        texts += [word, f"{before} {word}"]
    return [Ngram(kind, text) for text in (*texts, f"{[START, *words][-1]} {END}")]


def _tagged(query: Sequence[str], title: Sequence[str]) -> list[Ngram]:
    found = [Ngram(QUERY, (_ALSO if word in title else _NOT).format(word)) for word in query]
    missing = (word for word in title if word not in query)
    return found + [Ngram(TITLE, _ADDED.format(word)) for word in missing]


def _characters(kind: str, words: Sequence[str], size: int) -> list[Ngram]:
    spaced = f" {' '.join(words)} " if words else ""
    parts = (spaced[at : at + size] for at in range(len(spaced) - size + 1))
    return [Ngram(kind, f'characters "{part}"') for part in parts]


def word_runs(words: Sequence[str]) -> dict[str, list[range]]:
    """By the text of an n-gram of one side: the runs of its words (places) that it is made of.

    Not of character n-grams, which are parts of words.
    """
    found: dict[str, list[range]] = defaultdict(list)
    for at, (before, word) in enumerate(pairwise([START, *words])):
        for text in (word, *(tag.format(word) for tag in (_ALSO, _NOT, _ADDED))):
            found[text].append(range(at, at + 1))
        found[f"{before} {word}"].append(range(max(at - 1, 0), at + 1))
    if words:
        found[f"{words[-1]} {END}"].append(range(len(words) - 1, len(words)))
    return found


def ngram_ids(texts: Sequence[str], *, spec: NgramSpec) -> NDArray[np.int64]:
    """The id of each text, before a vocabulary leaves some out; -1: not one word or two.

    The words are as the student reads them, with a space between two.
    """
    spec = spec.uncut if spec.vocabulary_rows else spec
    # The words are read already: only spaces separate them.
    plain = replace(spec, preset="bert2dnn", char_ngrams=0, word_dim=0, units=False)
    lexicon = Lexicon.from_idf(np.ones(1, np.float32))
    features = featurize(encode([""] * len(texts)), encode(texts), spec=plain, lexicon=lexicon)
    nums = np.diff(features.offsets)
    at = features.offsets[:-1] + np.where(nums == _BIGRAM_IDS, _BIGRAM_AT, 0)
    is_ngram = (nums == _UNIGRAM_IDS) | (nums == _BIGRAM_IDS)
    return np.where(is_ngram, features.ids_N[at].astype(np.int64), -1)
