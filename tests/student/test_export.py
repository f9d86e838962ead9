"""What a bundle's files say, and when it is not written."""

import numpy as np
import pytest

from raydistill.config.student import ExportConfig
from raydistill.serving.native.layout import aligned
from raydistill.serving.scorer import Scorer
from raydistill.serving.text.cleaning import clean_text
from raydistill.student.export.golden_pairs import ODD_TEXTS, compare, explain_pairs
from raydistill.student.export.stored_form import ChosenForm, Form, choose_form, exact_form
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


SMALL = Form("int8", 16, "int8")


def chosen(
    scores: dict[Form, list[float]], labels: np.ndarray = LABELS, **wanted: object
) -> ChosenForm:
    """The form of a student with 64 columns; a form that is not in `scores` ranks rightly."""
    return choose_form(
        ExportConfig.model_validate(wanted),
        columns=64,
        score=lambda form: (np.array(scores.get(form, RIGHT), np.float32), labels),
        groups_B=GROUPS,
        relevant_at=0.5,
    )


@pytest.mark.parametrize(
    ("wrong", "wanted", "form"),
    [
        ([], {}, SMALL),
        ([("int8", 64, "float32")], {}, Form("float16", 16, "int8")),
        ([("int8", 16, "float32")], {}, Form("int8", 32, "int8")),
        ([("int8", 16, "int8")], {}, Form("int8", 16, "float32")),
        ([("int8", 64, "float32"), ("float16", 64, "float32")], {}, Form("float32", 16, "int8")),
        ([], {"table": "float32"}, exact_form(64)),
        ([], {"table": "float32", "columns": 8}, Form("float32", 8, "float32")),
        ([], {"columns": 8, "layers": "float32"}, Form("int8", 8, "float32")),
        ([("int8", 64, "float32")], {"table": "int8"}, SMALL),
    ],
)
def test_the_smallest_form_that_ranks_as_well(
    wrong: list[tuple[str, int, str]], wanted: dict[str, object], form: Form
) -> None:
    found = chosen({Form(*one): WRONG for one in wrong}, **wanted)
    assert found.form == form and found.lost().ranking == 0
    assert next(iter(found.tried)) == exact_form(64)
    assert found.threshold == pytest.approx(0.5)


def test_a_form_that_was_asked_for_is_taken_and_says_what_it_costs() -> None:
    found = chosen({SMALL: WRONG}, table="int8", columns=16, layers="int8")
    assert found.form == SMALL and found.lost().ranking == 0.25
    assert found.threshold == pytest.approx(0.85)
    assert list(found.tried) == [exact_form(64), SMALL]


def test_a_dev_split_of_one_class_says_nothing_for_a_small_form() -> None:
    found = choose_form(
        ExportConfig(),
        columns=64,
        score=lambda _: (np.full(3, 0.5, np.float32), np.ones(3, np.float32)),
        groups_B=np.arange(3),
        relevant_at=0.5,
    )
    assert found.form == exact_form(64) and list(found.tried) == [exact_form(64)]
