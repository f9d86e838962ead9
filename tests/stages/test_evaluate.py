import numpy as np
import pytest

from raydistill.stages.evaluate import leave_out_unscored, warn_if_behind


def test_a_pair_that_one_teacher_could_not_score_counts_for_no_scorer() -> None:
    nan = float("nan")
    scored = {
        "teacher a": {"dev": np.array([0.1, 0.2]), "test": np.array([0.1, nan, 0.3])},
        "student": {"dev": np.array([0.3, 0.4]), "test": np.array([0.4, 0.5, 0.6])},
    }
    labels = {"dev": np.array([0.0, 1.0]), "test": np.array([0.0, 1.0, 1.0])}
    assert leave_out_unscored(scored, labels) == {"dev": 0, "test": 1}
    assert labels["test"].tolist() == [0.0, 1.0]
    assert scored["student"]["test"].tolist() == [0.4, 0.6]
    assert scored["teacher a"]["test"].tolist() == [0.1, 0.3]
    assert scored["student"]["dev"].tolist() == [0.3, 0.4]


def test_a_student_behind_the_judged_only_one_is_named(caplog: pytest.LogCaptureFixture) -> None:
    warn_if_behind({"student": {"auc": 0.75}, "baseline on judged labels only": {"auc": 0.75}})
    assert not caplog.messages
    warn_if_behind({"student": {"auc": 0.74}, "baseline on judged labels only": {"auc": 0.75}})
    expected = "the baseline on judged labels only is better: AUC 0.7500, the student 0.7400"
    assert expected in caplog.text
