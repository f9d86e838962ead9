"""Bounds of figures: what falls short, and names that are refused."""

from typing import Any

import pytest

from raydistill.errors import UserError
from raydistill.evaluation.comparison.bounds import (
    OF_COMPARISON,
    OF_REPORT,
    STUDENT,
    figures_of_comparison,
    figures_of_report,
    read_bounds,
    shortfalls,
)


def figure(value: float | None) -> dict[str, float | None] | None:
    return None if value is None else {"value": value, "low": value - 0.01, "high": value + 0.01}


REPORT: dict[str, Any] = {
    "teacher": "teacher a",
    "scorers": {
        "teacher a": {"metrics": {"auc": figure(0.8), "ndcg_10": figure(None)}},
        "student": {
            "metrics": {"auc": figure(0.75), "log_loss": figure(0.5), "ndcg_10": figure(None)},
            "retention": {"auc": figure(0.9375), "auc_above_chance": figure(0.8333)},
        },
    },
}
COMPARISON: dict[str, Any] = {
    "scorers": {"A": {"metrics": {"auc": figure(0.8)}}, "B": {"metrics": {"auc": figure(0.79)}}},
    "difference": {"metrics": {"auc": figure(-0.01)}},
}


def short(*under: str, over: tuple[str, ...] = ()) -> list[str]:
    bounds = read_bounds(under, over, scopes=OF_REPORT, default=STUDENT)
    return shortfalls(figures_of_report(REPORT), bounds)


def test_a_figure_at_its_bound_keeps_it() -> None:
    assert short("auc=0.75", "student.auc=0.75", "retention.auc=0.93", "teacher.auc=0.8") == []
    assert short(over=("log_loss=0.5",)) == []


def test_what_falls_short_is_named_with_value_interval_and_bound() -> None:
    assert short("auc=0.76", "retention.auc=0.9", "retention.auc_above_chance=0.9") == [
        "student.auc = 0.7500 (95 % interval 0.7400 to 0.7600): the bound is at least 0.76",
        "retention.auc_above_chance = 0.8333 (95 % interval 0.8233 to 0.8433): "
        "the bound is at least 0.9",
    ]
    assert short(over=("log_loss=0.4",)) == [
        "student.log_loss = 0.5000 (95 % interval 0.4900 to 0.5100): the bound is at most 0.4"
    ]


def test_a_figure_without_a_value_falls_short() -> None:
    assert short("ndcg_10=0.1") == ["student.ndcg_10 has no value: the bound is at least 0.1"]


@pytest.mark.parametrize(
    ("under", "over", "words"),
    [
        ("auk=0.7", None, "did you mean student.auc?"),
        ("ensemble.auc=0.7", None, "pairwise, auc_above_chance"),
        ("auc", None, "give NAME=NUMBER"),
        ("auc=high", None, "give NAME=NUMBER"),
        ("auc=nan", None, "give NAME=NUMBER"),
        ("auc=97%", None, "give NAME=NUMBER"),
        ("retention.auc=97", None, "not percent; give 0.97"),
        ("log_loss=0.6", None, "less is better; give --fail-over log_loss=0.6"),
        (None, "auc=0.9", "more is better; give --fail-under auc=0.9"),
        (None, "retention.log_loss=0.9", "give --fail-under retention.log_loss=0.9"),
        ("retention.ece=0.9", None, "no figure 'retention.ece'"),
    ],
)
def test_a_wrong_bound_is_refused(under: str | None, over: str | None, words: str) -> None:
    given = ([under] if under else []), ([over] if over else [])
    with pytest.raises(UserError) as raised:
        read_bounds(*given, scopes=OF_REPORT, default=STUDENT)
    assert words in str(raised.value)


def test_a_metric_that_these_pairs_do_not_have_falls_short() -> None:
    assert short("mrr_10=0.5") == ["student.mrr_10 has no value: the bound is at least 0.5"]


def test_retention_without_a_teacher_is_named() -> None:
    alone = {"scorers": {"student": {"metrics": {"auc": {"value": 0.9}}}}, "teacher": None}
    bounds = read_bounds(["retention.auc=0.9"], [], scopes=OF_REPORT, default=STUDENT)
    with pytest.raises(UserError, match=r"no figure 'retention.auc'.* there are student.KEY with"):
        shortfalls(figures_of_report(alone), bounds)


def test_a_comparison_has_bounds_of_its_difference() -> None:
    bounds = read_bounds(["difference.auc=-0.002", "B.auc=0.7"], [], scopes=OF_COMPARISON)
    (line,) = shortfalls(figures_of_comparison(COMPARISON), bounds)
    assert line.startswith("difference.auc = -0.0100 (95 % interval -0.0200 to 0.0000)")
    with pytest.raises(UserError, match=r"no figure 'auc'.* difference.KEY, A.KEY, B.KEY with auc"):
        read_bounds(["auc=0.7"], [], scopes=OF_COMPARISON)
