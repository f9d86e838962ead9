"""Search terms against tantivy's own analyzers: relevant judged titles found for their query.

Texts are read where they are. Recall at 20 and 200 of BM25 over all titles, and the standard error
of the difference over queries.

python tests/bench/search_terms.py --judged JUDGED.parquet --texts 'DATA/transfer_pairs/*.parquet'
"""

import argparse
import glob
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tantivy
from numpy.typing import NDArray

from raydistill.candidates.search_terms import search_terms
from raydistill.candidates.title_index import TitleIndex, build_index

DEPTHS = (20, 200)
Terms = Callable[[list[str]], list[str]]


def analyzer(*filters: tantivy.Filter) -> Terms:
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for one in filters:
        builder = builder.filter(one)
    built = builder.build()
    return lambda texts: [" ".join(built.analyze(text)) for text in texts]


WAYS: dict[str, Terms] = {
    "search_terms": lambda texts: search_terms(pa.array(texts)).to_pylist(),
    "tantivy: simple, lowercase, ASCII folding, English stemmer": analyzer(
        tantivy.Filter.lowercase(), tantivy.Filter.ascii_fold(), tantivy.Filter.stemmer("english")
    ),
    "tantivy: simple, lowercase, ASCII folding": analyzer(
        tantivy.Filter.lowercase(), tantivy.Filter.ascii_fold()
    ),
}


def read(judged: str, texts: str, *, label: str, relevant_at: float) -> tuple[list[str], dict]:
    """All titles, and the places of each query's relevant ones."""
    table = pq.read_table(judged, columns=["query", "title", label])
    table = table.filter(pc.greater_equal(table[label], relevant_at))
    others = [pq.read_table(file, columns=["title"])["title"] for file in sorted(glob.glob(texts))]
    chunks = [c.cast(pa.string()) for one in (table["title"], *others) for c in one.chunks]
    titles = pc.unique(pa.concat_arrays(chunks)).to_pylist()
    place = {title: at for at, title in enumerate(titles)}
    relevant: dict[str, set[int]] = {}
    for query, title in zip(table["query"].to_pylist(), table["title"].to_pylist(), strict=True):
        relevant.setdefault(query, set()).add(place[title])
    return titles, relevant


def hits(terms: Terms, titles: list[str], relevant: dict) -> tuple[NDArray[np.int64], float]:
    """Relevant titles found, shape queries x depths; microseconds a title of making terms."""
    terms(titles[:1])  # compiled
    start_s = time.process_time()
    made = terms(titles)
    us = 1e6 * (time.process_time() - start_s) / len(titles)
    with tempfile.TemporaryDirectory() as folder:
        build_index(Path(folder), made)
        index = TitleIndex(Path(folder))
        found = [
            [len(wanted & set(rows[:depth].tolist())) for depth in DEPTHS]
            for text, wanted in zip(terms(list(relevant)), relevant.values(), strict=True)
            for rows in [index.search(text, limit=max(DEPTHS))]
        ]
    return np.array(found), us


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--judged", required=True)
    parser.add_argument("--texts", required=True, help="glob of Parquet files with a title")
    parser.add_argument("--label", default="label01")
    parser.add_argument("--relevant-at", type=float, default=0.75)
    given = parser.parse_args()
    titles, relevant = read(
        given.judged, given.texts, label=given.label, relevant_at=given.relevant_at
    )
    nums = np.array([len(wanted) for wanted in relevant.values()])
    print(f"{len(titles):,} titles, {len(nums):,} queries, {nums.sum():,} relevant pairs")
    figures, first = {}, None
    for name, terms in WAYS.items():
        found, us = hits(terms, titles, relevant)
        shares = found / nums[:, None]
        first = shares if first is None else first
        ahead = first - shares
        errors = ahead.std(axis=0) / len(nums) ** 0.5
        recall = found.sum(axis=0) / nums.sum()
        print(
            f"| {name} | {recall[0]:.4f} | {recall[1]:.4f} | {us:.1f} |",
            *(f"behind by {a:.4f} ({e:.4f})" for a, e in zip(ahead.mean(0), errors, strict=True)),
        )
        figures[name] = {"recall_20": recall[0], "recall_200": recall[1], "us_per_title": us}
    print(json.dumps({"bench": "search_terms", "figures": figures}))


if __name__ == "__main__":
    main()
