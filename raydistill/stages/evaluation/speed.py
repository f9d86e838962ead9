"""Microseconds a pair of a student on one core, from raw text."""

from __future__ import annotations

import time

import numpy as np
from threadpoolctl import threadpool_limits

from raydistill.runs.run_folder import Run
from raydistill.serving.scorer import Scorer

_TIMED_PAIRS = 4_096
_TIMED_SINGLES = 200
_TIMED_ROUNDS = 5


def time_scorer(run: Run, scorer: Scorer) -> tuple[float, float]:
    """Microseconds a pair on one core from raw text: in a batch, and in calls of one pair."""
    queries, titles = _timed_texts(run)
    return time_texts(scorer, queries, titles)


def time_texts(scorer: Scorer, queries: list[str], titles: list[str]) -> tuple[float, float]:
    """As `time_scorer`, of given pairs."""
    batches, singles = [], []
    scorer.score_pairs(queries, titles)
    with threadpool_limits(limits=1):
        for _ in range(_TIMED_ROUNDS):
            start_s = time.perf_counter()
            scorer.score_pairs(queries, titles)
            batches.append((time.perf_counter() - start_s) / len(titles))
            some = range(min(_TIMED_SINGLES, len(titles)))
            start_s = time.perf_counter()
            for at in some:
                scorer.score(queries[at], titles[at : at + 1])
            singles.append((time.perf_counter() - start_s) / len(some))
    return float(np.median(batches)) * 1e6, float(np.median(singles)) * 1e6


def _timed_texts(run: Run) -> tuple[list[str], list[str]]:
    shard = run.pairs.shards()[0]
    rows = run.pairs.read_rows(shard, 0, _TIMED_PAIRS, columns=["query", "title"])
    return rows["query"].to_pylist(), rows["title"].to_pylist()
