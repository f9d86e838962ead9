"""Titles that share words with a query, best first.

The index is tantivy's: BM25 with k1 = 1.2 and b = 0.75 over the terms of `search_terms.py`. It is
one segment, made by one thread, so that the same titles in the same order give the same ranks.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tantivy
from numpy.typing import NDArray

from raydistill.errors import UserError

# The most that tantivy takes for one thread; only what is needed is used: 100 MB for 1.4 million
# titles of 10 words. A second segment would begin after some 40 million.
_HEAP_BYTES = 4_000_000_000
_FIELD = "terms"


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
