"""Labels in the forms that people write; expected values are written by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.config.data import JudgedConfig
from raydistill.data.grades import LabelRule, LabelTally, read_labels
from raydistill.data.input_checks import check_labels
from raydistill.data.manifest import find_files
from raydistill.data.pairs import clean
from raydistill.errors import UserError

PLAIN = LabelRule()
GRADES = LabelRule(grades=(("Exact", 1.0), ("Substitute", 0.5), ("0", 0.0), ("3", 0.9)))


def labels(values: list[object], rule: LabelRule = PLAIN) -> list[float | None]:
    found, problems = read_labels(pa.array(values), rule)
    assert [v is None for v in found.to_pylist()] == [p is not None for p in problems.to_pylist()]
    return found.to_pylist()


def test_truth_values_are_0_and_1() -> None:
    assert labels([True, False, None]) == [1.0, 0.0, None]
    assert labels(["true", "False", "TRUE", " yes ", "no", "t", "f"]) == [1, 0, 1, 1, 0, 1, 0]
    assert labels([b"True", b"0.5", b"maybe"]) == [1.0, 0.5, None]


def test_a_scale_is_linear_and_may_fall() -> None:
    assert labels([0, 3, 1.5, 4, -1], LabelRule(scale=(0, 3))) == [0.0, 1.0, 0.5, None, None]
    assert labels(["1", "5", "3"], LabelRule(scale=(5, 1))) == [1.0, 0.0, 0.5]
    assert labels(["0", "100", "85"], LabelRule(scale=(0, 100))) == pytest.approx([0, 1, 0.85])


def test_rounding_is_no_reason() -> None:
    assert labels([1.0000001, -1e-9, 1.001]) == [1.0, 0.0, None]
    assert problem([1.0000001, 0.0]) == ""


def test_grades_are_words_or_numbers() -> None:
    given = ["exact", " Substitute ", "3", "3.0", "0", "2", "Other", None]
    assert labels(given, GRADES) == pytest.approx([1, 0.5, 0.9, 0.9, 0, None, None, None])
    assert labels([3, 0, 2], GRADES) == pytest.approx([0.9, 0, None])
    assert labels([3.0, float("nan")], GRADES) == pytest.approx([0.9, None])


def test_letters_and_numbers_of_a_categorical_column_are_grades() -> None:
    rule = LabelRule(grades=(("E", 1.0), ("S", 0.1), ("4", 0.5)))
    assert labels(["E", "s", "4", " e "], rule) == pytest.approx([1, 0.1, 0.5, 1])
    categories = pa.array(["S", "E", "S", None]).dictionary_encode()
    assert read_labels(categories, rule)[0].to_pylist() == pytest.approx([0.1, 1, 0.1, None])


def reasons(values: list[str], grades: dict[str, float]) -> list[str]:
    return read_labels(pa.array(values), LabelRule(grades=tuple(grades.items())))[1].to_pylist()


def test_a_word_that_is_no_grade_is_told_the_nearest_grades() -> None:
    grades = {"Exact": 1.0, "Partial": 0.5, "Partially": 0.4, "None": 0.0}
    assert reasons(["exakt", "Partialy", "xyz", "7"], grades) == [
        "label is not among the grades; the nearest: Exact",
        "label is not among the grades; the nearest: Partial, Partially",
        "label is not among the grades: Exact, Partial, Partially, None",
        "label is not among the grades: Exact, Partial, Partially, None",
    ]


def test_many_words_have_few_reasons() -> None:
    """Four grades: four nearest ones, six pairs of them, and no near one."""
    words = [f"{a}{b}{c}" for a in "esci" for b in "xactly" for c in "substitute"]
    grades = {"exact": 1.0, "substitute": 0.1, "complement": 0.01, "irrelevant": 0.0}
    assert len(set(reasons(words, grades))) <= 4 + 6 + 1
    many = {f"grade {n}": n / 100 for n in range(100)}
    (reason,) = reasons(["zzz"], many)
    assert len(reason) < 120 and reason.endswith(", ...")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("85%", "percentage"), ("8,5 %", "percentage"), ("0,5", "decimal comma"), ("x", "number"),
        ("", "null"), ("nan", "not a number"), ("inf", "outside 0..1"), ("1e400", "outside 0..1"),
        ("-0.1", "outside 0..1"),
    ],
)  # fmt: skip
def test_each_problem_is_named(value: str, words: str) -> None:
    found, problems = read_labels(pa.array([value, "1"]), PLAIN)
    assert found.to_pylist() == [None, 1.0]
    assert words in problems[0].as_py() and problems[1].as_py() is None


def problem(values: list[object], rule: LabelRule = PLAIN, most: float = 0.05) -> str:
    tally = LabelTally(rule)
    for value in values:  # in any number of pieces
        tally.add(pa.array([value]))
    return tally.problem(name="judged", max_bad_fraction=most) or ""


def test_labels_outside_of_their_range_are_named_with_the_way_out() -> None:
    assert problem([0, 1, 3, 2, 0]) == (
        "judged has labels from 0 to 3, 2 of the 5 outside 0..1: give the ends of their scale, "
        'judged.scale = [0, 3], or a value in 0..1 for each grade, [judged.grades] "3" = 1.0'
    )
    assert "1 of the 30 outside" in problem([0.0] * 29 + [1.5])  # one is one too many
    assert "from 0 to 4, 1 of the 2 outside 0..3" in problem([0, 4], LabelRule(scale=(0, 3)))
    assert problem([0, 3, 2], LabelRule(scale=(0, 3))) == ""


def test_words_are_named_with_their_counts() -> None:
    found = problem(["Exact", "Exact", "Substitute"])
    assert "3 labels of 3 that are no number: 'Exact' (2), 'Substitute' (1)" in found
    assert '[judged.grades], as "Exact" = 1.0' in found
    assert "and no grade: 'Other' (1)" in problem(["Exact", "Other"], GRADES)
    assert "'85%' (1), '10%' (1); percentages are not converted" in problem(["85%", "10%"])
    assert "decimal commas are not converted" in problem(["0,5", "1,0"])


def test_a_few_words_and_missing_labels_stop_nothing() -> None:
    assert problem(["1"] * 99 + ["?"]) == ""
    assert "1 labels of 100" in problem(["1"] * 99 + ["?"], most=0.0)
    assert problem(["1", "", None, "N/A", "NaN"]) == ""


@pytest.mark.slow
def test_of_many_words_some_are_shown() -> None:
    found = problem([f"word {n}" for n in range(3_000)])
    assert "3,000 labels of 3,000" in found and found.count("'word ") == 8


def judged(tmp_path: Path, **fields: object) -> JudgedConfig:
    return JudgedConfig.model_validate({"input": str(tmp_path), **fields})


def test_files_are_looked_at_together_and_each_by_its_own_rule(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query,title,label\na,b,0\na,c,1\n")
    pq.write_table(pa.table({"query": ["a"], "title": ["d"], "label": [2]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"labels from 0 to 2, 1 of the 3 outside"):
        check_labels(find_files(judged(tmp_path)), judged(tmp_path))
    scaled = judged(tmp_path, scale=[0, 2])
    check_labels(find_files(scaled), scaled)
    paths = [{"path": f"{tmp_path}/a.csv"}, {"path": f"{tmp_path}/b.parquet", "scale": [1, 2]}]
    apart = JudgedConfig.model_validate({"input": paths})
    files = find_files(apart)
    check_labels(files, apart)
    assert [file.label_rule.scale for file in files] == [None, (1.0, 2.0)]


def test_labels_of_raw_rows(tmp_path: Path) -> None:
    rules = judged(tmp_path)
    table = pa.table({"query": ["a"] * 3, "title": ["b"] * 3, "label": [0, 3, 4]})
    names = {name: name for name in table.column_names}
    found = clean(
        table, rows=np.arange(3), columns=names, rules=rules, source="f",
        labels=LabelRule(scale=(0, 3)), lines=np.arange(3) + 2,
    )  # fmt: skip
    assert found.pairs["label"].to_pylist() == [0.0, 1.0]
    (reject,) = found.rejects.to_pylist()
    assert (reject["reason"], reject["row"], reject["line"]) == ("label is outside 0..3", 2, 4)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scale": [1, 1]}, "the scale 1 to 1 is one label"),
        ({"scale": [0, 3], "grades": {"a": 1}}, "scale and grades; give one"),
        ({"grades": {"a": 2}}, "less than or equal to 1"),
        ({"csv": {"quote": "''"}}, "one ASCII character"),
        ({"csv": {"delimiter": ""}}, "one ASCII character"),
        ({"csv": {"delimiter": ";", "quote": ";"}}, "the quote or the escape too"),
        ({"csv": {"encoding": "latin-99"}}, "unknown encoding"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        judged(tmp_path, **fields)


def test_settings_of_an_input_lie_above_those_of_its_section(tmp_path: Path) -> None:
    given = {"path": str(tmp_path), "csv": {"delimiter": "\\t"}, "grades": {"yes!": 1.0}}
    rules = JudgedConfig.model_validate(
        {"input": given, "csv": {"quote": "", "delimiter": ";"}, "scale": [0, 3]}
    )
    assert rules.csv_options(rules.input[0]) == {"quote": "", "delimiter": "\t"}
    assert rules.label_rule(rules.input[0]) == {"grades": {"yes!": 1.0}}
    plain = JudgedConfig.model_validate({"input": str(tmp_path)})
    assert "csv" not in plain.fingerprint_fields() and "scale" not in plain.fingerprint_fields()
