"""Tables, best trials and the chosen one by hand; for the trials see tests/stages/test_tune.py."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from raydistill.config.base import OF_QUERIES, MetricKey
from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.search.results import (
    FAILED,
    FINISHED,
    MODES,
    STOPPED,
    UNTUNED,
    US_PER_PAIR,
    FinalResult,
    Trial,
    best_few,
    best_toml,
    choose,
    pareto,
    trials_table,
    without_nan,
)
from tests.helpers.runs import run_config

TRIALS = [
    Trial("a", FINISHED, {"soft_labels.temperature": 1.0}, {"auc": 0.7, US_PER_PAIR: 20.0}, 2.0),
    Trial("b", STOPPED, {"soft_labels.temperature": 2.0}, {"auc": 0.8, US_PER_PAIR: 30.0}, 1.0),
    Trial("c", FAILED, {"soft_labels.temperature": 3.0}, {}, 0.5, "ValueError: no"),
    Trial("d", FINISHED, {"soft_labels.temperature": 4.0}, {"auc": 0.75, US_PER_PAIR: 40.0}, 2.0),
    Trial("e", FINISHED, {"soft_labels.temperature": 2.0}, {"auc": 0.79, US_PER_PAIR: 31.0}, 2.0),
    Trial(
        "f",
        FINISHED,
        {"soft_labels.temperature": 5.0},
        {"auc": float("nan"), US_PER_PAIR: 1.0},
        2.0,
    ),
]


def final(name: str, *, dev: list[float], test: list[float]) -> FinalResult:
    rows = [
        {"seed": at, "dev": {"auc": one, "log_loss": -one}, "test": {"auc": two, "log_loss": -two}}
        for at, (one, two) in enumerate(zip(dev, test, strict=True))
    ]
    return FinalResult(name, {"soft_labels.temperature": 2.0, "student.hidden": (8,)}, tuple(rows))


def test_the_front_holds_what_no_other_beats_in_both() -> None:
    assert [trial.name for trial in pareto(TRIALS, metric="auc")] == ["b", "a"]


@pytest.mark.parametrize(("speed", "names"), [(False, ["b", "d"]), (True, ["b", "d"])])
def test_the_best_few_without_twins_and_without_the_untuned(speed: bool, names: list[str]) -> None:
    tune = {"metric": "auc", "num_final": 2, "speed": speed}
    config = run_config("run", Path("raw"), Path("model"), tune=tune)
    assert [trial.name for trial in best_few(TRIALS, config)] == names  # "a" is untuned, "e" is "b"


def test_what_the_preset_takes_is_the_untuned_run() -> None:
    tune = {"metric": "auc", "num_final": 2}
    config = run_config("run", Path("raw"), Path("model"), tune=tune, student={"hidden": None})
    named = {"student.hidden": [256, 64], "train.target": "logit", "train.table_learning_rate": 0.1}
    same, other = (
        Trial(name, FINISHED, settings, {"auc": 0.7, US_PER_PAIR: 20.0}, 2.0)
        for name, settings in (("same", named), ("other", {**named, "student.hidden": [8]}))
    )
    assert [trial.name for trial in best_few([same, other], config)] == ["other"]


def test_the_table_has_a_row_for_every_trial_also_for_failed_ones() -> None:
    table = trials_table([*TRIALS, Trial("g", FINISHED, {"student.hidden": (8, 4)})])
    rows = {row["name"]: row for row in table.to_pylist()}
    assert rows["c"]["error"] == "ValueError: no" and rows["c"]["auc"] is None
    assert rows["b"]["soft_labels.temperature"] == 2.0 and rows["b"]["auc"] == 0.8
    assert json.loads(rows["g"]["student.hidden"]) == [8, 4]


def test_the_best_on_dev_is_chosen_and_may_be_the_untuned_one() -> None:
    untuned = final(UNTUNED, dev=[0.70, 0.72], test=[0.70, 0.80])
    better = final("b", dev=[0.73, 0.73], test=[0.60, 0.60])  # what test says has no vote
    worse = final("c", dev=[0.60, 0.60], test=[0.9, 0.9])
    assert choose(untuned, [worse, better], metric="auc") is better
    assert choose(untuned, [worse], metric="auc") is untuned
    assert choose(untuned, [better], metric="log_loss") is better  # less is better
    assert best_toml(better, "x").endswith(
        "[soft_labels]\ntemperature = 2.0\n\n[student]\nhidden = [\n    8,\n]\n"
    )
    scored = replace(better, test_scores=(np.zeros(2, np.float32),))
    assert json.loads(json.dumps(scored.to_dict()))["students"][0]["seed"] == 0


def test_each_metric_has_a_better_end() -> None:
    assert (MODES["ece"], MODES["ndcg_10"], MODES["agreement"]) == ("min", "max", "max")
    assert set(get_args(MetricKey)) == set(METRICS) == set(MODES) - {"agreement"}
    assert OF_QUERIES == {key for key, metric in METRICS.items() if metric.of == "queries"}


def test_json_has_null_for_what_is_not_finite() -> None:
    found = without_nan({"a": [float("nan"), 1.5, (np.float64("inf"),)], "b": {"c": "nan", "d": 2}})
    assert found == {"a": [None, 1.5, [None]], "b": {"c": "nan", "d": 2}}
    json.dumps(found, allow_nan=False)
