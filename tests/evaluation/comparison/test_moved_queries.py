"""Which queries moved, by hand-made rankings of three queries."""

import numpy as np
import pyarrow as pa
import pytest

from raydistill.evaluation.comparison.moved_queries import (
    QueryValues,
    TwoScores,
    count_moved,
    moved,
)

# Query 5: B puts the relevant title first. Query 7: B puts it last. Query 9: nothing changes.
SCORES = TwoScores(
    queries=pa.array(["oak", "oak", "tap", "tap", "bed", "bed"]),
    titles=pa.array(["oak table", "glue", "tap", "hose", "bed", "nail"]),
    labels_B=np.array([1, 0, 1, 0, 1, 0], np.float32),
    groups_B=np.array([5, 5, 7, 7, 9, 9]),
    before_B=np.array([0.2, 0.9, 0.9, 0.2, 0.9, 0.2], np.float32),
    after_B=np.array([0.9, 0.2, 0.2, 0.9, 0.8, 0.3], np.float32),
)
SECOND = 1 / np.log2(3)  # nDCG of two titles, the relevant one second
VALUES = QueryValues(
    np.array([5, 7, 9]), np.array([SECOND, 1, 1]), np.array([1, SECOND, 1 + 1e-12])
)


def test_queries_are_counted_by_direction() -> None:
    assert count_moved(VALUES) == {"better": 1, "worse": 1, "equal": 1, "left_out": 0}


def test_a_query_that_the_metric_leaves_out_has_not_moved() -> None:
    values = QueryValues(np.array([5, 7]), np.array([np.nan, 1]), np.array([np.nan, 1]))
    assert count_moved(values) == {"better": 0, "worse": 0, "equal": 1, "left_out": 1}
    assert moved(SCORES, values) == {"better": [], "worse": []}


def test_moved_queries_have_their_titles_with_both_ranks() -> None:
    found = moved(SCORES, VALUES)
    (better,), (worse,) = found["better"], found["worse"]
    assert (better["query"], worse["query"]) == ("oak", "tap")
    assert better["change"] == pytest.approx(1 - SECOND) == -worse["change"]
    assert better["titles"] == [
        {"title": "oak table", "label": 1.0, "before": 2, "after": 1},
        {"title": "glue", "label": 0.0, "before": 1, "after": 2},
    ]


def test_the_largest_changes_come_first_and_no_more_than_asked() -> None:
    num = 50
    change = np.linspace(0.01, 0.5, num)
    values = QueryValues(np.arange(num), np.zeros(num), change)
    texts = pa.array([f"q{n}" for n in range(num)])
    ones = np.ones(num, np.float32)
    found = moved(TwoScores(texts, texts, ones, np.arange(num), ones, ones), values, most=3)
    assert [case["query"] for case in found["better"]] == ["q49", "q48", "q47"]
    assert found["worse"] == []
