"""Results of a search: ranking, Pareto front, final configurations, and their gain on all pairs.

Input: metrics of trials, and of students trained on the whole transfer set. Output: the chosen
settings, and their gain with its spread. No files, no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pyarrow as pa
import tomli_w

from raydistill.config.run_config import RunConfig
from raydistill.search.space import Settings, tables_of, with_settings

UNTUNED = "untuned"
MODES = {"log_loss": "min", "auc": "max", "accuracy": "max", "ece": "min", "agreement": "max"}
US_PER_PAIR = "us_per_pair"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


@dataclass(frozen=True)
class FinalResult:
    """One configuration and its students, one for each seed: metrics by split."""

    name: str
    settings: Settings
    students: tuple[dict[str, Any], ...]  # seed, fingerprint, dev, test, us_per_pair

    def mean(self, split: str, metric: str) -> float:
        """Mean over the seeds."""
        return fmean(self.values(split, metric))

    def values(self, split: str, metric: str) -> list[float]:
        """The metric of each seed."""
        return [float(student[split][metric]) for student in self.students]


@dataclass(frozen=True)
class Gain:
    """The improvement of the chosen settings over the untuned ones, paired by seed."""

    mean: float  # above 0 is better, for each metric
    deviation: float | None  # standard deviation of the differences; None for one seed
    num_seeds: int

    @property
    def error(self) -> float | None:
        """Standard error of the mean."""
        return None if self.deviation is None else self.deviation / self.num_seeds**0.5

    @property
    def is_significant(self) -> bool:
        """Whether the mean is more than twice its standard error; False for one seed."""
        return self.error is not None and self.mean > 2 * self.error


def choose(untuned: FinalResult, others: Sequence[FinalResult], *, metric: str) -> FinalResult:
    """The configuration with the best dev mean; the untuned one if no other is better."""
    sign = -1 if MODES[metric] == "max" else 1
    return min([untuned, *others], key=lambda final: sign * final.mean("dev", metric))


def gain(chosen: FinalResult, untuned: FinalResult, *, split: str, metric: str) -> Gain:
    """Mean and standard deviation of the differences, paired by seed."""
    sign = 1 if MODES[metric] == "max" else -1
    pairs = zip(chosen.values(split, metric), untuned.values(split, metric), strict=True)
    found = [sign * (one - other) for one, other in pairs]
    return Gain(fmean(found), stdev(found) if len(found) > 1 else None, len(found))


def verdict(chosen: FinalResult, untuned: FinalResult, *, metric: str) -> str:
    """One sentence: the gain on unseen queries with its spread, or no gain."""
    if chosen is untuned:
        return "No gain: nothing that was searched beats the untuned settings on the dev split."
    found = gain(chosen, untuned, split="test", metric=metric)
    name = metric.replace("_", " ")
    if found.error is None:
        return (
            f"{name} on the test split is better by {found.mean:+.4f} with one seed, which tells "
            "nothing about its spread."
        )
    text = (
        f"{found.mean:+.4f} {name} on the test split (standard error {found.error:.4f}, "
        f"{found.num_seeds} seeds; above 0 is better)"
    )
    if found.is_significant:
        return f"{chosen.name} gains {text}."
    return f"No gain that the seeds' spread does not explain: {chosen.name} has {text}."


def best_toml(chosen: FinalResult, sentence: str) -> str:
    """The chosen settings as an overlay file for `--overlay`."""
    return f"# {sentence}\n# raydistill distill --config RUN.TOML --overlay THIS\n" + tomli_w.dumps(
        tables_of(chosen.settings)
    )


@dataclass(frozen=True)
class Trial:
    """The outcome of a trial."""

    name: str
    state: str  # finished; stopped: worse than other trials at the same rung; failed
    settings: Settings
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None


def ranked(trials: Sequence[Trial], *, metric: str) -> list[Trial]:
    """Trials with a finite value of the metric, without failed ones, best first."""
    sign = -1 if MODES[metric] == "max" else 1
    have = [t for t in trials if t.state != FAILED and np.isfinite(t.metrics.get(metric, np.nan))]
    return sorted(have, key=lambda trial: sign * trial.metrics[metric])


def pareto(trials: Sequence[Trial], *, metric: str) -> list[Trial]:
    """The Pareto front of the metric and µs/pair, best metric first."""
    front: list[Trial] = []
    for trial in ranked(trials, metric=metric):
        if not front or trial.metrics[US_PER_PAIR] < front[-1].metrics[US_PER_PAIR]:
            front.append(trial)
    return front


def best_few(trials: Sequence[Trial], config: RunConfig) -> list[Trial]:
    """The best trials, to train again; without duplicates and the untuned configuration.

    If speed is an objective, the trials of the Pareto front come first.
    """
    tune = config.tune
    order = ranked(trials, metric=tune.metric)
    if tune.speed:
        front = pareto(trials, metric=tune.metric)
        order = front + [trial for trial in order if trial not in front]
    found: list[Trial] = []
    known = [config.resolved]
    for trial in order:
        wanted = with_settings(config, trial.settings).resolved
        if wanted not in known and len(found) < tune.num_final:
            known.append(wanted)
            found.append(trial)
    return found


def trials_table(trials: Sequence[Trial]) -> pa.Table:
    """One row for each trial: name, state, error, seconds, metrics, and a column for each setting.

    A setting with values that are not numbers is written as JSON.
    """
    columns: dict[str, list[Any]] = {
        name: [getattr(trial, name) for trial in trials]
        for name in ("name", "state", "error", "seconds")
    }
    for name in dict.fromkeys(name for trial in trials for name in trial.metrics):
        columns[name] = [trial.metrics.get(name) for trial in trials]
    rows = [flat_settings(trial.settings) for trial in trials]
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        is_number = all(v is None or _is_number(v) for v in values)
        columns[name] = values if is_number else [json.dumps(value) for value in values]
    text = pa.schema([("name", pa.string()), ("state", pa.string()), ("error", pa.string())])
    return pa.table(
        {
            name: pa.array(values, text.field(name).type if name in text.names else None)
            for name, values in columns.items()
        }
    )


def flat_settings(settings: Settings) -> dict[str, Any]:
    """Settings with one name for each stacking weight: `soft_labels.weights.minilm`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
