"""evaluate: teachers, student and baseline on the test split (unseen queries)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from raydistill.errors import UserError
from raydistill.evaluation.dataset_stats import inspect_run
from raydistill.evaluation.metrics.pair_metrics import DECIDES_AT
from raydistill.evaluation.metrics.summary import agree
from raydistill.evaluation.metrics.thresholds import best_threshold
from raydistill.evaluation.report import markdown
from raydistill.files.folder import SUCCESS, Folder
from raydistill.files.schema import COUNTS
from raydistill.runs.run_folder import TUNED, Run
from raydistill.serving.scorer import Scorer
from raydistill.stages.measured import Scores, leave_out_unscored, measure_scorers, retained
from raydistill.student.export.student_bundle import (
    bundle_arrays,
    bundle_settings,
    score_split,
    scorer_of,
)
from raydistill.student.fit_files import RESULT
from raydistill.teachers.judged_logits import Judged, fitted_stack, read_judged, stack_of
from raydistill.teachers.soft_labels import soft_labels
from raydistill.teachers.stacking import FittedStack, Stack

logger = logging.getLogger("raydistill")
BASELINE = "baseline on judged labels only"
METRICS, REPORT = "metrics.json", "report.md"
_TIMED_PAIRS = 4_096
_TIMED_ROUNDS = 5


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
    if BASELINE not in scorers:
        return
    student, judged_only = (scorers[name]["auc"] for name in ("student", BASELINE))
    if judged_only > student:
        logger.warning(
            "evaluate  the baseline on judged labels only is better: AUC %.4f, the student %.4f; "
            "label more pairs, of more queries, or give a better teacher",
            judged_only,
            student,
        )


def figures(run: Run) -> dict[str, Any]:
    """All numbers of the report."""
    if run.config.relevant_at("test") is None:
        return agreement_figures(run)
    student = Scorer.load(run.bundle.uri)
    students = {"student": student}
    if "judged_only" in run.roles:
        settings, arrays = bundle_settings(run, "judged_only"), bundle_arrays(run, "judged_only")
        students[BASELINE] = scorer_of(settings, arrays)
    splits = ("dev", "test")
    can_fit = len(run.config.teacher_names) > 1 and run.config.learns_from_judged
    fitted = _fitted(run) if can_fit else None
    scored: dict[str, Scores] = teacher_scores(run, fitted)
    for name, scorer in students.items():
        scored[name] = {split: score_split(run, scorer, split)[0] for split in splits}
    judged = {split: read_judged(run, split) for split in splits}
    labels = {split: found.labels_B for split, found in judged.items()}
    reference, partial = reference_of(run), partial_scorers(run, fitted)
    num_unscored = leave_out_unscored(scored, labels, but=partial)["test"]
    relevant = labels["test"] >= run.config.judged_rules.relevant_at
    if relevant.all() or not relevant.any():
        raise UserError(
            f"the test split has {relevant.sum()} relevant of {len(relevant)} pairs at "
            f"judged.relevant_at = {run.config.judged_rules.relevant_at}; it needs both kinds"
        )
    entries = measure_scorers(run, scored, labels, partial=partial)
    single_us = _add_speed(run, entries, student)
    kept = {
        name: retained(run, scored, labels, entries=entries, name=name, reference=reference)
        for name in students
    }
    for name in students:
        entries[name]["auc_retention"] = kept[name].get("AUC")
        entries[name]["us_per_pair"] = entries["student"]["us_per_pair"]
    return {
        "num_pairs": len(relevant),
        "num_unscored": num_unscored,
        "num_queries": judged["test"].num_queries,
        "relevant_at": run.config.judged_rules.relevant_at,
        "is_dev_drawn": run.config.relevant_at("dev") is None,
        "scorers": entries,
        "coverage": coverage(run, judged),
        "sources": {split: run.config.source_of(split) for split in splits},
        "retention": kept["student"],
        "teacher": reference,
        "stack": None if fitted is None else fitted.to_dict(),
        "single_us": single_us,
        **_of_stages(run),
    }


def agreement_figures(run: Run) -> dict[str, Any]:
    """All numbers of the report of a run without judged pairs: agreement with the teachers."""
    student = Scorer.load(run.bundle.uri)
    scored = teacher_scores(run)
    scored["student"] = {split: score_split(run, student, split)[0] for split in ("dev", "test")}
    splits = {split: read_judged(run, split) for split in ("dev", "test")}
    labels = {split: found.labels_B for split, found in splits.items()}
    groups_B, has_label = splits["test"].groups_B, np.isfinite(labels["test"])
    entries: dict[str, dict[str, Any]] = {}
    for name, scores in scored.items():  # a teacher on the pairs that it has a logit of
        known = {split: np.isfinite([scores[split], labels[split]]).all(axis=0) for split in labels}
        if not all(mask.any() for mask in known.values()):
            logger.warning("evaluate  %s has scores of no held-out pair: left out", name)
            continue
        mine = {split: scores[split][mask] for split, mask in known.items()}
        theirs = {split: labels[split][mask] for split, mask in known.items()}
        threshold = best_threshold(mine["dev"], theirs["dev"], relevant_at=None)
        given = {"student": student.threshold, reference_of(run): DECIDES_AT}
        threshold = given.get(name, threshold)
        groups = groups_B[known["test"]]
        found = agree(mine["test"], theirs["test"], groups, threshold=threshold)
        entries[name] = {**found.to_dict(), "threshold": threshold}
    return {
        "is_agreement": True,
        "num_pairs": int(has_label.sum()),
        "num_unscored": int((~has_label).sum()),
        "num_queries": len(np.unique(groups_B[has_label])),
        "relevant_share": float(np.mean(labels["test"][has_label] >= DECIDES_AT)),
        "coverage": coverage(run, splits),
        "sources": {split: run.config.source_of(split) for split in splits},
        "scorers": entries,
        "teacher": reference_of(run),
        "single_us": _add_speed(run, entries, student),
        **_of_stages(run),
    }


def _add_speed(run: Run, entries: dict[str, dict[str, Any]], student: Scorer) -> float:
    """Add µs/pair of student and teachers; returns that of the student in calls of one pair."""
    batch_us, single_us = time_scorer(run, student)
    entries["student"]["us_per_pair"] = batch_us
    for name in run.config.teacher_names:
        labeled = run.logits(name).success() or {}
        if f"teacher {name}" in entries:
            entries[f"teacher {name}"]["us_per_pair"] = labeled.get("actor_us_per_pair")
    return single_us


def _of_stages(run: Run) -> dict[str, Any]:
    """What the other stages counted and found."""
    return {
        "stages": _stage_counts(run),
        "training": {role: run.student(role).read_json(RESULT) for role in run.roles},
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


def partial_scorers(run: Run, fitted: FittedStack | None = None) -> list[str]:
    """Teachers and stacks that have scores of some pairs only, and are measured on these."""
    return [
        label
        for label, (stack, _) in _stacks(run, fitted).items()
        if all(map(run.config.is_partial, stack.counted))
    ]


def coverage(run: Run, judged: Mapping[str, Judged]) -> dict[str, dict[str, Any]]:
    """Of each teacher: the pairs that it has a logit of, of all that `label` was to score.

    The judged dev and test pairs are counted with the others, and alone.
    """
    found: dict[str, dict[str, Any]] = {}
    for at, name in enumerate(run.config.teacher_names):
        done = run.logits(name).success()
        if done is None:  # logits that another tool wrote
            continue
        num_pairs = done["rows_out"] - done.get("absent", 0)
        splits = {
            split: int(np.isfinite(one.logits_BM[:, at]).sum()) for split, one in judged.items()
        }
        share = num_pairs / max(done["rows_in"], 1)
        found[name] = {"pairs": num_pairs, "of": done["rows_in"], "share": share, **splits}
        if "unmatched" in done:
            found[name]["unmatched"] = done["unmatched"]
    return found


def _stacks(run: Run, fitted: FittedStack | None) -> dict[str, tuple[Stack, float]]:
    """Each teacher and the stacks of several teachers, with their temperatures.

    The stacks: the student's, the mean of the BERTs if it differs, and `fitted` calibrated.
    """
    names = run.config.teacher_names
    one_hot = {f"teacher {name}": Stack({name: 1.0}) for name in names}
    stacks: dict[str, tuple[Stack, float]] = {name: (one, 1.0) for name, one in one_hot.items()}
    if len(stacks) > 1:
        used, berts = stack_of(run, fitted=fitted), list(run.config.teachers)
        equal = dict.fromkeys(berts, 1 / len(berts))
        stacks["teacher ensemble"] = used, 1.0
        if len(berts) > 1 and used != Stack(equal):
            stacks["teacher mean"] = Stack(equal), 1.0
        if fitted is not None:
            stacks["teacher ensemble, calibrated"] = fitted, fitted.temperature
    return stacks


def teacher_scores(run: Run, fitted: FittedStack | None = None) -> dict[str, Scores]:
    """Scores of each teacher, and of the stacks of several teachers: see `_stacks`."""
    names = run.config.teacher_names
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
        for label, (stack, temperature) in _stacks(run, fitted).items()
    }


def reference_of(run: Run) -> str:
    """The scorer that retention divides by: the student's stack, or the only teacher."""
    if len(run.config.teacher_names) > 1:
        return "teacher ensemble"
    return f"teacher {next(iter(run.config.teachers))}"


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
    folders = {f"prepare {name.replace('_', ' ')}": run.root / name for name in run.config.datasets}
    for name, teacher in run.config.teachers.items():
        if teacher.base is not None:
            folders[f"finetune {name}"] = run.teacher(name)
    for name in run.config.teacher_names:
        folders[f"label {name}"] = run.logits(name)
    folders |= {"train student": run.student("student"), "export": run.bundle}
    if "judged_only" in run.roles:
        folders["train baseline on judged labels only"] = run.student("judged_only")
    wanted = (*COUNTS, "seconds")
    return {
        label: {key: done[key] for key in wanted if key in done}
        for label, folder in folders.items()
        if (done := folder.success()) is not None
    }
