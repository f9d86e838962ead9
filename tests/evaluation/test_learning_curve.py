import numpy as np
import pytest

from raydistill.evaluation.learning_curve import (
    curve_markdown,
    curve_rows,
    curve_svg,
    in_share,
    plan_subset,
)
from tests.helpers.curve import FOUND


def test_a_share_holds_every_smaller_one() -> None:
    # Ids as fractions of 2^64: 0, 1/4, 1/2, 3/4; the last two are negative as signed integers.
    ids = np.array([0, 1 << 62, 1 << 63, 3 << 62], np.uint64).view(np.int64)
    assert in_share(ids, 0.25).tolist() == [True, False, False, False]
    assert in_share(ids, 0.5).tolist() == [True, True, False, False]
    assert in_share(ids, 0.75).tolist() == [True, True, True, False]
    assert in_share(np.array([-1], np.int64), 1.0).tolist() == [True]


def test_a_subset_has_shards_of_the_size_of_the_whole() -> None:
    names = ["d", "b", "a", "c", "e"]
    assert plan_subset(names, 0.5) == [["a", "b"], ["c", "d"], ["e"]]
    assert plan_subset(names, 0.01) == [["a", "b", "c", "d", "e"]]


def test_the_table_by_hand() -> None:
    _, tenth, whole, teacher, overlap = curve_rows(FOUND)
    assert tenth[:3] == ("match, 10 %", "100", "0.6600 ± 0.0141")
    assert tenth[4:] == ("82.5%", "53.3%", "90.0%")
    assert whole[:3] == ("match, 100 %", "1,000", "0.7700 ± 0.0141")
    assert teacher == ("teacher a", "", "0.8000", "0.7500", "", "", "")
    assert overlap == ("no model", "", "0.6200", "0.7000", "77.5%", "40.0%", "90.0%")
    text = curve_markdown(FOUND, plot="curve.svg")
    assert "](curve.svg)" in text and "| match, 10 % | 100 |" in text
    assert "50 judged pairs of 10 queries" in text and "Seeds: 0, 1; mean" in text


@pytest.mark.slow
@pytest.mark.parametrize("num_points", [1, 4])
def test_the_plot_has_the_same_bytes_again(num_points: int) -> None:
    found = {**FOUND, "points": FOUND["points"][:num_points]}  # type: ignore[index]
    plot = curve_svg(found)
    assert plot.startswith(b"<?xml") and b"labeled pairs" in plot and b"no model" in plot
    assert curve_svg(found) == plot


def test_a_curve_without_scores_of_the_teacher_shows_the_students_alone() -> None:
    points = [{**one, "retention": {}} for one in FOUND["points"]]  # type: ignore[union-attr, dict-item]
    others = {"no model": {"auc": 0.62, "accuracy": None}}
    found = {**FOUND, "points": points, "others": others}
    _, tenth, _, overlap = curve_rows(found)
    assert tenth[2] == "0.6600 ± 0.0141" and tenth[4:] == ("", "", "")
    assert overlap == ("no model", "", "0.6200", "", "", "", "")
    assert "teacher a lacks scores of relevant or of other" in curve_markdown(found, plot="c.svg")
