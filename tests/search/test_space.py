from pathlib import Path

import pytest

from raydistill.config.loading import load_config
from raydistill.config.run_config import RunConfig
from raydistill.errors import UserError
from raydistill.search.space import default_values, dimensions, settings_of, with_settings
from raydistill.teachers.stacking import Stack
from tests.helpers.runs import run_config

SPACE = {
    "soft_labels.temperature": {"low": 0.5, "high": 8.0, "log": True},
    "soft_labels.weights": {"spread": 2.0},
    "student.hidden": {"choices": [[16, 8], [8]]},
    "train.batch_rows": {"low": 32, "high": 128},
}
FITTED = Stack({"a": 0.25, "b": 0.75}, bias=0.5)
TEACHERS = {"a": {"model": "x"}, "b": {"model": "y"}}


def config(**sections: object) -> RunConfig:
    wanted = {"teachers": TEACHERS, "tune": {"space": SPACE}, **sections}
    return run_config("run", Path("raw"), Path("model"), **wanted)


def test_a_trial_is_a_run_file_with_other_settings() -> None:
    run = config()
    values = {
        "soft_labels.temperature": 2.0, "soft_labels.weights.b": 0.0, "student.hidden": 1,
        "train.batch_rows": 32,
    }  # fmt: skip
    found = settings_of(run, dimensions(run), values, fitted=FITTED)
    assert found == {
        "soft_labels.temperature": 2.0, "soft_labels.weights": {"a": 0.25, "b": 0.75},
        "soft_labels.bias": 0.5,
        "student.hidden": [8], "train.batch_rows": 32,
    }  # fmt: skip
    trial = with_settings(run, found)
    assert trial.student.hidden == (8,) and trial.soft_labels.temperature == 2
    assert trial.soft_labels.weights == {"a": 0.25, "b": 0.75}
    assert with_settings(trial, {"soft_labels.weights": "fitted", "soft_labels.bias": 0.0}) != trial


def test_weights_keep_to_the_simplex() -> None:
    run = config(tune={"space": {"soft_labels.weights": {"spread": 2.0}}})
    space = dimensions(run)
    assert [(d.name, d.low, d.high) for d in space] == [("soft_labels.weights.b", -2.0, 2.0)]
    for ratio in (-2.0, 0.7, 2.0):
        found = settings_of(run, space, {"soft_labels.weights.b": ratio}, fitted=FITTED)
        weights = found["soft_labels.weights"]
        assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) > 0
    none = settings_of(
        run, space, {"soft_labels.weights.b": 0.0}, fitted=Stack({"a": 1.0, "b": 0.0})
    )
    assert none["soft_labels.weights"]["b"] == pytest.approx(0.02 / 1.02)  # it may come back


def test_the_untuned_settings_are_a_trial_where_the_space_holds_them() -> None:
    run = config(soft_labels={"weights": "fitted"})
    assert default_values(run, dimensions(run)) == {
        "soft_labels.temperature": 1.0, "soft_labels.weights.b": 0.0, "student.hidden": 0,
        "train.batch_rows": 64,
    }  # fmt: skip
    other = config(soft_labels={"weights": "fitted"}, train={"batch_rows": 16})
    assert default_values(other, dimensions(other)) is None


def test_a_search_begins_with_what_the_preset_takes() -> None:
    space = {
        "student.hidden": {"choices": [[8], [256, 64]]},
        "train.target": {"choices": ["logit", "probability"]},
        "train.table_learning_rate": {"low": 0.01, "high": 0.5},
    }
    silent = config(tune={"space": space}, student={"hidden": None})
    assert default_values(silent, dimensions(silent)) == {
        "student.hidden": 1, "train.target": 0, "train.table_learning_rate": 0.1,
    }  # fmt: skip
    paper = config(tune={"space": space}, ngrams={"preset": "bert2dnn"}, student={"hidden": [8]})
    assert default_values(paper, dimensions(paper)) == {
        "student.hidden": 0, "train.target": 1, "train.table_learning_rate": 0.01,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"soft_labels.temperatur": {"low": 1, "high": 2}}, "did you mean temperature"),
        ({"ngrams.units": {"choices": [True, False]}}, "words are counted with it"),
        ({"pairs.lowercase": {"choices": [True]}}, "cannot be searched"),
        ({"train.num_workers": {"choices": [1]}}, "unknown setting train.num_workers"),
        ({"train.seed": {"low": 3, "high": 2}}, "low below high"),
        ({"train.seed": {"low": 3, "choices": [1]}}, "give {low, high} or {choices}"),
        ({"train.learning_rate": {"low": 0, "high": 1, "log": True}}, "low above 0"),
    ],
)
def test_a_space_that_cannot_be_is_refused(
    space: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        config(tune={"space": space})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "tune.space is empty"),
        ({"student.dropout": {"low": 0.0, "high": 1.0}}, "student.dropout"),
        ({"ngrams.preset": {"choices": ["match", "unigrams"]}}, "ngrams.preset"),
        ({"train.seed": {"spread": 1.0}}, "only soft_labels.weights"),
    ],
)
def test_values_that_no_run_file_could_hold_are_found_first(
    space: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        dimensions(config(tune={"space": space}))


def test_one_teacher_has_no_weights_to_search() -> None:
    one = config(
        teachers={"a": {"model": "x"}}, tune={"space": {"soft_labels.weights": {"spread": 1}}}
    )
    with pytest.raises(UserError, match="one teacher leaves nothing"):
        dimensions(one)


def test_overlays_lie_over_the_file_and_set_above_them(tmp_path: Path) -> None:
    file, overlay = tmp_path / "run.toml", tmp_path / "best.toml"
    file.write_text(config(soft_labels={"weights": "fitted"}).to_toml())
    overlay.write_text("[soft_labels]\ntemperature = 3.0\nbias = 0.5\nweights = {a = 1, b = 3}\n")
    from raydistill.config.loading import read_overlay

    above = [read_overlay(str(overlay))]
    found = load_config(str(file), overlays=above)
    assert found.soft_labels.temperature == 3 and found.stacking_weights() == {"a": 0.25, "b": 0.75}
    assert found.student == config().student
    set_too = load_config(str(file), overlays=above, overrides=["soft_labels.temperature=4"])
    assert set_too.soft_labels.temperature == 4
    with pytest.raises(UserError, match="no such overlay"):
        read_overlay(str(tmp_path / "none.toml"))


def test_an_overlay_replaces_the_weights_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    given = config(soft_labels={"weights": {"a": 1, "trees": 1, "b": 1}}, trees={"enabled": True})
    file.write_text(given.to_toml())
    overlay = {"soft_labels": {"weights": {"a": 3, "b": 1}}}
    found = load_config(str(file), overlays=[overlay])
    assert found.stacking_weights() == {"a": 0.75, "b": 0.25}


@pytest.mark.parametrize("choice", ["fitted", {"a": 1, "b": 1, "trees": 1}])
def test_a_trial_cannot_take_in_trees_that_the_run_leaves_out(choice: object) -> None:
    space = {"space": {"soft_labels.weights": {"choices": [{"a": 1, "b": 2}, choice]}}}
    out: dict[str, object] = {"trees": {"enabled": True}, "tune": space}
    run = config(soft_labels={"weights": {"a": 1, "b": 1}}, **out)
    with pytest.raises(ValueError, match=r"takes in the trees.*give them trees = 0"):
        dimensions(run)
    dimensions(config(soft_labels={"weights": {"a": 1, "b": 1, "trees": 0}}, **out))


@pytest.mark.parametrize("other", ["fitted", {"a": 1, "b": 1, "trees": 1}])
def test_a_trial_and_an_overlay_may_leave_the_trees_out(other: object) -> None:
    space = {"space": {"soft_labels.weights": {"choices": [{"a": 1, "b": 1}, other]}}}
    run = config(trees={"enabled": True}, tune=space)
    for values, has_trees in (
        ({"soft_labels.weights": 0}, False),
        ({"soft_labels.weights": 1}, True),
    ):
        settings = settings_of(run, dimensions(run), values, fitted=FITTED)
        assert with_settings(run, settings).has_trees is has_trees


def test_a_given_bias_stands_beside_searched_weights() -> None:
    run = config(
        soft_labels={"bias": 2.0}, tune={"space": {"soft_labels.weights": {"spread": 2.0}}}
    )
    found = settings_of(run, dimensions(run), {"soft_labels.weights.b": 0.0}, fitted=FITTED)
    assert found["soft_labels.bias"] == 2.0


def test_weights_of_several_teachers_are_fitted_unless_they_are_given() -> None:
    assert config().stacking_weights() is None
    assert config(soft_labels={"weights": "fitted"}).stacking_weights() is None
    assert config(soft_labels={"weights": {"a": 3, "b": 1}}).stacking_weights() == {
        "a": 0.75,
        "b": 0.25,
    }
    one = {"a": {"model": "x"}}
    assert config(teachers=one, tune={}).stacking_weights() == {"a": 1.0}
    assert config(teachers=one, tune={}, trees={"enabled": True}).stacking_weights() is None
