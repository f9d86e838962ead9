"""The explanation of a pair as the answer of /explain. Imports numba: see `queue.py`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING

from raydistill.errors import UserError
from raydistill.server.explanations.answer import Explained, FeatureValue, Part, ReadText, Word
from raydistill.serving.bundle import read_ngrams
from raydistill.serving.explanation.attribution import METHOD, Driver, Explainer
from raydistill.serving.explanation.ngram_texts import QUERY, TITLE, word_runs
from raydistill.serving.explanation.spans import Reading

if TYPE_CHECKING:
    from raydistill.server.bundles import Loaded

logger = logging.getLogger("raydistill")
_Runs = Mapping[str, Sequence[range]]  # of words, by the text of an n-gram


class PairExplainer:
    """Explains scores of one loaded bundle."""

    def __init__(self, bundle: Loaded) -> None:
        """Reads the bundle's common n-grams, which are named where they share a row."""
        self.bundle = bundle
        self._explainer = Explainer(bundle.scorer, common=_common(bundle))

    def explain(self, query: str, title: str) -> Explained:
        """What drove the score of a pair; for single texts the query is ""."""
        found, scorer = self._explainer.explain(query, title), self.bundle.scorer
        sides = dict(zip((QUERY, TITLE), self._explainer.readings(query, title), strict=True))
        runs = {side: word_runs(read.words) for side, read in sides.items()}
        texts = {
            side: _text(
                sides[side],
                _values(sides[side], runs[side], (d for d in found.drivers if d.kind == side)),
                other=set(sides[other].words),
            )
            for side, other in ((QUERY, TITLE), (TITLE, QUERY))
        }
        return Explained(
            score=found.score,
            relevant=found.score >= scorer.threshold,
            threshold=scorer.threshold,
            temperature=scorer.settings["temperature"],
            logit=found.logit,
            total=found.explained_logit,
            base=found.baseline_logit,
            method=METHOD,
            bundle=self.bundle.name,
            query=texts[QUERY],
            title=texts[TITLE],
            parts=[
                _feature(driver, found.drivers)
                if driver.family is not None
                else _ngram(driver, sides[driver.kind], runs[driver.kind])
                for driver in found.in_families()
            ],
        )


def _common(bundle: Loaded) -> Sequence[str]:
    try:
        return read_ngrams(bundle.folder) or ()
    except (UserError, OSError) as error:  # replaced or removed after it was loaded
        logger.warning("serve     explanations name no common n-grams: %s", error)
        return ()


def _values(read: Reading, runs: _Runs, drivers: Iterable[Driver]) -> list[float]:
    """The sum of the n-grams of each span; the value of one is split evenly over its words."""
    values, numbers = [0.0] * len(read.spans), read.span_numbers
    for driver in drivers:
        words = [word for run in runs.get(driver.text, ()) for word in run]
        for word in words:
            values[numbers[word]] += driver.value / len(words)
    return values


def _text(read: Reading, values: Sequence[float], *, other: Set[str]) -> ReadText:
    """`values`: of each span; `other`: the words of the other text."""
    words = [
        Word(
            start=span.start,
            end=span.end,
            read=span.words,
            on_other_side=not other.isdisjoint(span.words),
            logit=value,
        )
        for span, value in zip(read.spans, values, strict=True)
    ]
    return ReadText(text=read.text, words=words, num_read=read.num_read)


def _ngram(driver: Driver, read: Reading, runs: _Runs) -> Part:
    numbers = read.span_numbers
    spans = [
        (read.spans[numbers[run[0]]].start, read.spans[numbers[run[-1]]].end)
        for run in runs.get(driver.text, ())
    ]
    return Part(
        name=driver.text,
        kind=driver.kind,
        logit=driver.value,
        note=driver.note,
        spans=list(dict.fromkeys(spans)),
    )


def _feature(driver: Driver, drivers: Iterable[Driver]) -> Part:
    """A family of match features; `drivers`: with its members."""
    members = [one for one in drivers if one.family == driver.family]
    return Part(
        name=driver.text,
        kind=driver.kind,
        logit=driver.value,
        value=driver.found,
        average=driver.mean,
        features=[
            FeatureValue(
                name=str(one.name),
                text=one.text,
                logit=one.value,
                value=one.found,
                average=one.mean,
            )
            for one in members
        ],
    )
