"""What drove a score: by hand for small students, and complete for every form of a bundle."""

from typing import Any

import numpy as np
import pytest

from raydistill.serving.explanation.attribution import (
    FEATURE,
    UNKNOWN,
    UNTRAINED,
    Driver,
    Explainer,
    Explanation,
)
from raydistill.serving.explanation.feature_names import FEATURES, SHOWN
from raydistill.serving.explanation.ngram_texts import QUERY, TITLE
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.match_features import DENSE_NAMES
from raydistill.student.export.compact import with_columns, with_factors
from raydistill.student.export.golden_pairs import ODD_TEXTS
from tests.helpers.explained import linear_arrays, random_arrays, row_of, scorer_of

PLAIN = NgramSpec("bert2dnn", 12)
MATCH = NgramSpec("match", 12, units=True)


def driver(found: Explanation, text: str, *, kind: str = TITLE) -> Driver:
    """The driver with a kind and a text."""
    (one,) = (one for one in found.drivers if (one.kind, one.text) == (kind, text))
    return one


def test_a_single_text_by_hand() -> None:
    # Four words have nine n-grams: each row counts a third.
    arrays = linear_arrays(PLAIN, rows={"ipad": [3], "ipad case": [-6]}, bias=0.5)
    found = Explainer(scorer_of(PLAIN, arrays)).explain("", "iPad case for kids")
    assert [(one.text, one.value) for one in found.drivers[:2]] == [
        ("ipad case", -2.0), ("ipad", 1.0),
    ]  # fmt: skip
    assert {one.value for one in found.drivers[2:]} == {0.0} and len(found.drivers) == 9
    assert {"[start] ipad", "kids [end]"} <= {one.text for one in found.drivers}
    assert (found.logit, found.baseline_logit) == (-0.5, 0.5)
    assert np.isclose(found.score, 1 / (1 + np.exp(0.5)))
    assert found.query_words == [] and found.title_words == ["ipad", "case", "for", "kids"]


def test_both_sides_of_a_pair_by_hand() -> None:
    # Two words and five have 5 + 11 n-grams: each row counts a quarter; `red` stands twice.
    arrays = linear_arrays(PLAIN, rows={"ipad": [4], "red": [2]})
    found = Explainer(scorer_of(PLAIN, arrays)).explain("ipad case", "red ipad case in red")
    assert driver(found, "ipad", kind=QUERY).value == driver(found, "ipad").value == 1.0
    assert driver(found, "red").value == 1.0 and found.logit == 3.0


def test_a_match_feature_by_hand() -> None:
    # All query words are in the title: (1 - 0.5) / 0.25 = 2 deviations above the mean.
    weights = {"query_found_mean": 2.0, "query_found_last": -0.5}
    arrays = linear_arrays(MATCH, rows={"none": [1]}, weights=weights)
    found = Explainer(scorer_of(MATCH, arrays)).explain("ipad case", "case for ipad")
    first = found.drivers[0]
    assert (first.kind, first.name, first.value) == (FEATURE, "query_found_mean", 4.0)
    assert (first.found, first.mean) == (1.0, 0.5)
    family = found.in_families()[0]
    assert (family.text, family.value) == ("query words in the title", 3.0)
    assert (family.name, family.found, family.mean) == ("query_found_mean", 1.0, 0.5)
    assert np.isclose(sum(one.value for one in found.in_families()), 3.0)


def test_tagged_words_say_on_which_side_they_are() -> None:
    arrays = random_arrays(MATCH, dim=2, hidden=())
    found = Explainer(scorer_of(MATCH, arrays)).explain("ipad 10 inch", "10in tablet")
    texts = {(one.kind, one.text) for one in found.drivers}
    assert (QUERY, "ipad (not in the title)") in texts and (
        QUERY,
        "10 (also in the title)",
    ) in texts
    assert (TITLE, "tablet (not in the query)") in texts
    assert found.query_words == ["ipad", "10", "in"]


FORMS: dict[str, tuple[NgramSpec, dict[str, Any]]] = {
    "match": (MATCH, {}),
    "match, float16": (MATCH, {"table": "float16"}),
    "match, int8": (MATCH, {"table": "int8", "layers": "int8"}),
    "match, word vectors": (NgramSpec("match", 12, word_dim=3), {"vectors": "int8"}),
    "match, characters": (NgramSpec("match", 12, char_ngrams=3), {"layers": "int8"}),
    "bert2dnn": (PLAIN, {}),
    "bert2dnn, int8": (PLAIN, {"table": "int8", "layers": "int8"}),
    "bert2dnn, characters": (NgramSpec("bert2dnn", 12, char_ngrams=4), {"table": "float16"}),
    "bert2dnn, vocabulary": (NgramSpec("bert2dnn", 12, vocabulary_rows=900), {"table": "int8"}),
}
PAIRS = [
    ("iPad case", "Case for the iPad, 10 inch"),
    *zip(ODD_TEXTS[1:16], ODD_TEXTS, strict=False),
]


@pytest.mark.parametrize("name", FORMS)
def test_the_drivers_add_up_in_every_form(name: str) -> None:
    spec, form = FORMS[name]
    scorer = scorer_of(spec, random_arrays(spec, dim=8, hidden=(32, 16)), **form)
    explainer = Explainer(scorer)
    for query, title in PAIRS:
        found = explainer.explain(query, title)
        total = sum(one.value for one in found.drivers)
        assert abs(total - (found.explained_logit - found.baseline_logit)) < 1e-6
        assert abs(1 / (1 + np.exp(-found.logit)) - found.score) < 1e-5
        if "layers" in form:
            assert abs(found.explained_logit - found.logit) < 0.3
        else:
            assert found.explained_logit == found.logit


def test_fewer_columns_and_untrained_rows_are_explained_as_they_are_scored() -> None:
    spec = NgramSpec("match", 12)
    arrays: dict[str, Any] = random_arrays(spec, dim=8, hidden=(16,))
    x_BX = np.random.default_rng(1).normal(size=(50, 2 * 8 + spec.num_dense)).astype(np.float32)
    arrays, x_BX = with_columns(arrays, x_BX, num_bags=2, columns=3)
    used = np.ones(spec.num_rows, bool)
    used[row_of("ipad", hash_bits=12)] = False
    arrays = {**with_factors(arrays, x_BX), "used": used}
    scorer = scorer_of(spec, arrays, table="int8", layers="int8")
    found = Explainer(scorer).explain("ipad case", "tablet case")
    assert abs(1 / (1 + np.exp(-found.logit)) - found.score) < 1e-5
    one = driver(found, "ipad", kind=QUERY)
    assert (one.value, one.note) == (0.0, UNTRAINED)
    assert driver(found, "tablet").note == "" and driver(found, "tablet").value != 0


def test_n_grams_of_one_row_are_said() -> None:
    spec = NgramSpec("bert2dnn", 1)  # two rows
    found = Explainer(scorer_of(spec, random_arrays(spec, dim=2, hidden=()))).explain("", "a b")
    notes = [one.note for one in found.drivers]
    assert any(note.startswith("has the row of ") for note in notes)
    assert all(one.text not in one.note.removeprefix("has the row of ").split(", ")
               for one in found.drivers)  # fmt: skip


def test_common_n_grams_of_the_same_row_are_said() -> None:
    spec = NgramSpec("match", 2)  # four rows
    arrays = random_arrays(spec, dim=2, hidden=())
    common = ["sofa", "grey sofa", "couch", "a", "grey"]
    found = Explainer(scorer_of(spec, arrays), common=common).explain("sofa", "b c")
    row = row_of("sofa", hash_bits=2)
    same = [text for text in common[1:] if row_of(text, hash_bits=2) == row]
    note = driver(found, "sofa", kind=QUERY).note
    assert same and all(text in note for text in same) and "of sofa" not in note


def test_an_n_gram_without_a_place_in_the_vocabulary_is_said() -> None:
    spec = NgramSpec("bert2dnn", 12, vocabulary_rows=1)
    found = Explainer(scorer_of(spec, random_arrays(spec, dim=2, hidden=()))).explain("a", "b")
    assert {(one.note, one.value) for one in found.drivers} == {(UNKNOWN, 0.0)}
    assert found.logit == found.baseline_logit


def test_a_long_text_is_explained_as_far_as_it_is_read() -> None:
    arrays = random_arrays(MATCH, dim=2, hidden=())
    scorer = scorer_of(MATCH, arrays, settings={"max_query_chars": 4})
    found = Explainer(scorer).explain("ipad case", "case")
    assert found.query_words == ["ipad"]


def test_each_match_feature_has_words() -> None:
    assert set(FEATURES) == {*DENSE_NAMES, "query_vectors", "title_vectors"}
    assert len({text for _, text in FEATURES.values()}) == len(FEATURES)
    assert all(FEATURES[name][0] == family for family, name in SHOWN.items())
