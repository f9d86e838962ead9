"""All numbers of a run's report: the content of metrics.json (docs/evaluation.md)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.evaluation.cases import CasePairs, find_cases
from raydistill.evaluation.dataset_stats import inspect_run
from raydistill.evaluation.lexical import LEXICAL
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.pair_metrics import DECIDES_AT
from raydistill.evaluation.metrics.thresholds import best_threshold
from raydistill.evaluation.scoreboard.distributions import charts
from raydistill.evaluation.scoreboard.scoreboard import scoreboard
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from raydistill.runs.run_folder import METRICS_SCHEMA, TUNED, Run
from raydistill.search.results import without_nan
from raydistill.serving.scorer import Scorer
from raydistill.stages.evaluation.costs import costs, stage_counts
from raydistill.stages.evaluation.other_labels import other_labels
from raydistill.stages.evaluation.references import reference_scores
from raydistill.stages.evaluation.run_slices import run_slices
from raydistill.stages.evaluation.scorers import (
    CALIBRATED,
    ENSEMBLE,
    MEAN,
    Scores,
    coverage,
    fitted_or_none,
    partial_scorers,
    reference_of,
    teacher_scores,
)
from raydistill.stages.evaluation.speed import time_scorer
from raydistill.stages.evaluation.split_pairs import SPLITS, SplitPairs, read_split
from raydistill.student.export.student_bundle import (
    bundle_arrays,
    bundle_settings,
    score_split,
    scorer_of,
)
from raydistill.student.fit_files import RESULT
from raydistill.teachers.stacking import FittedStack

logger = logging.getLogger("raydistill")
STUDENT, BASELINE = "student", "baseline on judged labels only"
_ROLES = {ENSEMBLE: "ensemble", MEAN: "ensemble", CALIBRATED: "ensemble",
          STUDENT: "student", BASELINE: "baseline"}  # fmt: skip


def figures(run: Run) -> dict[str, Any]:
    """All numbers of the report.

    Raises:
        UserError: the test split lacks relevant or other pairs, or other labels or further columns
            cannot be read.
    """
    pairs = {split: read_split(run, split) for split in SPLITS}
    fitted, student = fitted_or_none(run), Scorer.load(run.bundle.uri)
    test, scored, num_unscored = _test_scores(run, pairs, fitted, student)
    draws = Draws(run.config.evaluate.resamples, run.config.evaluate.seed)
    teacher, rules = reference_of(run), run.config.judged
    known = teacher if teacher in scored.scores else None
    compared = _compared(scored.scores)
    found = scoreboard(scored, reference=known, compared=compared, draws=draws)
    single_us = _describe(run, found["scorers"], student)
    keys = [metric["key"] for metric in found["metrics"]]
    has_labels = rules is not None and run.config.relevant_at("test") is not None
    return {
        "schema": METRICS_SCHEMA,
        "kind": "judged" if has_labels else "agreement",
        **found,
        "teacher": teacher,
        "num_unscored": num_unscored,
        "is_dev_drawn": run.config.relevant_at("dev") is None,
        "other_labels": None if rules is None else other_labels(rules, scored, test, draws=draws),
        "slices": run_slices(run, test, scored, teacher=teacher, draws=draws, known=keys),
        "charts": charts(scored, teacher=teacher),
        "cases": _cases(test, scored, student, teacher=teacher),
        "coverage": coverage(run, {split: one.judged for split, one in pairs.items()}),
        "sources": {split: run.config.source_of(split) for split in SPLITS},
        "stack": None if fitted is None else fitted.to_dict(),
        "single_us": single_us,
        **_of_stages(run),
    }


def _test_scores(
    run: Run, pairs: Mapping[str, SplitPairs], fitted: FittedStack | None, student: Scorer
) -> tuple[SplitPairs, ScoredPairs, int]:
    """The test pairs that are measured, what each scorer says of them, and how many are not."""
    everyone = _all_scores(run, pairs, fitted, student)
    partial = partial_scorers(run, fitted)
    left, scores, num_unscored = _left(pairs, everyone, partial=partial)
    scores = _measurable(run, left, scores, partial=partial)
    return left["test"], _scored(run, left, scores, student=student), num_unscored


def _all_scores(
    run: Run, pairs: Mapping[str, SplitPairs], fitted: FittedStack | None, student: Scorer
) -> dict[str, Scores]:
    """The scores of every scorer on all dev and test pairs, in the order of the table."""
    students = {STUDENT: student}
    if "judged_only" in run.roles:
        settings, arrays = bundle_settings(run, "judged_only"), bundle_arrays(run, "judged_only")
        students[BASELINE] = scorer_of(settings, arrays)
    return {
        **teacher_scores(run, fitted),
        **{
            name: {split: score_split(run, scorer, split)[0] for split in SPLITS}
            for name, scorer in students.items()
        },
        **reference_scores(run, {split: one.table for split, one in pairs.items()}),
    }


def _left(
    pairs: Mapping[str, SplitPairs], scores: Mapping[str, Scores], *, partial: list[str]
) -> tuple[dict[str, SplitPairs], dict[str, Scores], int]:
    """The pairs with a label and a score of each scorer but those in `partial`; their scores.

    And the number of test pairs that are left out.
    """
    left, kept, num_out = {}, {name: dict[str, NDArray[np.float32]]() for name in scores}, 0
    for split, one in pairs.items():
        whole = [found[split] for name, found in scores.items() if name not in partial]
        is_scored = np.asarray(np.isfinite([one.labels_B, *whole]).all(axis=0))
        left[split] = one.only(is_scored)
        num_out = int((~is_scored).sum())
        for name, found in scores.items():
            kept[name][split] = found[split][is_scored]
    return left, kept, num_out  # the last split is test


def _measurable(
    run: Run, pairs: Mapping[str, SplitPairs], scores: dict[str, Scores], *, partial: list[str]
) -> dict[str, Scores]:
    """The scorers without those in `partial` that score too few test pairs.

    Raises:
        UserError: the test split has pairs of one kind.
    """
    relevant = _relevant(run, pairs, "test")
    if run.config.relevant_at("test") is not None and (relevant.all() or not relevant.any()):
        raise UserError(
            f"the test split has {relevant.sum()} relevant of {len(relevant)} pairs at "
            f"judged.relevant_at = {run.config.judged_rules.relevant_at}; it needs both kinds"
        )
    few = [name for name in partial if not _has_both(relevant[np.isfinite(scores[name]["test"])])]
    for name in few:
        logger.warning("evaluate  %s has scores of too few test pairs: left out", name)
    return {name: found for name, found in scores.items() if name not in few}


def _relevant(run: Run, pairs: Mapping[str, SplitPairs], split: str) -> NDArray[np.bool_]:
    at = run.config.relevant_at(split)
    return pairs[split].labels_B >= (DECIDES_AT if at is None else at)


def _has_both(relevant: NDArray[np.bool_]) -> bool:
    return bool(relevant.any() and not relevant.all())


def _scored(
    run: Run, pairs: Mapping[str, SplitPairs], scores: Mapping[str, Scores], *, student: Scorer
) -> ScoredPairs:
    """The test pairs and their scores, with the threshold of each scorer that is best on dev.

    Where the labels are the ensemble's soft labels, it decides at 0.5, and the student as served.
    """
    thresholds = {name: _threshold(run, pairs, found) for name, found in scores.items()}
    if run.config.relevant_at("test") is None:
        thresholds |= {STUDENT: student.threshold, reference_of(run): DECIDES_AT}
    return ScoredPairs(
        pairs["test"].labels_B,
        pairs["test"].groups_B,
        run.config.relevant_at("test"),
        {name: found["test"] for name, found in scores.items()},
        thresholds,
        uncalibrated=[name for name in LEXICAL if name in scores],
    )


def _threshold(run: Run, pairs: Mapping[str, SplitPairs], scores: Scores) -> float | None:
    """The threshold that is best on dev; None for a scorer of too few dev pairs."""
    known = np.isfinite(scores["dev"])
    if not known.all() and not _has_both(_relevant(run, pairs, "dev")[known]):
        return None
    mine, theirs = scores["dev"][known], pairs["dev"].labels_B[known]
    return best_threshold(mine, theirs, relevant_at=run.config.relevant_at("dev"))


def role_of(name: str) -> str:
    """The role of a scorer, by its name in the report."""
    if name in _ROLES:
        return _ROLES[name]
    return "teacher" if name.startswith("teacher ") else "reference"


def _cases(
    pairs: SplitPairs, scored: ScoredPairs, student: Scorer, *, teacher: str
) -> dict[str, Any] | None:
    """What drove the student's scores where it differs most from the teacher; None without one."""
    if teacher not in scored.scores:
        return None
    decides = (scored.thresholds.get(name) for name in (STUDENT, teacher))
    at = [DECIDES_AT if threshold is None else threshold for threshold in decides]
    return find_cases(
        student,
        CasePairs(
            pairs.table["query"],
            pairs.table["title"],
            pairs.labels_B,
            pairs.groups_B,
            scored.scores[STUDENT],
            scored.scores[teacher],
        ),
        relevant_at=scored.relevant_at,
        student_threshold=at[0],
        teacher_threshold=at[1],
    )


def _compared(scores: Collection[str]) -> list[tuple[str, str]]:
    """The student against the baseline, each teacher and the ensembles."""
    others = [name for name in scores if role_of(name) in ("baseline", "ensemble", "teacher")]
    return [(STUDENT, name) for name in sorted(others, key=lambda name: name != BASELINE)]


def _describe(run: Run, entries: dict[str, dict[str, Any]], student: Scorer) -> float:
    """Add role and µs/pair to each scorer; returns the student's µs in calls of one pair."""
    batch_us, single_us = time_scorer(run, student)
    speeds: dict[str, float | None] = {STUDENT: batch_us, BASELINE: batch_us}
    for name in run.config.teacher_names:
        labeled = run.logits(name).success() or {}
        speeds[f"teacher {name}"] = labeled.get("actor_us_per_pair")
    for name, entry in entries.items():
        entry |= {"role": role_of(name), "us_per_pair": speeds.get(name)}
    return single_us


def _of_stages(run: Run) -> dict[str, Any]:
    """What the other stages counted and found."""
    return {
        "curve": run.own_curve(),
        "cost": costs(run),
        "stages": stage_counts(run),
        "training": {role: run.student(role).read_json(RESULT) for role in run.roles},
        "tune": without_nan(run.tune.read_json(TUNED) or {}) if run.tune.success() else None,
        "data": inspect_run(run),
    }
