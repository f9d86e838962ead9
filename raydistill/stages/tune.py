"""tune: search settings on a sample, train the best on all pairs, and report their gain."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.cluster.connection import Cluster
from raydistill.cluster.tune_trials import search
from raydistill.config.base import OF_QUERIES
from raydistill.errors import UserError
from raydistill.evaluation.metrics.thresholds import best_threshold
from raydistill.evaluation.report.markdown import tune_markdown
from raydistill.files.folder import SUCCESS
from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import TUNED, Run
from raydistill.search.plots import draw
from raydistill.search.results import (
    FAILED,
    UNTUNED,
    US_PER_PAIR,
    FinalResult,
    Trial,
    best_few,
    best_toml,
    choose,
    flat_settings,
    pareto,
    ranked,
    shown_name,
    trials_table,
    without_nan,
)
from raydistill.search.sample import draw_sample
from raydistill.search.space import WEIGHTS, Settings, dimensions, with_settings
from raydistill.search.trial import SearchContext
from raydistill.search.verdict import SplitPairs, gain, verdict
from raydistill.stages.evaluation.speed import time_scorer
from raydistill.stages.fits.covered import write_covered
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.stages.train import train_role
from raydistill.student.dev_split import figures_of
from raydistill.student.export.student_bundle import (
    bundle_arrays,
    bundle_settings,
    score_split,
    scorer_of,
)
from raydistill.teachers.judged_logits import fitted_stack, read_groups, read_judged, stack_of

logger = logging.getLogger("raydistill")
_MOST_TRIALS = 500  # in tune.json, best first; trials.parquet has all
BEST, TRIALS, REPORT = "best.toml", "trials.parquet", "report.md"


def tune_stage(run: Run, cluster: Cluster) -> bool:
    """Search and write `tune/`; False if it is complete and up to date.

    Raises:
        UserError: nothing to search, shards without logits, or all trials failed.
    """
    wanted = run.tune_fingerprint()
    done = run.tune.success()
    if done is not None and done["fingerprint"] == wanted:
        return False
    with run.begin("train"):  # tune trains students too: it excludes a concurrent `train`
        _tune(run, cluster, wanted=wanted)
    return True


def _tune(run: Run, cluster: Cluster, *, wanted: str) -> None:
    start_s = time.monotonic()
    context = search_context(run)
    trials = search(context, cluster, storage=run.tune / "search", name=wanted)
    search_s = time.monotonic() - start_s
    run.tune.write_table(TRIALS, trials_table(trials))
    _check_any(trials)
    few = {trial.name: trial.settings for trial in best_few(trials, run.config)}
    untuned, *others = _finals(run, {UNTUNED: {}, **few}, cluster)
    found = _found(run, trials, untuned, others, num_sample=context.sample.num_pairs)
    found = without_nan({**found, "search_seconds": round(search_s, 1)})
    _write(run, found, trials, untuned=untuned, others=others)
    summary = {
        "fingerprint": wanted,
        "rows_in": len(trials),
        "rows_out": sum(trial.state != FAILED for trial in trials),
        "quarantined": sum(trial.state == FAILED for trial in trials),
        "seconds": round(time.monotonic() - start_s, 1),
    }
    run.tune.write_json(SUCCESS, summary)
    logger.info("tune      %s", found["verdict"])
    logger.info("tune      %s/%s", run.tune, BEST)


def search_context(run: Run) -> SearchContext:
    """The inputs that the trials share: sample, dimensions, lexicon, fitted stack.

    Raises:
        UserError: nothing to search, or prepare or label is incomplete.
    """
    space = dimensions(run.config)
    tune = run.config.tune
    is_searched = WEIGHTS in tune.space
    fitted = fitted_stack(run) if is_searched else stack_of(run)
    counted = run.config.teacher_names if is_searched else fitted.counted
    write_covered(run, counted)
    sample = draw_sample(run, counted=counted, num_pairs=tune.sample_pairs, seed=tune.seed)
    run.train_fingerprint("student")  # pins the models here, once for all trials
    # With word vectors, even if the run has none: a trial can use them.
    words = replace(run, config=with_settings(run.config, {"ngrams.preset": "match"}))
    write_lexicon(words)
    return SearchContext(run, sample, load_lexicon(words), tuple(space), fitted)


def _check_any(trials: Sequence[Trial]) -> None:
    failed = [trial for trial in trials if trial.state == FAILED]
    for trial in failed:
        logger.warning("tune      trial %s failed: %s", trial.name, trial.error)
    if len(failed) == len(trials):
        raise UserError(f"all {len(trials)} trials failed; the first: {failed[0].error}")


def _finals(run: Run, wanted: dict[str, Settings], cluster: Cluster) -> list[FinalResult]:
    """Train each configuration on the whole transfer set with each seed; measure the students.

    As many students train at once as fit on the cluster. A complete student is not trained again:
    neither after a kill, nor by a later `train`.
    """
    seeds = range(run.config.train.seed, run.config.train.seed + run.config.tune.final_seeds)
    runs = {
        (name, seed): replace(
            run, config=with_settings(run.config, {**settings, "train.seed": seed})
        )
        for name, settings in wanted.items()
        for seed in seeds
    }
    for one in runs.values():
        write_lexicon(one)  # here, so that no two threads write the same lexicon
    with ThreadPoolExecutor(_side_by_side(run, cluster)) as threads:
        fits = [threads.submit(train_role, one, "student", cluster) for one in runs.values()]
        try:
            for fit in as_completed(fits):
                fit.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    finals = []
    for name, settings in wanted.items():
        students, scores = zip(*(_measure(runs[name, seed]) for seed in seeds), strict=True)
        seeded = tuple({"seed": seed, **one} for seed, one in zip(seeds, students, strict=True))
        for student in seeded:
            logger.info("tune      %s, seed %d: %s", name, student["seed"], _short(student, run))
        finals.append(FinalResult(name, settings, seeded, scores))
    return finals


def _side_by_side(run: Run, cluster: Cluster) -> int:
    """The number of students that the cluster trains at once."""
    train = run.config.train
    if cluster.num_gpus and train.num_gpus:
        return cluster.num_actors(gpus_each=train.num_gpus * train.most_workers)
    return max(1, cluster.num_cores // train.most_workers)


def _short(student: dict[str, Any], run: Run) -> str:
    metric = run.config.tune_metric
    return f"dev {shown_name(metric)} {student['dev'][metric]:.4f}"


def _measure(run: Run) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Metrics of a student as served on dev and test, its µs/pair; and its test scores.

    Test pairs without a soft label have no score: they are left out.
    """
    scorer = scorer_of(bundle_settings(run, "student"), bundle_arrays(run, "student"))
    found: dict[str, Any] = {"threshold": None}
    for split in ("dev", "test"):
        scores, labels = score_split(run, scorer, split)
        rows = np.flatnonzero(~np.isnan(labels))
        scores, labels, groups = scores[rows], labels[rows], read_groups(run, split)[rows]
        at = run.config.relevant_at(split)
        if split == "dev":
            found["threshold"] = best_threshold(scores, labels, relevant_at=at)
        figures = figures_of(scores, labels, groups, relevant_at=at, threshold=found["threshold"])
        if at is None:
            figures["agreement"] = figures["spearman"]
        known = {k: v for k, v in figures.items() if k not in OF_QUERIES or np.isfinite(v)}
        found[split] = {**known, "num_pairs": len(labels)}
    fingerprint, speed = run.train_fingerprint("student"), time_scorer(run, scorer)[0]
    return {**found, US_PER_PAIR: speed, "fingerprint": fingerprint}, scores


def _test_pairs(run: Run) -> SplitPairs:
    """The test pairs that have a label: those that `_measure` scores, in this order."""
    test = read_judged(run, "test")
    has_B = ~np.isnan(test.labels_B)
    return SplitPairs(test.labels_B[has_B], test.groups_B[has_B], run.config.relevant_at("test"))


def _found(
    run: Run,
    trials: Sequence[Trial],
    untuned: FinalResult,
    others: Sequence[FinalResult],
    *,
    num_sample: int,
) -> dict[str, Any]:
    """The contents of the search's report."""
    metric = run.config.tune_metric
    chosen = choose(untuned, others, metric=metric)
    found = None
    if chosen is not untuned:
        found = gain(chosen, untuned, _test_pairs(run), metric=metric)
    front = pareto(trials, metric=metric) if run.config.tune.speed else []
    return {
        "metric": metric,
        "is_agreement": run.config.relevant_at("dev") is None,
        "num_sample": num_sample,
        "states": {s: sum(t.state == s for t in trials) for s in {t.state for t in trials}},
        "errors": [{"name": t.name, "error": t.error} for t in trials if t.state == FAILED],
        "best_trials": [_row(trial) for trial in ranked(trials, metric=metric)[:10]],
        "trials": [_row(trial) for trial in ranked(trials, metric=metric)[:_MOST_TRIALS]],
        "front": [_row(trial) for trial in front],
        "finals": [final.to_dict() for final in (untuned, *others)],
        "chosen": chosen.name,
        "gain": asdict(found) if found and found.is_known else None,
        "verdict": verdict(chosen.name, found, metric=metric),
    }


def _row(trial: Trial) -> dict[str, Any]:
    settings = flat_settings(trial.settings)
    return {"name": trial.name, "state": trial.state, **trial.metrics, "settings": settings}


def _write(
    run: Run,
    found: dict[str, Any],
    trials: Sequence[Trial],
    *,
    untuned: FinalResult,
    others: Sequence[FinalResult],
) -> None:
    """Write the overlay, the figures, the plots and the report."""
    chosen = next(final for final in (untuned, *others) if final.name == found["chosen"])
    plots = draw(trials, metric=found["metric"])
    found["plots"] = sorted(plots)
    for name, svg in plots.items():
        run.tune.write_bytes(name, svg)
    run.tune.write_json(TUNED, found)
    run.tune.write_bytes(REPORT, ("# Search\n\n" + tune_markdown(found)).encode())
    run.tune.write_bytes(BEST, best_toml(chosen, found["verdict"]).encode())
