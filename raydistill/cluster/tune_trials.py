"""Run the trials of a search with Ray Tune: Optuna proposes settings, ASHA stops bad trials.

A trial runs in one actor on one core. The inputs that all trials share are in the object store
once. An interrupted search resumes and keeps its finished trials.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from threadpoolctl import threadpool_limits

# Set before Ray Tune is imported. Tune saves the search every second, so that a kill loses no
# finished trial; it does not handle Ctrl-C, and writes no event files for each trial.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output prints a box even with verbose=0
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

import optuna
import torch
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from raydistill.cluster.connection import Cluster
from raydistill.cluster.places import guarded
from raydistill.config.run_config import RunConfig
from raydistill.files.folder import Folder
from raydistill.search.results import (
    FAILED,
    FINISHED,
    MODES,
    STOPPED,
    US_PER_PAIR,
    Trial,
    shown_name,
)
from raydistill.search.space import Dimension, default_values, settings_of
from raydistill.search.trial import EVALUATIONS_AN_EPOCH, SearchContext, run_trial
from raydistill.serving.lexicon import Lexicon
from raydistill.student.export.student_bundle import bundle_settings, scorer_of
from raydistill.student.fit import FitState, StudentFit

logger = logging.getLogger("raydistill")
_METRICS = (*MODES, US_PER_PAIR, "pairs", "done_share")
_TIMED_PAIRS, _TIMED_ROUNDS = 2_048, 5
_REDUCTION = 3  # ASHA: one of this many trials continues after a rung


def search(context: SearchContext, cluster: Cluster, *, storage: Folder, name: str) -> list[Trial]:
    """Run the remaining trials, and return all trials in the order of their proposal."""
    _quiet()
    storage.tried(lambda: storage.filesystem.create_dir(storage.path(), recursive=True))
    trial = tune.with_parameters(_trial, context=context, look=guarded(_nothing))
    trainable = tune.with_resources(trial, {"CPU": 1})
    space = {dimension.name: _domain(dimension) for dimension in context.space}
    path = storage.path(name)
    if tune.Tuner.can_restore(path, storage_filesystem=storage.filesystem):
        tuner = tune.Tuner.restore(
            path, trainable, param_space=space, storage_filesystem=storage.filesystem
        )
        logger.info("tune      resuming the trials in %s", storage / name)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=_tune_config(context, cluster),
            run_config=tune.RunConfig(
                name=name,
                storage_path=storage.path(),
                storage_filesystem=storage.filesystem,
                callbacks=[_Ended(context.run.config)],
                verbose=0,
            ),
        )
    results = tuner.fit()
    # From the saved files: Tune's results lack settings and errors of restored failed trials.
    analysis = tune.ExperimentAnalysis(
        results.experiment_path, storage_filesystem=results.filesystem
    )
    order = sorted(analysis.trials, key=lambda trial: int(trial.experiment_tag.split("_")[0]))
    return [_to_trial(context, trial, storage / name / _name_of(trial)) for trial in order]


def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)


def _tune_config(context: SearchContext, cluster: Cluster) -> tune.TuneConfig:
    settings = context.run.config.tune
    metric = context.run.config.tune_metric
    objectives: dict[str, str] = {metric: MODES[metric]}
    if settings.speed:
        objectives[US_PER_PAIR] = "min"
    first = default_values(context.run.config, context.space)
    names, modes = list(objectives), list(objectives.values())
    return tune.TuneConfig(
        num_samples=settings.num_trials,
        max_concurrent_trials=settings.num_concurrent or cluster.num_cores,
        trial_dirname_creator=_name_of,
        reuse_actors=True,  # a new process takes seconds, mostly to import torch
        search_alg=OptunaSearch(
            metric=names if settings.speed else names[0],
            mode=modes if settings.speed else modes[0],
            points_to_evaluate=None if first is None else [first],
            seed=settings.seed,
        ),
        scheduler=ASHAScheduler(
            time_attr="pairs",
            metric=metric,
            mode=MODES[metric],
            max_t=context.num_pairs,
            # The first rung is at half an epoch: before it, trials differ by their learning rate.
            grace_period=2 * (context.sample.num_pairs // EVALUATIONS_AN_EPOCH),
            reduction_factor=_REDUCTION,
        ),
    )


def _name_of(trial: TuneTrial) -> str:
    """The name of a trial and of its folder."""
    return str(trial.trial_id)


def _domain(dimension: Dimension) -> Any:  # noqa: ANN401 - Tune's domains have no common public type
    if dimension.choices:
        return tune.choice(list(range(len(dimension.choices))))
    low, high = dimension.low, dimension.high
    if dimension.is_whole:  # Tune excludes the upper end
        return (tune.lograndint if dimension.log else tune.randint)(int(low), int(high) + 1)
    return (tune.loguniform if dimension.log else tune.uniform)(low, high)


def _nothing() -> None:
    """What a machine does beside its look for the run folder."""


def _trial(values: dict[str, Any], *, context: SearchContext, look: Callable[[], None]) -> None:
    """The function that the actor of a trial runs; `look` fails where no run folder is seen."""
    look()
    gc.collect()  # reference cycles of a traceback hold the tables of a stopped trial
    torch.set_num_threads(1)
    time_us = _time_us if context.run.config.tune.speed else None
    run_trial(context, values, report=tune.report, time_us=time_us)


def _time_us(fit: StudentFit, state: FitState, lexicon: Lexicon) -> float:
    """µs/pair of the scorer in batches, from raw text; the values of the weights have no effect.

    The minimum of several rounds: other trials share the machine.
    """
    arrays = {name: value.numpy() for name, value in state.student.arrays().items()}
    scorer = scorer_of(bundle_settings(fit.run, "student"), {**arrays, **lexicon.to_arrays()})
    shard = next(iter(fit.shards))
    rows = fit.folder.read_rows(shard, 0, _TIMED_PAIRS, columns=["query", "title"])
    texts = rows["query"].to_pylist(), rows["title"].to_pylist()
    rounds = []
    with threadpool_limits(limits=1):
        for _ in range(_TIMED_ROUNDS):
            start_s = time.perf_counter()
            scorer.score_pairs(*texts)
            rounds.append(time.perf_counter() - start_s)
    return float(min(rounds) / rows.num_rows * 1e6)


def _to_trial(context: SearchContext, trial: TuneTrial, folder: Folder) -> Trial:
    metrics = trial.last_result
    found = {name: float(metrics[name]) for name in _METRICS if name in metrics}
    state, error = FINISHED if found.get("done_share", 0) >= 1 else STOPPED, None
    if trial.status == TuneTrial.ERROR:
        state, error = FAILED, _error(folder)
    return Trial(
        name=str(trial.trial_id),
        state=state,
        settings=settings_of(
            context.run.config, context.space, trial.config, fitted=context.fitted
        ),
        metrics=found,
        seconds=float(metrics.get("time_total_s", 0.0)),
        error=error,
    )


def _error(folder: Folder) -> str:
    """The cause without Ray's stack, from the file that Tune writes to a trial's folder."""
    if not folder.exists("error.txt"):
        return "killed before its error was written"
    lines = folder.read_bytes("error.txt").decode().splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "unknown")


class _Ended(tune.Callback):
    """Log a line for each trial that ends."""

    def __init__(self, config: RunConfig) -> None:
        self._metric, self._num_trials = config.tune_metric, config.tune.num_trials

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        self._log(trials, trial)

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        self._log(trials, trial)

    def _log(self, trials: Iterable[TuneTrial], trial: TuneTrial) -> None:
        ended = (TuneTrial.TERMINATED, TuneTrial.ERROR)
        num_ended = sum(one.status in ended or one is trial for one in trials)
        found = (trial.last_result or {}).get(self._metric)
        note = "failed" if found is None else f"{shown_name(self._metric)} {found:.4f}"
        logger.info(
            "tune      %d/%d trials  %s: %s",
            num_ended, self._num_trials, trial.trial_id, note,
        )  # fmt: skip
