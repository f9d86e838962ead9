"""Tables, best trials and gains by hand; for the trials see tests/stages/test_tune.py."""

import json
from pathlib import Path

import pytest

from raydistill.search.results import (
    FAILED,
    FINISHED,
    STOPPED,
    UNTUNED,
    US_PER_PAIR,
    FinalResult,
    Trial,
    best_few,
    best_toml,
    choose,
    gain,
    pareto,
    trials_table,
    verdict,
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


def test_the_gain_is_measured_seed_by_seed_on_the_test_split() -> None:
    untuned = final(UNTUNED, dev=[0.70, 0.72], test=[0.70, 0.80])
    better = final("b", dev=[0.73, 0.73], test=[0.72, 0.82])
    assert choose(untuned, [better], metric="auc") is better
    found = gain(better, untuned, split="test", metric="auc")
    # Differences 0.02 and 0.02: the seeds differ by 0.1, the gain does not.
    assert (found.mean, found.deviation) == pytest.approx((0.02, 0)) and found.is_significant
    assert gain(better, untuned, split="test", metric="log_loss").mean == pytest.approx(0.02)
    assert verdict(better, untuned, metric="auc").startswith("b gains +0.0200 auc")
    assert best_toml(better, "x").endswith(
        "[soft_labels]\ntemperature = 2.0\n\n[student]\nhidden = [\n    8,\n]\n"
    )


def test_no_gain_is_said_to_be_none() -> None:
    untuned = final(UNTUNED, dev=[0.70, 0.72], test=[0.70, 0.80])
    worse = final("b", dev=[0.60, 0.60], test=[0.9, 0.9])  # what test says has no vote
    assert choose(untuned, [worse], metric="auc") is untuned
    assert verdict(untuned, untuned, metric="auc").startswith("No gain: nothing")
    noisy = final("c", dev=[0.8, 0.8], test=[0.9, 0.7])  # +0.2 and -0.1: 0.05 with error 0.15
    found = gain(noisy, untuned, split="test", metric="auc")
    assert (found.mean, found.error) == pytest.approx((0.05, 0.15))
    assert verdict(noisy, untuned, metric="auc").startswith("No gain that the seeds' spread")
    alone = gain(final("d", dev=[1], test=[1]), final("u", dev=[0], test=[0]), split="dev",
                 metric="auc")  # fmt: skip
    assert alone.error is None and not alone.is_significant
