"""evaluate: teachers, student and baseline on the test split (unseen queries)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from raydistill.errors import UserError
from raydistill.evaluation.dataset_stats import inspect_run
from raydistill.evaluation.metrics import best_threshold, measure, retention
from raydistill.evaluation.report import markdown
from raydistill.files.folder import SUCCESS, Folder
from raydistill.files.schema import COUNTS
from raydistill.runs.fingerprints import ROLES
from raydistill.runs.run_folder import TUNED, Run
from raydistill.serving.scorer import Scorer
from raydistill.student.export.student_bundle import (
    bundle_arrays,
    bundle_settings,
    score_split,
    scorer_of,
)
from raydistill.student.fit_files import RESULT
from raydistill.teachers.judged_logits import fitted_stack, read_judged, stack_of
from raydistill.teachers.soft_labels import soft_labels
from raydistill.teachers.stacking import FittedStack, Stack

logger = logging.getLogger("raydistill")
METRICS, REPORT = "metrics.json", "report.md"
_TIMED_PAIRS = 4_096
_TIMED_ROUNDS = 5
_Scores = dict[str, NDArray[np.float32]]  # by split


def evaluate_stage(run: Run) -> bool:
    """Write `report/`; False if it is complete for the current students and logits.

    Raises:
        UserError: there is no bundle yet, or the test split lacks relevant or other pairs.
    """
    wanted = run.report_fingerprint()
    done = run.report.success()
    if done is not None and done["fingerprint"] == wanted:
        return False
    if not run.has_bundle():
        raise UserError(f"no bundle of the current student in {run.bundle}: run `export` first")
    with run.begin("evaluate"):
        _evaluate(run, wanted=wanted)
    return True


def _evaluate(run: Run, *, wanted: str) -> None:
    start_s = time.monotonic()
    found = figures(run)
    plots = (found["tune"] or {}).get("plots", [])
    _forget_plots(run.report, but=plots)
    for name in plots:
        run.report.write_bytes(name, run.tune.read_bytes(name))
    run.report.write_json(METRICS, found)
    run.report.write_bytes(REPORT, markdown(found).encode())
    summary = {
        "fingerprint": wanted,
        "rows_in": found["num_pairs"] + found["num_unscored"],
        "rows_out": found["num_pairs"],
        "quarantined": found["num_unscored"],
        "seconds": round(time.monotonic() - start_s, 1),
    }
    run.report.write_json(SUCCESS, summary)
    warn_if_behind(found["scorers"])
    logger.info("evaluate  %s", run.report.uri)


def _forget_plots(report: Folder, *, but: Sequence[str]) -> None:
    """Delete plots of an older report that the new report does not have; no other file."""
    older = (report.read_json(METRICS) or {}).get("tune") or {}
    for name in set(older.get("plots", [])) - set(but):
        if report.exists(name):
            report.delete_file(name)


def warn_if_behind(scorers: dict[str, dict[str, Any]]) -> None:
    """Log a warning if the baseline on judged labels only has a higher AUC than the student."""
    student, judged_only = (
        scorers[name]["auc"] for name in ("student", "baseline on judged labels only")
    )
    if judged_only > student:
        logger.warning(
            "evaluate  the baseline on judged labels only is better: AUC %.4f, the student %.4f; "
            "label more pairs, of more queries, or give a better teacher",
            judged_only,
            student,
        )


def figures(run: Run) -> dict[str, Any]:
    """All numbers of the report."""
    student = Scorer.load(run.bundle.uri)
    judged_only = scorer_of(bundle_settings(run, "judged_only"), bundle_arrays(run, "judged_only"))
    splits = ("dev", "test")
    fitted = _fitted(run) if len(run.config.teacher_names) > 1 else None
    scored: dict[str, _Scores] = teacher_scores(run, fitted)
    for name, scorer in {
        "student": student,
        "baseline on judged labels only": judged_only,
    }.items():
        scored[name] = {split: score_split(run, scorer, split)[0] for split in splits}
    judged = {split: read_judged(run, split) for split in splits}
    labels = {split: found.labels_B for split, found in judged.items()}
    num_unscored = leave_out_unscored(scored, labels)["test"]
    relevant = labels["test"] >= run.config.judged.relevant_at
    if relevant.all() or not relevant.any():
        raise UserError(
            f"the test split has {relevant.sum()} relevant of {len(relevant)} pairs at "
            f"judged.relevant_at = {run.config.judged.relevant_at}; it needs both kinds"
        )
    entries = {name: entry_of(run, scores, labels) for name, scores in scored.items()}
    reference = reference_of(run)
    for name in ("student", "baseline on judged labels only"):
        entries[name]["auc_retention"] = retention(entries[name]["auc"], entries[reference]["auc"])
    batch_us, single_us = time_scorer(run, student)
    entries["student"]["us_per_pair"] = entries["baseline on judged labels only"]["us_per_pair"] = (
        batch_us
    )
    for name in run.config.teacher_names:
        labeled = run.logits(name).success() or {}
        entries[f"teacher {name}"]["us_per_pair"] = labeled.get("actor_us_per_pair")
    return {
        "num_pairs": len(relevant),
        "num_unscored": num_unscored,
        "num_queries": judged["test"].num_queries,
        "relevant_at": run.config.judged.relevant_at,
        "scorers": entries,
        "retention": retentions(entries["student"], entries[reference]),
        "teacher": reference,
        "stack": None if fitted is None else fitted.to_dict(),
        "single_us": single_us,
        "stages": _stage_counts(run),
        "training": {role: run.student(role).read_json(RESULT) for role in ROLES},
        "tune": run.tune.read_json(TUNED) if run.tune.success() else None,
        "data": inspect_run(run),
    }


def _fitted(run: Run) -> FittedStack | None:
    """The fitted stack; None, with a warning, if it cannot be fitted and is not configured."""
    try:
        return fitted_stack(run)
    except UserError as error:
        if run.config.soft_labels.weights == "fitted":
            raise
        logger.warning("evaluate  no fitted stack in the report: %s", error)
        return None


def leave_out_unscored(scored: dict[str, _Scores], labels: _Scores) -> dict[str, int]:
    """Drop pairs without a finite score from all scorers; returns the number in each split."""
    num_unscored = {}
    for split, label in labels.items():
        is_scored = np.logical_and.reduce([np.isfinite(found[split]) for found in scored.values()])
        num_unscored[split] = int((~is_scored).sum())
        labels[split] = label[is_scored]
        for found in scored.values():
            found[split] = found[split][is_scored]
    return num_unscored


def teacher_scores(run: Run, fitted: FittedStack | None = None) -> dict[str, _Scores]:
    """Scores of each teacher, and of the stacks of several teachers.

    The stacks: the student's, the mean of the BERTs if it differs, and `fitted` calibrated.
    """
    names = run.config.teacher_names
    one_hot = {f"teacher {name}": Stack({name: 1.0}) for name in names}
    stacks = {label: (stack, 1.0) for label, stack in one_hot.items()}
    if len(stacks) > 1:
        used, berts = stack_of(run, fitted=fitted), list(run.config.teachers)
        equal = dict.fromkeys(berts, 1 / len(berts))
        stacks["teacher ensemble"] = used, 1.0
        if len(berts) > 1 and used != Stack(equal):
            stacks["teacher mean"] = Stack(equal), 1.0
        if fitted is not None:
            stacks["teacher ensemble, calibrated"] = fitted, fitted.temperature
    logits = {split: read_judged(run, split).logits_BM for split in ("dev", "test")}
    return {
        label: {
            split: soft_labels(
                logits_BM,
                weights_M=[stack.weights.get(name, 0.0) for name in names],
                bias=stack.bias,
                temperature=temperature,
            )
            for split, logits_BM in logits.items()
        }
        for label, (stack, temperature) in stacks.items()
    }


def entry_of(run: Run, scores: _Scores, labels: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Metrics on the test split, with the threshold that is best on the dev split."""
    at = run.config.judged.relevant_at
    threshold = best_threshold(scores["dev"], labels["dev"], relevant_at=at)
    found = measure(scores["test"], labels["test"], relevant_at=at, threshold=threshold)
    return {**found.to_dict(), "threshold": threshold}


def reference_of(run: Run) -> str:
    """The scorer that retention divides by: the student's stack, or the only teacher."""
    if len(run.config.teacher_names) > 1:
        return "teacher ensemble"
    return f"teacher {next(iter(run.config.teachers))}"


def retentions(student: dict[str, Any], teacher: dict[str, Any]) -> dict[str, float]:
    """The student's retention in three measures."""
    return {
        "AUC": retention(student["auc"], teacher["auc"]),
        "AUC above chance": retention(student["auc"] - 0.5, teacher["auc"] - 0.5),
        "accuracy": retention(student["accuracy"], teacher["accuracy"]),
    }


def time_scorer(run: Run, scorer: Scorer) -> tuple[float, float]:
    """Microseconds a pair on one core from raw text: in a batch, and in calls of one pair."""
    queries, titles = _timed_texts(run)
    batches, singles = [], []
    scorer.score_pairs(queries, titles)
    with threadpool_limits(limits=1):
        for _ in range(_TIMED_ROUNDS):
            start_s = time.perf_counter()
            scorer.score_pairs(queries, titles)
            batches.append((time.perf_counter() - start_s) / len(titles))
            some = range(min(200, len(titles)))
            start_s = time.perf_counter()
            for at in some:
                scorer.score(queries[at], titles[at : at + 1])
            singles.append((time.perf_counter() - start_s) / len(some))
    return float(np.median(batches)) * 1e6, float(np.median(singles)) * 1e6


def _timed_texts(run: Run) -> tuple[list[str], list[str]]:
    shard = run.pairs.shards()[0]
    rows = run.pairs.read_rows(shard, 0, _TIMED_PAIRS, columns=["query", "title"])
    return rows["query"].to_pylist(), rows["title"].to_pylist()


def _stage_counts(run: Run) -> dict[str, Any]:
    """The counts of each complete stage, from its _SUCCESS.json."""
    folders = {"prepare judged": run.root / "judged", "prepare pairs": run.pairs}
    for name, teacher in run.config.teachers.items():
        if teacher.base is not None:
            folders[f"finetune {name}"] = run.teacher(name)
    for name in run.config.teacher_names:
        folders[f"label {name}"] = run.logits(name)
    folders |= {"train student": run.student("student"), "export": run.bundle}
    folders["train baseline on judged labels only"] = run.student("judged_only")
    wanted = (*COUNTS, "seconds")
    return {
        label: {key: done[key] for key in wanted if key in done}
        for label, folder in folders.items()
        if (done := folder.success()) is not None
    }
