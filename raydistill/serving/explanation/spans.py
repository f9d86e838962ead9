"""Which characters of a text as it was typed a student reads as which words.

Cleaning and sizes change a text before its words are read: `1&nbsp;1/2&quot;` is read as `1.5 in`.
A text is cut where the words before and those after, each read alone, are the words of the whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import spelled_words
from raydistill.serving.numba_scorer import windows
from raydistill.serving.text.arrow_text import Texts
from raydistill.serving.text.cleaning import clean_text
from raydistill.serving.tokenizer import encode


@dataclass(frozen=True)
class Span:
    """The characters `start` to `end` (code points) of a text, and the words they are read as."""

    start: int
    end: int
    words: list[str]


@dataclass(frozen=True)
class Reading:
    """How one text is read: its spans that have words, in order, with all words that are read.

    A span has several words where its characters cannot be told apart (`18v` is `18 volt`).
    `num_read`: the characters before the place where the scorer cuts the text.
    """

    text: str
    spans: list[Span]
    num_read: int

    @property
    def words(self) -> list[str]:
        """The words in order."""
        return [word for span in self.spans for word in span.words]

    @property
    def span_numbers(self) -> list[int]:
        """The number of the span of each word."""
        return [number for number, span in enumerate(self.spans) for _ in span.words]


def encoded(text: str, *, max_chars: int) -> Texts:
    """One text as the scorer reads it: clean, and cut."""
    return encode(windows([text], max_chars=max_chars), max_chars=max_chars)


def _num_read(text: str, *, max_chars: int) -> int:
    (window,) = windows([text], max_chars=max_chars)
    if len(clean_text(window)) <= max_chars:
        return min(len(window), len(text))
    lengths = range(len(window) + 1)
    return bisect_right(lengths, max_chars, key=lambda num: len(clean_text(window[:num]))) - 1


def reading(text: str, *, spec: NgramSpec, max_chars: int) -> Reading:
    """Which characters of a text are read as which words."""

    def read(part: str) -> list[str]:
        return spelled_words(encoded(part, max_chars=max_chars), spec=spec)[0]

    whole = text[: _num_read(text, max_chars=max_chars)]
    words, spans, start, num = read(whole), list[Span](), 0, 0
    for place in _places(whole):
        before = read(whole[:place])
        if before == words[: len(before)] and read(whole[place:]) == words[len(before) :]:
            spans += _span(whole, start, place, words[num : len(before)])
            start, num = place, len(before)
    return Reading(text, spans, len(whole))


def _places(text: str) -> Iterator[int]:
    """Where words can end: not between two letters or digits of ASCII; and the end."""
    for at in range(1, len(text)):
        pair = text[at - 1 : at + 1]
        if not (pair[0].isspace() or (pair.isascii() and pair.isalnum())):
            yield at
    yield len(text)


def _span(text: str, start: int, end: int, words: Sequence[str]) -> Iterator[Span]:
    """The span without white space around it; none without words."""
    part = text[start:end]
    if words:
        first = start + len(part) - len(part.lstrip())
        yield Span(first, start + len(part.rstrip()), list(words))
