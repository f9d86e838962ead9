"""Results of a search: ranking, Pareto front, final configurations, and the chosen one.

Input: metrics of trials, and of students trained on the whole transfer set. Output: the chosen
settings; for their gain see `verdict`. No files, no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import tomli_w
from numpy.typing import NDArray

from raydistill.config.run_config import RunConfig
from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.search.space import Settings, tables_of, with_settings

UNTUNED = "untuned"
# The better end of each metric; "agreement": the rank correlation with the teachers' soft labels.
MODES: dict[str, str] = {**{key: one.best for key, one in METRICS.items()}, "agreement": "max"}
US_PER_PAIR = "us_per_pair"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


@dataclass(frozen=True)
class FinalResult:
    """One configuration and its students, one for each seed: metrics by split."""

    name: str
    settings: Settings
    students: tuple[dict[str, Any], ...]  # seed, fingerprint, dev, test, threshold, us_per_pair
    test_scores: tuple[NDArray[np.float32], ...] = ()  # of each student, in the order of the pairs

    def mean(self, split: str, metric: str) -> float:
        """Mean over the seeds."""
        return fmean(float(student[split][metric]) for student in self.students)

    def to_dict(self) -> dict[str, Any]:
        """The figures, for tune.json; without the scores."""
        return {"name": self.name, "settings": self.settings, "students": self.students}


def shown_name(metric: str) -> str:
    """The name of a metric in sentences."""
    return METRICS[metric].name if metric in METRICS else metric.replace("_", " ")


def choose(untuned: FinalResult, others: Sequence[FinalResult], *, metric: str) -> FinalResult:
    """The configuration with the best dev mean; the untuned one if no other is better."""
    sign = -1 if MODES[metric] == "max" else 1
    return min([untuned, *others], key=lambda final: sign * final.mean("dev", metric))


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
    tune, metric = config.tune, config.tune_metric
    order = ranked(trials, metric=metric)
    if tune.speed:
        front = pareto(trials, metric=metric)
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


def without_nan(content: Mapping[str, Any]) -> dict[str, Any]:
    """Nested content for JSON, with None for each number that is not finite."""
    return {key: _without_nan(one) for key, one in content.items()}


def _without_nan(content: object) -> object:
    if isinstance(content, Mapping):
        return without_nan(content)
    if isinstance(content, (list, tuple)):
        return [_without_nan(one) for one in content]
    return None if isinstance(content, float) and not np.isfinite(content) else content


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
