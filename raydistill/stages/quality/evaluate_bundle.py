"""evaluate --bundle: a bundle on any judged pairs, beside teachers and scores without a model.

There is no dev split: the student's threshold is the bundle's, and other rows have no accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raydistill.config.data import JudgedConfig
from raydistill.evaluation.cases import CasePairs, find_cases
from raydistill.evaluation.dataset_stats import describe_pairs
from raydistill.evaluation.lexical import LEXICAL, document_frequencies, lexical_scores
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.pair_metrics import DECIDES_AT
from raydistill.evaluation.report.console import console_table
from raydistill.evaluation.report.html import html
from raydistill.evaluation.report.markdown import markdown
from raydistill.evaluation.scoreboard.distributions import charts
from raydistill.evaluation.scoreboard.scoreboard import scoreboard
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from raydistill.files.folder import Folder
from raydistill.runs.run_folder import METRICS, METRICS_SCHEMA, PAGE, REPORT
from raydistill.serving.scorer import Scorer
from raydistill.serving.text.arrow_text import to_texts
from raydistill.stages.evaluation.scorers import ENSEMBLE
from raydistill.stages.evaluation.slices import (
    Scored,
    Slice,
    column_slice,
    figures_of_slices,
    score_slices,
    text_slices,
)
from raydistill.stages.evaluation.speed import time_texts
from raydistill.stages.quality.compare import check_both_kinds, score_pairs
from raydistill.stages.quality.judged_pairs import JudgedPairs, read_judged_files
from raydistill.teachers.soft_labels import soft_labels

if TYPE_CHECKING:
    from raydistill.stages.quality.teacher_scores import TeacherModel

STUDENT = "student"
_TIMED_PAIRS = 4_096


@dataclass(frozen=True)
class BundleEvaluation:
    """What is measured: a bundle, and teachers named `MODEL` or `NAME=MODEL`."""

    scorer: Scorer
    rules: JudgedConfig
    bundle: str = ""
    slices: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    max_length: int = 128
    draws: Draws = Draws()  # noqa: RUF009 - it is immutable


@dataclass(frozen=True)
class Row:
    """A scorer's scores, NaN for none."""

    role: str
    scores_B: NDArray[np.float32]
    us_per_pair: float | None = None


def evaluate_bundle(plan: BundleEvaluation) -> dict[str, Any]:
    """The content of metrics.json (docs/evaluation.md).

    Raises:
        UserError: the judged files or a teacher cannot be used, or the pairs are of one kind.
    """
    models = _named_teachers(plan)  # a mistake is found before files are read
    pairs = read_judged_files(plan.rules, slices=plan.slices)
    check_both_kinds(pairs, relevant_at=plan.rules.relevant_at)
    teachers = _teacher_rows(models, pairs)
    reference = next(reversed(teachers), None)
    batch_us, single_us = _speed(plan.scorer, pairs)
    student = Row("student", score_pairs(plan.scorer, pairs), batch_us)
    rows = {**teachers, STUDENT: student, **_lexical_rows(pairs)}
    scored = _scored(plan, pairs, rows)
    compared = [(STUDENT, name) for name in teachers]
    found = scoreboard(scored, reference=reference, compared=compared, draws=plan.draws)
    for name, row in rows.items():
        found["scorers"][name] |= {"role": row.role, "us_per_pair": row.us_per_pair}
    return {
        "schema": METRICS_SCHEMA,
        "kind": "judged",
        **found,
        "bundle": plan.bundle,
        "inputs": [given.path for given in plan.rules.input],
        "data": describe_pairs(
            pairs.table,
            counts=pairs.counts,
            rejects=pairs.rejects,
            name="judged",
            relevant_at=plan.rules.relevant_at,
        ),
        "num_unscored": 0,
        "is_dev_drawn": False,
        "slices": _slices(plan, pairs, scored, reference=reference),
        "charts": charts(scored, teacher=reference),
        "cases": _cases(plan, pairs, scored, teacher=reference),
        "single_us": single_us,
        **_WITHOUT_A_RUN,
    }


# What only a run has.
_WITHOUT_A_RUN: dict[str, Any] = {
    **dict.fromkeys(("other_labels", "curve", "cost", "stack", "tune")),
    **{name: {} for name in ("coverage", "sources", "stages", "training")},
}


def _scored(plan: BundleEvaluation, pairs: JudgedPairs, rows: dict[str, Row]) -> ScoredPairs:
    return ScoredPairs(
        labels_B=pairs.labels_B,
        groups_B=pairs.groups_B,
        relevant_at=plan.rules.relevant_at,
        scores={name: row.scores_B for name, row in rows.items()},
        thresholds={STUDENT: plan.scorer.threshold},
        uncalibrated=[name for name in LEXICAL if name in rows],
    )


def _named_teachers(plan: BundleEvaluation) -> list[TeacherModel]:
    if not plan.teachers:
        return []
    from raydistill.stages.quality.teacher_scores import named_teachers  # torch takes seconds

    return named_teachers(plan.teachers, max_length=plan.max_length)


def _teacher_rows(models: Sequence[TeacherModel], pairs: JudgedPairs) -> dict[str, Row]:
    """Each teacher, and the mean of their logits if there are several, last."""
    if not models:
        return {}
    from raydistill.stages.quality.teacher_scores import teacher_logits

    logits, rows = list[NDArray[np.float32]](), dict[str, Row]()
    for model in models:
        found = teacher_logits(model, pairs.queries, pairs.titles, has_query=pairs.has_query)
        logits.append(found.logits_B)
        scores_B = _to_scores(found.logits_B[:, None])
        rows[f"teacher {model.name}"] = Row("teacher", scores_B, found.us_per_pair)
    if len(models) > 1:
        rows[ENSEMBLE] = Row("ensemble", _to_scores(np.stack(logits, axis=1)))
    return rows


def _to_scores(logits_BM: NDArray[np.float32]) -> NDArray[np.float32]:
    num_teachers = logits_BM.shape[1]
    weights_M = [1 / num_teachers] * num_teachers
    return soft_labels(logits_BM, weights_M=weights_M, bias=0.0, temperature=1.0)


def _speed(scorer: Scorer, pairs: JudgedPairs) -> tuple[float, float]:
    """The student's microseconds a pair on one core, in a batch and in calls of one pair."""
    some = (texts.slice(0, _TIMED_PAIRS).to_pylist() for texts in (pairs.queries, pairs.titles))
    return time_texts(scorer, *some)


def _lexical_rows(pairs: JudgedPairs) -> dict[str, Row]:
    """Word overlap, character trigrams and BM25; the titles of the pairs give the frequencies."""
    if not pairs.has_query:
        return {}
    texts = to_texts(pairs.queries), to_texts(pairs.titles)
    distinct = to_texts(pairs.titles.unique())
    scores = lexical_scores(*texts, frequencies=document_frequencies(distinct))
    return {name: Row("reference", scores_B) for name, scores_B in scores.items()}


def _slices(
    plan: BundleEvaluation, pairs: JudgedPairs, scored: ScoredPairs, *, reference: str | None
) -> list[dict[str, Any]]:
    """The figures of teachers and student by query, by the teachers' scores, by named columns."""
    slices = _slices_of(plan, pairs, scored, reference=reference)
    return figures_of_slices(slices, scored, reference=reference, draws=plan.draws)


def _slices_of(
    plan: BundleEvaluation, pairs: JudgedPairs, scored: ScoredPairs, *, reference: str | None
) -> list[Slice]:
    slices = text_slices(pairs.table, has_query=pairs.has_query)
    if reference is not None:
        each = [one for name, one in scored.scores.items() if _is_teacher(name)]
        slices += score_slices(Scored(scored.scores[reference], np.stack(each, axis=1)))
    slices += [column_slice(name, pairs.columns[name].to_pylist()) for name in plan.slices]
    return [one for one in slices if one.cells]


def _is_teacher(name: str) -> bool:
    return name.startswith("teacher ") and name != ENSEMBLE


def _cases(
    plan: BundleEvaluation, pairs: JudgedPairs, scored: ScoredPairs, *, teacher: str | None
) -> dict[str, Any] | None:
    """What drove the student's scores where it differs most from the teacher; None without one."""
    if teacher is None:
        return None
    return find_cases(
        plan.scorer,
        CasePairs(
            pairs.queries,
            pairs.titles,
            pairs.labels_B,
            pairs.groups_B,
            scored.scores[STUDENT],
            scored.scores[teacher],
        ),
        relevant_at=scored.relevant_at,
        student_threshold=plan.scorer.threshold,
        teacher_threshold=DECIDES_AT,
    )


def console(found: dict[str, Any]) -> str:
    """The table of the console, and what it is of."""
    counts = found["data"]["rows"]["judged"]
    rows = f"{counts['rows_in']:,} rows: {found['num_pairs']:,} pairs"
    if counts["duplicates"]:
        rows += f", {counts['duplicates']:,} repeated (their labels' mean)"
    if counts["quarantined"]:
        rows += f", {counts['quarantined']:,} that cannot be used"
    about = (
        f"{rows}; {found['num_queries']:,} queries, {found['queries']['left_out']:,} of them "
        f"with labels of one kind.\nRelevant from a label of {found['relevant_at']:g}. There is "
        f"no dev split: the student's threshold is the bundle's, "
        f"{found['scorers'][STUDENT]['threshold']:.4f}."
    )
    return f"{about}\n\n{console_table(found)}"


def write(found: dict[str, Any], output: str) -> str:
    """Write metrics.json, report.md and report.html to a folder; returns the place of the page."""
    folder = Folder(output)
    folder.write_json(METRICS, found)
    folder.write_bytes(REPORT, markdown(found).encode())
    folder.write_bytes(PAGE, html(found).encode())
    return f"{folder}/{PAGE}"
