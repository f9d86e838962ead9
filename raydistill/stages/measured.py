"""Scores of judged dev and test pairs to figures: each scorer on the pairs that it scores.

A scorer of teachers that score some pairs only is measured on these. What a student retains of it
is measured on these as well.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.evaluation.metrics.pair_metrics import DECIDES_AT
from raydistill.evaluation.metrics.summary import measure, retention
from raydistill.evaluation.metrics.thresholds import best_threshold
from raydistill.runs.run_folder import Run

logger = logging.getLogger("raydistill")
Scores = dict[str, NDArray[np.float32]]  # by split


def leave_out_unscored(
    scored: Mapping[str, Scores], labels: Scores, *, but: Collection[str] = ()
) -> dict[str, int]:
    """Drop pairs without a finite score from all scorers; returns the number in each split.

    The scorers in `but` may have no score of the pairs that stay.
    """
    num_unscored = {}
    for split, label in labels.items():
        whole = [found[split] for name, found in scored.items() if name not in but]
        is_scored = np.isfinite([label, *whole]).all(axis=0)
        num_unscored[split] = int((~is_scored).sum())
        labels[split] = label[is_scored]
        for found in scored.values():
            found[split] = found[split][is_scored]
    return num_unscored


def measure_scorers(
    run: Run, scored: Mapping[str, Scores], labels: Scores, *, partial: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """The figures of each scorer; without those in `partial` that score too few test pairs."""
    entries = {}
    for name, scores in scored.items():
        if name in partial and not _has_both_kinds(run, scores, labels, split="test"):
            logger.warning("evaluate  %s has scores of too few judged pairs: left out", name)
        else:
            entries[name] = entry_of(run, scores, labels)
    return entries


def entry_of(run: Run, scores: Scores, labels: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Metrics on the test split, with the threshold that is best on the dev split.

    On the pairs that have a score; their number is given where that is not all. Threshold and
    accuracy are None for a scorer that lacks dev pairs and has none of one kind.
    """
    at, threshold = run.config.judged_rules.relevant_at, None
    known = np.isfinite(scores["test"])
    if np.isfinite(scores["dev"]).all() or _has_both_kinds(run, scores, labels, split="dev"):
        is_scored = np.isfinite(scores["dev"])
        mine, theirs = scores["dev"][is_scored], labels["dev"][is_scored]
        threshold = best_threshold(mine, theirs, relevant_at=run.config.relevant_at("dev"))
    found = measure(
        scores["test"][known], labels["test"][known], relevant_at=at, threshold=threshold or 0.0
    ).to_dict()
    accuracy = None if threshold is None else found["accuracy"]
    return {**found, "accuracy": accuracy, "threshold": threshold}


def _has_both_kinds(
    run: Run, scores: Scores, labels: Mapping[str, NDArray[np.float32]], *, split: str
) -> bool:
    """Whether a scorer has a score of relevant and of other pairs of a split."""
    at, known = run.config.relevant_at(split), labels[split][np.isfinite(scores[split])]
    relevant = known >= (DECIDES_AT if at is None else at)
    return bool(relevant.any() and not relevant.all())


def retained(
    run: Run,
    scored: Mapping[str, Scores],
    labels: Scores,
    *,
    entries: Mapping[str, dict[str, Any]],
    name: str,
    reference: str,
) -> dict[str, float]:
    """What a scorer retains of the reference, on the test pairs that the reference scores.

    Empty if the reference has no figures.
    """
    if reference not in entries:
        return {}
    is_known = np.isfinite(scored[reference]["test"])
    test = np.where(is_known, scored[name]["test"], np.float32("nan"))
    return retentions(entry_of(run, {**scored[name], "test": test}, labels), entries[reference])


def retentions(one: Mapping[str, Any], teacher: Mapping[str, Any]) -> dict[str, float]:
    """A scorer's retention in three measures; without the accuracy if one has none."""
    found = {
        "AUC": retention(one["auc"], teacher["auc"]),
        "AUC above chance": retention(one["auc"] - 0.5, teacher["auc"] - 0.5),
    }
    if one["accuracy"] is None or teacher["accuracy"] is None:
        return found
    return {**found, "accuracy": retention(one["accuracy"], teacher["accuracy"])}
