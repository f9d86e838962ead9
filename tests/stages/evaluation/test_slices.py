import numpy as np
import pyarrow as pa
import pytest

from raydistill.stages.evaluation.slices import (
    OTHER_VALUES,
    Scored,
    Slice,
    column_slice,
    popularity_slice,
    score_slices,
    seen_slice,
    text_slices,
    thirds,
)

NAN = float("nan")


def rows(found: Slice) -> dict[str, list[int]]:
    """The pairs in each cell."""
    return {name: np.flatnonzero(mask).tolist() for name, mask in found.cells.items()}


def test_queries_are_cut_by_length_numbers_and_script() -> None:
    queries = ["sofa", "red sofa", "sofa", "диван 3 м", "a b c d e f", "!"]
    table = pa.table({"query": queries, "title": ["x"] * 6})
    length, numbers, script = text_slices(table, has_query=True)
    assert rows(length) == {
        "1 word": [0, 2, 5], "2 words": [1], "3 words": [3], "5 words or more": [4],
    }  # fmt: skip
    assert rows(numbers) == {"with a number": [3], "without": [0, 1, 2, 4, 5]}
    assert rows(script) == {"Latin": [0, 1, 2, 4], "Cyrillic": [3], "no letter": [5]}
    assert {length.name, numbers.name, script.name} == {
        "query length in words", "numbers in the query", "script of the query",
    }  # fmt: skip


def test_single_texts_are_cut_by_thirds_of_their_length() -> None:
    table = pa.table({"query": [""] * 3, "title": ["a", "a b 1", "a b c d e"]})
    length, numbers, _ = text_slices(table, has_query=False)
    assert [*rows(length).values()] == [[0], [1], [2]] and length.name == "text length in words"
    assert rows(numbers)["with a number"] == [1]


def test_thirds_have_equally_many_pairs_and_say_their_limits() -> None:
    found = thirds(np.array([3.0, 1.0, NAN, 2.0, 5.0, 4.0, 6.0]))
    cells = {name: np.flatnonzero(mask).tolist() for name, mask in found.items()}
    assert cells == {
        "lowest third (up to 2)": [1, 3],
        "middle third (2 to 4)": [0, 5],
        "highest third (above 4)": [4, 6],
    }
    assert [*thirds(np.array([1.0, 1.0]))] == ["lowest third (up to 1)"]
    assert thirds(np.array([NAN])) == {}


def test_head_torso_and_tail_have_a_third_of_the_weight_each() -> None:
    # Query 0 has 6 of 18, query 1 has 4 + 2, queries 2 and 3 have 3 each.
    weights, groups = np.array([6, 4, 2, 3, 3.0]), np.array([0, 1, 1, 2, 3])
    found = popularity_slice(weights, groups, source="the column asked")
    assert rows(found) == {"head": [0, 1, 2], "tail": [3, 4]}  # 6 and 6 are equally heavy
    weights = np.array([7, 4, 2, 3, 3.0])
    found = popularity_slice(weights, groups, source="the column asked")
    assert rows(found) == {"head": [0], "torso": [1, 2], "tail": [3, 4]}
    assert found.note is not None and "the column asked" in found.note


def test_equal_weights_make_no_head_and_that_is_said() -> None:
    found = popularity_slice(np.ones(3), np.array([0, 0, 1]), source="the weight")
    assert rows(found) == {"all": [0, 1, 2]}
    assert found.note is not None and "evaluate.weight names a column" in found.note


def test_a_query_of_unknown_weight_is_in_no_cell() -> None:
    found = popularity_slice(np.array([9, NAN, 1.0]), np.array([0, 1, 2]), source="w")
    assert rows(found) == {"head": [0], "tail": [2]}


def test_queries_are_unseen_where_they_are_held_out() -> None:
    found = seen_slice(np.zeros(2, bool), what="query")
    assert rows(found) == {"unseen": [0, 1]} and found.note is not None
    assert rows(seen_slice(np.array([True, False]), what="query")) == {"unseen": [1], "seen": [0]}


def test_pairs_are_cut_by_what_the_teachers_say() -> None:
    ensemble = np.array([0.5, 0.9, 0.3], np.float32)
    teachers = np.array([[0.5, 0.5], [0.9, NAN], [0.1, 0.5]], np.float32)
    sure, apart = score_slices(Scored(ensemble, teachers))
    assert [*rows(sure).values()] == [[0], [2], [1]]
    assert [*rows(apart).values()] == [[0], [2]]  # of the second pair one teacher has a score
    (only,) = score_slices(Scored(ensemble, teachers[:, :1]))
    assert only.name == "confidence of the teachers"


def test_a_column_has_a_cell_for_each_value_and_one_for_the_rare_ones() -> None:
    assert rows(column_slice("source", ["b", "a", None, "b", ""])) == {"b": [0, 3], "a": [1]}
    many = [f"shop {at}" for at in range(25) for _ in range(25 - at)]
    cells = column_slice("source", many).cells
    assert len(cells) == 21 and [*cells][:2] == ["shop 0", "shop 1"]
    assert cells[OTHER_VALUES].sum() == 5 + 4 + 3 + 2 + 1


def test_numbers_of_many_values_are_cut_in_thirds() -> None:
    found = column_slice("price", [*map(str, range(30)), None])
    assert [mask.sum() for mask in found.cells.values()] == [10, 10, 10] and found.note is not None
    assert [*column_slice("grade", ["1", "2", "1"]).cells] == ["1", "2"]


@pytest.mark.parametrize("values", [[], [None, ""]])
def test_a_column_without_values_has_no_cell(values: list[str | None]) -> None:
    assert column_slice("source", values).cells == {}
