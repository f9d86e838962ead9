"""The cases of a report: which pairs are chosen, and that they are the same each time."""

import json

import numpy as np
import pyarrow as pa

from raydistill.evaluation.cases import NUM_CASES, CasePairs, find_cases, is_word_shown
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.scorer import Scorer
from tests.helpers.explained import linear_arrays, scorer_of

PLAIN = NgramSpec("bert2dnn", 12)


def scorer() -> Scorer:
    rows = {"sofa": [1.0, 0.0], "couch": [1.0, 0.1], "table": [0.0, 1.0]}
    return scorer_of(PLAIN, linear_arrays(PLAIN, rows=rows))


def pairs(
    student: list[float], teacher: list[float], *, labels: list[float], groups: list[int]
) -> CasePairs:
    titles = pa.array([f"couch table sofa {row}" for row in range(len(student))])
    return CasePairs(
        queries=pa.array([f"grey sofa {group}" for group in groups]),
        titles=titles,
        labels_B=np.array(labels, np.float32),
        groups_B=np.array(groups, np.int64),
        student_B=np.array(student, np.float32),
        teacher_B=np.array(teacher, np.float32),
    )


def chosen(cases: list[dict[str, object]]) -> list[int]:
    return [int(str(case["title"]).split()[-1]) for case in cases]


def test_the_pairs_are_chosen_by_hand() -> None:
    nan = float("nan")
    given = pairs(
        [0.9, 0.8, 0.1, 0.6, 0.3, 0.9],
        [0.1, 0.1, 0.9, 0.4, 0.4, nan],
        labels=[1, 1, 1, 1, 0, 1],
        groups=[0, 0, 1, 2, 3, 4],
    )
    found = find_cases(
        scorer(), given, relevant_at=0.5, student_threshold=0.5, teacher_threshold=0.35
    )
    # Of query 0 the larger difference alone; the pair without a teacher is left out.
    assert chosen(found["student_higher"]) == [0, 3]
    assert chosen(found["student_lower"]) == [2, 4]
    # Right where the teacher is wrong: rows 0 and 1 of one query, and row 4, which the teacher
    # calls relevant at 0.35.
    assert chosen(found["student_right"]) == [0, 4]
    case = found["student_higher"][0]
    assert (case["student"], case["teacher"], case["label"]) == (
        np.float32(0.9), np.float32(0.1), 1.0,
    )  # fmt: skip
    total = sum(one["value"] for one in case["drivers"]) + case["rest"]
    assert abs(total - (case["logit"] - case["baseline_logit"])) < 1e-6
    again = find_cases(
        scorer(), given, relevant_at=0.5, student_threshold=0.5, teacher_threshold=0.35
    )
    assert json.dumps(found, allow_nan=False) == json.dumps(again)


def test_without_human_labels_nobody_is_right_and_lists_are_short() -> None:
    num = 2 * NUM_CASES
    given = pairs([0.9] * num, [0.2] * num, labels=[0.2] * num, groups=list(range(num)))
    found = find_cases(
        scorer(), given, relevant_at=None, student_threshold=0.5, teacher_threshold=0.5
    )
    assert found["student_right"] == [] and found["student_lower"] == []
    assert chosen(found["student_higher"]) == list(range(NUM_CASES))  # ties in the order of rows


def test_the_neighbors_are_of_the_commonest_query_words() -> None:
    given = pairs([0.5] * 4, [0.5] * 4, labels=[0] * 4, groups=[0, 1, 2, 3])
    found = find_cases(
        scorer(), given, relevant_at=0.5, student_threshold=0.5, teacher_threshold=0.5
    )
    assert found["neighbors_of"] == "trained n-gram embeddings"
    (sofa,) = found["neighbors"]  # grey has no row
    assert (sofa["word"], sofa["count"]) == ("sofa", 4)
    assert [one["text"] for one in sofa["neighbors"]] == ["couch", "table"]


def test_an_empty_evaluation_has_no_cases() -> None:
    given = CasePairs(
        *(pa.array([], pa.string()) for _ in range(2)),
        *(np.empty(0, kind) for kind in (np.float32, np.int64, np.float32, np.float32)),
    )
    found = find_cases(
        scorer(), given, relevant_at=0.5, student_threshold=0.5, teacher_threshold=0.5
    )
    assert found["student_higher"] == found["neighbors"] == []


def test_words_that_name_no_product_are_not_shown() -> None:
    assert [is_word_shown(word) for word in ("sofa", "沙", "in", "for", "gal", "18v", "a b")] == [
        True, True, False, False, False, False, False,
    ]  # fmt: skip
