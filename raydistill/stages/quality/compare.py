"""compare: two students on the same judged pairs, with a paired bootstrap over the queries."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.evaluation.comparison.bounds import ONE, OTHER
from raydistill.evaluation.comparison.comparison_text import comparison_markdown
from raydistill.evaluation.comparison.moved_queries import (
    QueryValues,
    TwoScores,
    count_moved,
    moved,
)
from raydistill.evaluation.markup import plain_json
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.query_metrics import COLUMNS, query_figures
from raydistill.evaluation.scoreboard.scoreboard import scoreboard
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from raydistill.files.folder import Folder
from raydistill.serving.scorer import Scorer
from raydistill.stages.quality.judged_pairs import JudgedPairs
from raydistill.stages.quality.sides import CommonPairs, Sides

COMPARISON, TABLE = "compare.json", "compare.md"
_SCHEMA = 1
# The column of a metric of each query, and the one that is 1 where the query counts; its name.
_OF_QUERY = {"ndcg_10": "has_labels", "query_auc": "has_kinds"}
_NAMES = {"ndcg_10": "nDCG@10", "query_auc": "AUC"}


def compare(
    sides: Sides, common: CommonPairs, *, draws: Draws, by: str = "ndcg_10"
) -> dict[str, Any]:
    """The content of compare.json; `by`: the metric that says which queries moved.

    Raises:
        UserError: the pairs are all relevant, or none is.
    """
    pairs = common.pairs
    check_both_kinds(pairs, relevant_at=common.relevant_at)
    both = {ONE: sides.one, OTHER: sides.other}
    scores = {name: score_pairs(side.scorer, pairs) for name, side in both.items()}
    scored = ScoredPairs(
        labels_B=pairs.labels_B,
        groups_B=pairs.groups_B,
        relevant_at=common.relevant_at,
        scores=scores,
        thresholds={name: side.scorer.threshold for name, side in both.items()},
    )
    found = scoreboard(scored, reference=None, compared=[(OTHER, ONE)], draws=draws)
    (difference,) = found.pop("differences")
    counts = dict(zip(both, common.num_of_sides, strict=True))
    return {
        "schema": _SCHEMA,
        "kind": "comparison",
        "sides": {
            name: {"path": side.path, "kind": side.kind, "num_pairs": counts[name]}
            for name, side in both.items()
        },
        **found,
        "relevant_at": common.relevant_at,
        "difference": difference,
        "moved": _moved(pairs, scores, relevant_at=common.relevant_at, by=by),
    }


def check_both_kinds(pairs: JudgedPairs, *, relevant_at: float) -> None:
    """Raise UserError unless some pairs are relevant and some are not."""
    relevant = pairs.labels_B >= relevant_at
    if relevant.all() or not relevant.any():
        raise UserError(
            f"{relevant.sum():,} of the {len(relevant):,} judged pairs are relevant, from a label "
            f"of {relevant_at:g}; both kinds are needed: give --relevant-at LABEL"
        )


def score_pairs(scorer: Scorer, pairs: JudgedPairs) -> NDArray[np.float32]:
    """The scores of all pairs."""
    return scorer.score_texts(pairs.queries, pairs.titles)


def _moved(
    pairs: JudgedPairs,
    scores: dict[str, NDArray[np.float32]],
    *,
    relevant_at: float,
    by: str,
) -> dict[str, Any] | None:
    """Which queries moved; None for single texts, which are no ranking."""
    if not pairs.has_query:
        return None
    two = TwoScores(
        pairs.queries, pairs.titles, pairs.labels_B, pairs.groups_B, scores[ONE], scores[OTHER]
    )
    values = query_values(two, relevant_at=relevant_at, by=by)
    shown = {"by": by, "name": _NAMES[by], **count_moved(values)}
    return {**shown, "queries": moved(two, values)}


def query_values(two: TwoScores, *, relevant_at: float, by: str) -> QueryValues:
    """A metric of each query with both scorers."""
    groups_Q = np.unique(two.groups_B)
    before_Q, after_Q = (
        _values_of(two, scores_B, groups_Q, relevant_at=relevant_at, by=by)
        for scores_B in (two.before_B, two.after_B)
    )
    return QueryValues(groups_Q, before_Q, after_Q)


def _values_of(
    two: TwoScores,
    scores_B: NDArray[np.float32],
    groups_Q: NDArray[np.int64],
    *,
    relevant_at: float,
    by: str,
) -> NDArray[np.float64]:
    order_B = np.lexsort((-scores_B, two.groups_B))
    best_B = two.labels_B[np.lexsort((-two.labels_B, two.groups_B))]
    labels_B, ends_Q = two.labels_B[order_B], np.append(groups_Q, np.iinfo(np.int64).max)
    starts_Q = np.searchsorted(two.groups_B[order_B], ends_Q)
    figures_QC = query_figures(
        scores_B[order_B], labels_B, labels_B >= np.float32(relevant_at), starts_Q, best_B
    )
    counts_Q = figures_QC[:, COLUMNS.index(_OF_QUERY[by])]
    return np.where(counts_Q > 0, figures_QC[:, COLUMNS.index(by)], np.nan)


def write(found: dict[str, Any], output: str) -> str:
    """Write compare.json and compare.md to a folder; returns the place of the table."""
    folder = Folder(output)
    folder.write_bytes(COMPARISON, plain_json(json.dumps(found, indent=2)).encode())
    folder.write_bytes(TABLE, comparison_markdown(found).encode())
    return f"{folder}/{TABLE}"
