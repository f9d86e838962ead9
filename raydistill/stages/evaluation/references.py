"""Scores to compare with that no teacher and no student is needed for: lexical ones, fastText."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydistill.evaluation.lexical import DocumentFrequencies, document_frequencies, lexical_scores
from raydistill.evaluation.word_models import FASTTEXT, fasttext_classifier, has_fasttext
from raydistill.files.pieces import pieces_of, read_pieces
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import pair_shards
from raydistill.serving.text.arrow_text import to_texts
from raydistill.stages.evaluation.scorers import Scores
from raydistill.stages.evaluation.split_pairs import read_rows

logger = logging.getLogger("raydistill")
_SAMPLE_ROWS = 262_144  # pairs of the transfer set, for document frequencies: 1 to 2 s


def reference_scores(run: Run, tables: Mapping[str, pa.Table]) -> dict[str, Scores]:
    """The scores of the dev and test pairs in `tables` by method.

    Word overlap, character trigrams and BM25 if there are queries; fastText if it is installed and
    there are judged train pairs of both kinds.
    """
    found: dict[str, Scores] = {}
    if run.config.has_query:
        frequencies = sampled_frequencies(run)
        for split, table in tables.items():
            texts = to_texts(table["query"]), to_texts(table["title"])
            scores = lexical_scores(*texts, frequencies=frequencies)
            for name, scores_B in scores.items():
                found.setdefault(name, {})[split] = scores_B
    return {**found, **_fasttext(run, tables)}


def sampled_frequencies(run: Run) -> DocumentFrequencies:
    """Document frequencies of distinct titles of a sample of the transfer set's shards."""
    shards = pair_shards(run)
    step = max(1, round(sum(shards.values()) / _SAMPLE_ROWS))
    pieces = pieces_of(shards)[::step]
    titles = [table["title"] for table in read_pieces(run.pairs, pieces, columns=["title"])]
    chunks = [chunk for title in titles for chunk in title.chunks]
    return document_frequencies(to_texts(pc.unique(pa.chunked_array(chunks, pa.string()))))


def _fasttext(run: Run, tables: Mapping[str, pa.Table]) -> dict[str, Scores]:
    if not run.config.learns_from_judged or not has_fasttext():
        return {}
    at, folder = run.config.judged_rules.relevant_at, run.judged("train")
    train = read_rows(run, "train")
    labels = [folder.read_table(shard, columns=["label"])["label"] for shard in folder.shards()]
    relevant_B = np.concatenate([np.empty(0), *(label.to_numpy() for label in labels)]) >= at
    if relevant_B.all() or not relevant_B.any():
        return {}
    score = fasttext_classifier(_texts(train), relevant_B)
    return {FASTTEXT: {split: score(_texts(table)) for split, table in tables.items()}}


def _texts(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["query"].to_pylist(), table["title"].to_pylist(), strict=True))
