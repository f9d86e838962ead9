"""Small lists for charts, by hand."""

import json

import numpy as np
import pytest

from raydistill.evaluation.scoreboard.distributions import (
    charts,
    histogram,
    reliability,
    student_by_teacher,
)
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs

LABELS = np.array([0, 1, 1, 0], np.float32)
SCORES = np.array([0.1, 0.2, 0.9, 1.0], np.float32)


def test_reliability_has_a_bin_for_scores_that_are_near() -> None:
    found = reliability(SCORES, LABELS, num_bins=2)
    assert found[0] == {"score": pytest.approx(0.15), "label": 0.5, "num": 2}
    assert found[1] == {"score": pytest.approx(0.95), "label": 0.5, "num": 2}
    assert len(reliability(SCORES, LABELS, num_bins=10)) == 3  # 0.1, 0.2, and 0.9 with 1


def test_histograms_count_every_pair() -> None:
    found = histogram(SCORES, LABELS > 0)
    assert len(found["edges"]) == 21 and (found["edges"][0], found["edges"][-1]) == (0, 1)
    assert len(found["relevant"]) == len(found["other"]) == 20
    assert (sum(found["relevant"]), sum(found["other"])) == (2, 2)
    assert found["other"][-1] == 1
    wide = histogram(SCORES * 30, LABELS > 0)
    assert (wide["edges"][0], wide["edges"][-1]) == (3, 30)
    assert sum(wide["relevant"]) + sum(wide["other"]) == 4


def test_the_student_in_bins_of_the_teacher() -> None:
    teacher = np.repeat(np.array([0.01, 0.99, np.nan], np.float32), 11)
    student = np.tile(np.arange(11, dtype=np.float32) / 10, 3)
    found = student_by_teacher(student, teacher)
    assert [one["num"] for one in found] == [11, 11]
    assert found[0]["teacher"] == pytest.approx(0.01)
    assert found[0]["student"] == pytest.approx(0.5)
    assert (found[0]["low"], found[0]["high"]) == (pytest.approx(0.1), pytest.approx(0.9))
    assert student_by_teacher(student, np.full(33, np.nan, np.float32)) == []


def test_charts_of_scorers_of_every_kind() -> None:
    scores = {
        "student": SCORES,
        "teacher": np.array([0.1, np.nan, 0.8, 0.9], np.float32),
        "BM25": SCORES * 30,
        "constant": np.full(4, 7, np.float32),
        "nothing": np.full(4, np.nan, np.float32),
    }
    scored = ScoredPairs(LABELS, np.arange(4), 0.5, scores)
    found = charts(scored, teacher="teacher")
    json.dumps(found, allow_nan=False)
    assert set(found["reliability"]) == {"student", "teacher"}
    assert set(found["histograms"]) == {"student", "teacher", "BM25", "constant"}
    assert sum(one["num"] for one in found["student_by_teacher"]) == 3
    assert charts(scored, teacher=None)["student_by_teacher"] == []
