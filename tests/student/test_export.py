"""What a bundle's files say, and when it is not written."""

import numpy as np
import pytest

from raydistill.serving.native.layout import aligned
from raydistill.serving.scorer import Scorer
from raydistill.serving.text.cleaning import clean_text
from raydistill.student.export.golden_pairs import ODD_TEXTS, compare, explain_pairs
from raydistill.student.export.table_type import choose_table
from tests.helpers.bundles import make_model


def test_golden_rows_that_differ_name_the_pair() -> None:
    student = np.array([0.1, 0.5, 0.9], np.float32)
    pairs = ["sofa", 'pan 12"', "lamp"], ["Grey sofa", "Pan, 12 inch", "Lamp"]
    compare(student, student + np.float32(1e-6), pairs)
    for other in (0.75, np.nan):
        bundle = np.array([0.1, other, 0.9], np.float32)
        with pytest.raises(RuntimeError, match="on 1 of 3 golden pairs") as told:
            compare(student, bundle, pairs)
        assert "query 'pan 12\"' with title 'Pan, 12 inch': student 0.500000" in str(told.value)


def test_golden_pairs_show_each_step_to_the_score() -> None:
    settings, model = make_model(max_title_chars=60)
    titles = ["AT&amp;T Phone, 2 ounces!", *ODD_TEXTS]
    queries = ["att phone 2oz", *ODD_TEXTS]
    found = explain_pairs(settings, model, (queries, titles))
    first = found[0]
    assert first["title"] == "AT&amp;T Phone, 2 ounces!"
    assert first["clean_title"] == "AT&T Phone, 2 ounces!"
    assert first["words_title"] == ["at", "t", "phone", "2", "oz"]
    assert first["words_query"] == ["att", "phone", "2", "oz"]
    # 2n + 1 ids of 4 and of 5 words; 4 query words, and the 2 title words that no query has.
    assert [len(bag) for bag in first["bags"]] == [9 + 11, 4 + 2]
    assert first["dense"][0] == 0.75  # 3 of 4 query words stand in the title
    scores = Scorer(settings, aligned(model)).score_pairs(queries, titles)
    for entry, score, title in zip(found, scores, titles, strict=True):
        assert entry["clean_title"] == clean_text(title)[:60]
        assert entry["score"] == pytest.approx(float(score), rel=1e-6)
        assert 1 / (1 + np.exp(-entry["logit"])) == pytest.approx(entry["score"], abs=1e-6)


LABELS = np.array([1, 0, 1, 0], np.float32)
GROUPS = np.array([0, 0, 1, 1])
RIGHT, WRONG = [0.9, 0.1, 0.8, 0.2], [0.9, 0.1, 0.2, 0.8]


@pytest.mark.parametrize(
    ("scores", "wanted", "chosen"),
    [
        ({"int8": RIGHT, "float16": RIGHT}, "auto", "int8"),
        ({"int8": WRONG, "float16": RIGHT}, "auto", "float16"),
        ({"int8": WRONG, "float16": WRONG}, "auto", "float32"),
        ({"int8": WRONG}, "int8", "int8"),
        ({}, "float32", "float32"),
    ],
)
def test_the_smallest_table_that_ranks_as_well(
    scores: dict[str, list[float]], wanted: str, chosen: str
) -> None:
    found = choose_table(
        wanted,  # type: ignore[arg-type]
        score=lambda kind: (np.array({"float32": RIGHT, **scores}[kind], np.float32), LABELS),
        groups_B=GROUPS,
        relevant_at=0.5,
    )
    is_wrong = scores.get(chosen) == WRONG
    assert found.name == chosen and found.lost().auc == (0.25 if is_wrong else 0)
    assert found.threshold == pytest.approx(0.85 if is_wrong else 0.5)


def test_a_dev_split_of_one_class_says_nothing_for_a_small_table() -> None:
    ones = np.ones(3, np.float32)
    found = choose_table(
        "auto", score=lambda kind: (ones / 2, ones), groups_B=np.arange(3), relevant_at=0.5
    )
    assert found.name == "float32" and list(found.tried) == ["float32"]
