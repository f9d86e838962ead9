"""A second source of labels of the test pairs beside the first: `[judged.other]`."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.config.data import JudgedConfig
from raydistill.errors import UserError
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.pair_metrics import rank_correlation
from raydistill.evaluation.scoreboard.scoreboard import scoreboard
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from raydistill.stages.evaluation.reread_rows import (
    OTHER_HINT,
    FoundRows,
    find_rows,
    mean_labels,
    other_label_files,
)
from raydistill.stages.evaluation.split_pairs import SplitPairs

logger = logging.getLogger("raydistill")
_MOST_REASONS = 3


def other_labels(
    rules: JudgedConfig, scored: ScoredPairs, pairs: SplitPairs, *, draws: Draws
) -> dict[str, Any] | None:
    """Every scorer on the other labels, on the test pairs that have both; None without any setting.

    `pairs`: those of `scored`, in the same order.

    Raises:
        UserError: no row of the files can be used, or none is of a test pair.
    """
    if rules.other is None:
        return None
    files = other_label_files(rules)
    found = find_rows(files, rules.other_inputs, wanted=pairs.ids_B)
    _check(rules, found, pairs)
    labels_B = mean_labels(found.table, ids_B=pairs.ids_B)
    at = rules.relevant_at if rules.other.relevant_at is None else rules.other.relevant_at
    return {
        "name": rules.other.name,
        "num_rows": found.num_rows,
        "num_unusable": found.num_rows - found.num_usable,
        **_figures(scored, labels_B, relevant_at=at, draws=draws),
    }


def _figures(
    scored: ScoredPairs, labels_B: NDArray[np.float32], *, relevant_at: float, draws: Draws
) -> dict[str, Any]:
    """Every scorer on both sources; `labels_B`: the other labels, NaN where there is none."""
    at, both_B = relevant_at, np.isfinite(labels_B)
    by_source = {
        "metrics": _scorers(scored, both_B, labels_B, relevant_at=at, draws=draws),
        "judged_metrics": _scorers(
            scored, both_B, scored.labels_B, relevant_at=scored.relevant_at, draws=draws
        ),
    }
    return {
        "relevant_at": at,
        "relevant_share": float(np.mean(labels_B[both_B] >= at)),
        "num_pairs": int(both_B.sum()),
        "num_queries": len(np.unique(scored.groups_B[both_B])),
        "num_missing": int((~both_B).sum()),
        "agreement_with_judged": agreement(
            labels_B[both_B],
            scored.labels_B[both_B],
            relevant=(labels_B[both_B] >= at, scored.relevant_B[both_B]),
        ),
        "scorers": {
            name: {key: of[name] for key, of in by_source.items()} for name in scored.scores
        },
    }


def _scorers(
    scored: ScoredPairs,
    both_B: NDArray[np.bool_],
    labels_B: NDArray[np.float32],
    *,
    relevant_at: float | None,
    draws: Draws,
) -> dict[str, Any]:
    """The metrics of each scorer on the pairs in `both_B` with these labels."""
    some = ScoredPairs(
        labels_B[both_B],
        scored.groups_B[both_B],
        relevant_at,
        {name: scores[both_B] for name, scores in scored.scores.items()},
        scored.thresholds,
        scored.uncalibrated,
    )
    found = scoreboard(some, reference=None, compared=(), draws=draws)["scorers"]
    return {name: entry["metrics"] for name, entry in found.items()}


def agreement(
    other_B: NDArray[np.float32],
    judged_B: NDArray[np.float32],
    *,
    relevant: tuple[NDArray[np.bool_], NDArray[np.bool_]],
) -> dict[str, float | None]:
    """How far two sources of labels agree on B pairs.

    same_decision: the share of pairs that both call relevant, or neither; kappa: Cohen's, what is
    above the agreement by chance (1960, https://doi.org/10.1177/001316446002000104); spearman: of
    the labels; mean_difference: other - judged. None where a source has one value alone.
    """
    one_B, two_B = relevant
    same = float(np.mean(one_B == two_B))
    shares = float(one_B.mean()), float(two_B.mean())
    chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
    correlation = rank_correlation(other_B, judged_B)
    return {
        "same_decision": same,
        "kappa": None if chance == 1 else (same - chance) / (1 - chance),
        "spearman": None if np.isnan(correlation) else correlation,
        "mean_difference": float(np.mean(other_B.astype(np.float64) - judged_B)),
    }


def _check(rules: JudgedConfig, found: FoundRows, pairs: SplitPairs) -> None:
    """Raise UserError unless some row is of a test pair; a line tells of rows that are unusable."""
    where = ", ".join(given.path for given in rules.other_inputs.input)
    reasons = found.reasons.most_common(_MOST_REASONS)
    shown = "; ".join(f"{reason} ({num:,})" for reason, num in reasons)
    if not found.num_usable:
        raise UserError(
            f"judged.other: none of the {found.num_rows:,} rows of {where} can be used: "
            f"{shown or 'there is no row'}; {OTHER_HINT}, and its scale or grades"
        )
    if not found.table.num_rows:
        ours, theirs = pairs.table.slice(0, 1).to_pylist()[0], found.example or ("", "")
        raise UserError(
            f"judged.other: no row of {where} is of a test pair; the files have, for instance, "
            f"query {theirs[0]!r} with title {theirs[1]!r}, the test split has query "
            f"{ours['query']!r} with title {ours['title']!r}; a row counts if both texts are equal "
            f"after cleaning: {OTHER_HINT}"
        )
    if found.num_usable < found.num_rows:
        logger.warning(
            "evaluate  judged.other: %s of %s rows cannot be used: %s",
            *(f"{found.num_rows - found.num_usable:,}", f"{found.num_rows:,}", shown),
        )
