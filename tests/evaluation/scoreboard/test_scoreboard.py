"""The figures of metrics.json from labels and scores."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.evaluation.metrics.summary import metric_values
from raydistill.evaluation.scoreboard.scoreboard import scoreboard
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from tests.helpers.scored import DRAWS, some_pairs


def values_of(scored: ScoredPairs, name: str, rows: NDArray[np.bool_]) -> dict[str, float | None]:
    found = metric_values(
        scored.scores[name][rows], scored.labels_B[rows], scored.groups_B[rows],
        relevant_at=scored.relevant_at, threshold=scored.thresholds.get(name),
    )  # fmt: skip
    return found


def test_each_scorer_is_measured_on_the_pairs_that_it_scores() -> None:
    scored = some_pairs()
    found = scoreboard(scored, reference="teacher", draws=DRAWS)
    assert [metric["key"] for metric in found["metrics"]] == list(METRICS)
    assert found["scorers"]["student"]["num_pairs"] == found["num_pairs"] == 240
    assert found["scorers"]["partial"]["num_pairs"] == 120
    assert (found["scorers"]["partial"]["num_queries"], found["num_queries"]) == (15, 30)
    for name in scored.scores:
        expected = values_of(scored, name, np.isfinite(scored.scores[name]))
        figures = found["scorers"][name]["metrics"]
        for key, value in expected.items():
            if value is None:
                assert (name, key) == ("partial", "accuracy") and figures[key] is None
            else:
                assert figures[key]["value"] == pytest.approx(value)
                if key == "ece":
                    assert figures[key]["low"] is figures[key]["high"] is None
                else:
                    assert figures[key]["low"] <= value <= figures[key]["high"]


def test_retention_and_differences_are_on_the_pairs_of_both() -> None:
    scored = some_pairs()
    both = np.isfinite(scored.scores["partial"])
    compared = [("student", "partial"), ("student", "teacher")]
    found = scoreboard(scored, reference="partial", compared=compared, draws=DRAWS)
    student, partial = (values_of(scored, name, both) for name in ("student", "partial"))
    retained = found["scorers"]["student"]["retention"]
    for key in ("auc", "ndcg_10", "query_auc"):
        assert retained[key]["value"] == pytest.approx(student[key] / partial[key])
        difference = found["differences"][0]["metrics"][key]
        assert difference["value"] == pytest.approx(student[key] - partial[key])
        assert difference["low"] <= difference["value"] <= difference["high"]
    assert retained["log_loss"]["value"] == pytest.approx(partial["log_loss"] / student["log_loss"])
    above = (student["auc"] - 0.5) / (partial["auc"] - 0.5)
    assert retained["auc_above_chance"]["value"] == pytest.approx(above)
    assert "ece" not in retained and retained["accuracy"] is None
    assert found["scorers"]["partial"]["retention"] == {}
    assert [one["num_pairs"] for one in found["differences"]] == [120, 240]
    assert found["differences"][1]["metrics"]["auc"]["p"] < 0.05


def test_a_scorer_keeps_all_of_its_twin_in_every_resample() -> None:
    scored = some_pairs()
    scored = replace(scored, scores={**scored.scores, "twin": scored.scores["teacher"]})
    found = scoreboard(scored, reference="teacher", compared=[("twin", "teacher")], draws=DRAWS)
    assert found["scorers"]["twin"]["retention"]["ndcg_10"] == {"value": 1, "low": 1, "high": 1}
    difference = found["differences"][0]["metrics"]["ndcg_10"]
    assert difference == {"value": 0, "low": 0, "high": 0, "p": 1}


def test_a_seed_gives_the_same_figures_in_any_order_of_the_rows() -> None:
    scored = some_pairs()
    first = scoreboard(scored, reference="teacher", draws=DRAWS)
    assert first == scoreboard(scored, reference="teacher", draws=DRAWS)
    rows = np.random.default_rng(0).permutation(240)
    shuffled = replace(
        scored,
        labels_B=scored.labels_B[rows],
        groups_B=scored.groups_B[rows],
        scores={name: values[rows] for name, values in scored.scores.items()},
    )
    again = scoreboard(shuffled, reference="teacher", draws=DRAWS)
    for name, scorer in first["scorers"].items():
        for key, value in scorer["metrics"].items():
            other = again["scorers"][name]["metrics"][key]
            assert (value is None) == (other is None)
            assert value is None or other == pytest.approx(value)
    assert first != scoreboard(scored, reference="teacher", draws=Draws(100, seed=4))


def test_queries_without_both_kinds_are_counted() -> None:
    labels = np.array([1, 0, 1, 1, 0.5, 0], np.float32)
    scored = ScoredPairs(labels, np.array([5, 5, 3, 3, 1, 1]), 0.75, {"student": labels})
    found = scoreboard(scored, reference=None, draws=DRAWS)
    assert found["queries"] == {
        "all": 3, "both_kinds": 1, "unequal_labels": 2, "left_out": 2,
    }  # fmt: skip
    assert found["relevant_share"] == 0.5
    assert found["scorers"]["student"]["retention"] == {}


def test_scores_that_are_no_probabilities_have_no_loss() -> None:
    scored = some_pairs()
    scores = {"BM25": scored.scores["teacher"] * 9, "words": scored.scores["student"]}
    found = scoreboard(replace(scored, scores=scores, uncalibrated=["words"]), reference=None)
    assert {metric["key"] for metric in found["metrics"]} == set(METRICS) - {
        "log_loss",
        "ece",
        "accuracy",
    }


def test_soft_labels_are_relevant_from_a_half_on() -> None:
    scored = replace(some_pairs(), relevant_at=None)
    found = scoreboard(scored, reference="teacher", draws=DRAWS)
    assert found["relevant_at"] is None
    assert found["relevant_share"] == np.mean(scored.labels_B >= 0.5)


SCORES, GROUPS = np.array([0.2, 0.8, 0.5], np.float32), np.array([0, 0, 1])


@pytest.mark.parametrize(
    ("labels", "scores", "groups"),
    [
        (np.empty(0, np.float32), np.empty(0, np.float32), np.empty(0, np.int64)),
        (np.ones(1, np.float32), SCORES[:1], GROUPS[:1]),
        (np.ones(3, np.float32), SCORES, GROUPS),
        (np.zeros(3, np.float32), SCORES, GROUPS),
        (np.array([0, 1, 1], np.float32), np.full(3, np.nan, np.float32), GROUPS),
        (np.array([0, 1, 1], np.float32), np.array([np.inf, np.nan, 0.5], np.float32), GROUPS),
        (np.array([0, 1, 1], np.float32), np.full(3, 0.5, np.float32), GROUPS),
        (np.array([0, 1, 1], np.float32), SCORES, np.array([-5, 2**62, 9])),
    ],
)
def test_what_cannot_be_measured_is_none(
    labels: NDArray[np.float32], scores: NDArray[np.float32], groups: NDArray[np.int64]
) -> None:
    scored = ScoredPairs(
        labels, groups, 0.5, {"student": scores, "teacher": scores}, {"student": 0.5}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scoreboard(
            scored, reference="teacher", compared=[("student", "teacher")], draws=Draws(20)
        )
    json.dumps(found, allow_nan=False)
    if len(np.unique(labels)) < 2 or np.isnan(scores).any():
        assert "auc" not in [metric["key"] for metric in found["metrics"]]


def test_input_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"student has the shape \(2,\), the labels \(3,\)"):
        ScoredPairs(SCORES, GROUPS, 0.5, {"student": SCORES[:2]})
    with pytest.raises(ValueError, match="outside of"):
        ScoredPairs(SCORES * 2, GROUPS, 0.5, {})
    scored = ScoredPairs(SCORES, GROUPS, 0.5, {"student": SCORES})
    with pytest.raises(ValueError, match=r"\['house'\]; there are \['student'\]"):
        scoreboard(scored, reference="house")
