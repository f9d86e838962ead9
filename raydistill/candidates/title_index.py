"""Titles that share words with a query, best first, and which of them become pairs.

The index is tantivy's: BM25 with k1 = 1.2 and b = 0.75 over the terms of `terms.py`. It is one
segment, made by one thread, so that the same titles in the same order give the same ranks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tantivy
from numpy.typing import NDArray

from raydistill.errors import UserError

KINDS = ("top", "middle", "random")
# The most that tantivy takes for one thread; only what is needed is used: 100 MB for 1.4 million
# titles of 10 words. A second segment would begin after some 40 million.
_HEAP_BYTES = 4_000_000_000
_FIELD = "terms"
_FEW_TITLES = 10_000  # so many that are left can be listed; of more, random ones are tried


@dataclass(frozen=True)
class Mix:
    """How many titles of each kind a query gets; `max_rank` is the last of the middle ranks."""

    top: int = 20
    middle: int = 20
    random: int = 15
    max_rank: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a mix without a title, or with a middle that holds no rank."""
        for name in ("top", "middle", "random"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} = {getattr(self, name)}: give 0 or more")
        if not self.top + self.middle + self.random:
            raise UserError("top, middle and random are all 0; give at least one title a query")
        if self.middle and self.max_rank < self.top + self.middle:
            raise UserError(
                f"max_rank = {self.max_rank} leaves {max(0, self.max_rank - self.top)} ranks after "
                f"the top {self.top} for {self.middle} middle titles; give a larger one"
            )

    @property
    def num_ranks(self) -> int:
        """How far down the ranks titles are taken."""
        return self.max_rank if self.middle else self.top


def build_index(folder: Path, texts: Iterable[str]) -> None:
    """Write an index of texts, terms with spaces between, to an empty folder.

    Raises:
        UserError: too many texts for one segment.
    """
    index = tantivy.Index(_schema(), path=str(folder))
    writer = index.writer(heap_size=_HEAP_BYTES, num_threads=1)
    for text in texts:
        writer.add_document(tantivy.Document(**{_FIELD: text}))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    if index.searcher().num_segments > 1:
        raise UserError("too many titles for one index: make candidates of parts of the catalogue")


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field(_FIELD, tokenizer_name="whitespace", index_option="freq")
    return builder.build()


class TitleIndex:
    """An index that `build_index` has written, mapped into memory: processes share its pages."""

    def __init__(self, folder: Path) -> None:
        """`folder` is local."""
        index = tantivy.Index.open(str(folder))
        self._schema, self._searcher = index.schema, index.searcher()

    def search(self, terms: str, *, limit: int) -> NDArray[np.int64]:
        """Rows of the texts that share a term, best first; of equals the first."""
        words = dict.fromkeys(terms.split())
        if not words or not limit:
            return np.empty(0, np.int64)
        parts = [
            (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, _FIELD, word, "freq"))
            for word in words
        ]
        query = tantivy.Query.boolean_query(parts)
        hits = self._searcher.search(query, limit=limit, count=False).hits
        rows = np.array([place.doc for _, place in hits], np.int64)
        scores = np.array([score for score, _ in hits], np.float64)
        return rows[np.lexsort((rows, -scores))]


def choose(
    ranked: NDArray[np.int64], *, num_titles: int, mix: Mix, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.int32]]:
    """Row, kind (its place in KINDS) and rank from 1 (0: none) of a query's titles.

    The first ranks are taken as they are, the middle ones drawn from those that follow, the random
    ones from all titles that are not among `ranked`. Fewer where there are no more.
    """
    num_top = min(mix.top, len(ranked))
    rest = np.arange(num_top, len(ranked))
    middle = np.sort(rng.choice(rest, min(mix.middle, len(rest)), replace=False))
    random = _others(ranked, num_titles=num_titles, num=mix.random, rng=rng)
    places = np.concatenate([np.arange(num_top), middle])
    rows = np.concatenate([ranked[places], random])
    kinds = np.repeat(np.arange(3, dtype=np.int8), [num_top, len(middle), len(random)])
    ranks = np.concatenate([places + 1, np.zeros(len(random), np.int64)])
    return rows, kinds, ranks.astype(np.int32)


def _others(
    ranked: NDArray[np.int64], *, num_titles: int, num: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Distinct rows that are not among `ranked`, each as likely as any other."""
    num = min(num, num_titles - len(ranked))
    if num_titles <= _FEW_TITLES:
        left = np.setdiff1d(np.arange(num_titles), ranked, assume_unique=True)
        return rng.choice(left, num, replace=False)
    found = np.empty(0, np.int64)
    while len(found) < num:
        drawn = np.concatenate([found, rng.integers(num_titles, size=2 * num)])
        drawn = drawn[~np.isin(drawn, ranked)]
        found = drawn[np.sort(np.unique(drawn, return_index=True)[1])][:num]
    return found
