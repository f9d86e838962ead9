"""Faulty settings and arrays are refused: the array, its state and the expected one are named."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from raydistill.errors import UserError
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.native.layout import AT, aligned
from raydistill.serving.numba_scorer import NumbaScorer

SPEC = NgramSpec("match", 8, word_dim=2, vocabulary_rows=6)
DIM, HIDDEN = 3, 5


def arrays() -> dict[str, np.ndarray]:
    """Those of a right bundle: a vocabulary of 6 n-grams, 4 known words, one hidden layer."""
    rng = np.random.default_rng(0)
    lexicon = Lexicon.from_idf(
        np.ones(4, np.float32),
        words_K=np.arange(4, dtype=np.uint64),
        vectors_KE=np.ones((4, 2), np.float32),
    ).with_ngrams(np.array([1, 5, 9, 100, 2**24 - 1], np.int32))
    num_inputs = SPEC.num_bags * DIM + SPEC.num_dense
    return {
        "embedding": rng.random((6, DIM), np.float32),
        "weight_0": rng.random((HIDDEN, num_inputs), np.float32),
        "bias_0": np.zeros(HIDDEN, np.float32),
        "weight_1": rng.random((1, HIDDEN), np.float32),
        "bias_1": np.zeros(1, np.float32),
        "dense_mean": np.zeros(SPEC.num_dense, np.float32),
        "dense_std": np.ones(SPEC.num_dense, np.float32),
        **lexicon.to_arrays(),
    }


def settings(**changed: object) -> dict[str, Any]:
    return {
        "ngrams": asdict(SPEC), "temperature": 2.0, "threshold": 0.5,
        "max_query_chars": 50, "max_title_chars": 200, "single_texts": False, **changed,
    }  # fmt: skip


def with_(name: str, at: object, value: float) -> np.ndarray:
    found = arrays()[name].copy()
    found[at] = value
    return found


def test_a_right_bundle_scores() -> None:
    assert np.isfinite(NumbaScorer(settings(), arrays()).score("sofa", ["grey sofa", ""])).all()
    NumbaScorer(settings(temperature=1, later="unknown settings are for others"), arrays())
    large = arrays() | {"embedding": with_("embedding", (0, 0), 3e38)}  # its square is infinite
    NumbaScorer(settings(), large)
    other = {"weight_x": np.ones(1, np.float32), "weight_": np.ones(1, np.float32)}
    assert NumbaScorer(settings(), arrays() | other).score("sofa", ["lamp"]).shape == (1,)
    lowest = with_("word_vectors", (0, 1), -65_504), with_("word_vectors", (0, 1), 65_504)
    for vectors in (*lowest, arrays()["word_vectors"].astype(np.float32)):
        NumbaScorer(settings(), arrays() | {"word_vectors": vectors})


def test_a_bundle_brings_its_units() -> None:
    spec = replace(SPEC, units=True, extra_units=(("carat", "ct"),))
    with_units = settings(ngrams=asdict(spec), temperature=1e-3)  # no score near 0 or 1
    loaded = NumbaScorer.from_model(with_units, aligned(model_bytes(with_units, arrays())))
    assert loaded.spec == spec
    titles = ["Ring, 2ct", "Ring, 2 carat"]
    assert len(set(loaded.score("2 carat ring", titles).tolist())) == 1
    without = settings(ngrams=asdict(replace(spec, extra_units=())), temperature=1e-3)
    assert len(set(NumbaScorer(without, arrays()).score("2 carat ring", titles).tolist())) == 2


@pytest.mark.parametrize("name", ["vector_type", "table_type", "max_title", "bytes"])
def test_numba_reads_no_damaged_model(name: str) -> None:
    data = bytearray(model_bytes(settings(), arrays()))
    data[8 * AT[name]] ^= 9
    with pytest.raises(UserError, match=r"damaged|bytes, not"):
        NumbaScorer.from_model(settings(), aligned(bytes(data)))


def test_numba_reads_the_limits_and_the_temperature_of_the_model() -> None:
    model = aligned(model_bytes(settings(), arrays()))
    scorer = NumbaScorer.from_model(settings(temperature=9.0, max_title_chars=1), model)
    assert (scorer.temperature, scorer.max_title_chars) == (2.0, 200)


WRONG: list[tuple[str, Any, str]] = [
    ("embedding", np.zeros((5, DIM), np.float32), r"float32 of shape \(5, 3\), not .*\(6, n\)"),
    ("embedding", np.zeros((6, 0), np.float32), r"\(6, 0\)"),
    ("embedding", np.zeros((6, DIM + 1), np.float32), "'weight_0' is float32"),
    ("embedding", np.zeros(6, np.float32), r"shape \(6,\)"),
    ("embedding", np.zeros((6, DIM)), "float64 of shape"),
    ("embedding", np.zeros((6, DIM), ">f4"), ">f4"),
    ("embedding", with_("embedding", (5, 2), np.nan), "not finite everywhere"),
    ("embedding", with_("embedding", (0, 0), -np.inf), "not finite"),
    ("weight_0", np.zeros((HIDDEN, 4), np.float32), "'weight_0'"),
    ("weight_0", np.zeros((0, 4), np.float32), "'weight_0'"),
    ("weight_1", np.zeros((2, HIDDEN), np.float32), r"\(2, 5\), not float32 of shape \(1, 5\)"),
    ("weight_1", np.zeros((1, HIDDEN + 1), np.float32), "'weight_1'"),
    ("weight_1", with_("weight_1", (0, 0), np.inf), "'weight_1' is not finite"),
    ("weight_7", np.zeros((1, 1), np.float32), r"'weight_1' is .* \(1, 5\)|no array"),
    ("bias_0", np.zeros(HIDDEN - 1, np.float32), "'bias_0'"),
    ("bias_1", np.array([np.nan], np.float32), "'bias_1'"),
    ("dense_mean", np.zeros(SPEC.num_dense - 1, np.float32), "'dense_mean'"),
    ("dense_std", np.ones(SPEC.num_dense + 1, np.float32), "'dense_std'"),
    ("dense_std", with_("dense_std", 3, 0), "'dense_std' is 0.0 in it, not above 0"),
    ("dense_std", with_("dense_std", 3, -1), "not above 0"),
    ("dense_std", with_("dense_std", 3, 1e-40), "'dense_std' is .*, not above 0"),
    ("idf", np.ones(0, np.float32), "'idf'"),
    ("idf", np.ones(3, np.float32), "power of two"),
    ("idf", np.ones((2, 2), np.float32), "'idf'"),
    ("words", np.arange(4), "'words' is int64"),
    ("words", np.arange(5, dtype=np.uint64), r"'word_vectors' .* \(4, 2\), not .* \(5, 2\)"),
    ("word_vectors", np.ones((4, 1), np.float16), r"not float16 of shape \(4, 2\)"),
    ("word_vectors", np.ones((4, 2)), "float64"),
    ("word_vectors", with_("word_vectors", (0, 1), np.nan), "'word_vectors' is not finite"),
    ("word_vectors", with_("word_vectors", (3, 0), -np.nan), "'word_vectors' is not finite"),
    ("word_vectors", with_("word_vectors", (3, 1), np.inf), "'word_vectors' is not finite"),
    ("word_vectors", with_("word_vectors", (2, 1), -np.inf), "'word_vectors' is not finite"),
    ("ngrams", np.arange(7, dtype=np.int32), "7 ids, not at most 6"),
    ("ngrams", np.array([3, 3], np.int32), "not in order"),
    ("ngrams", np.array([5, 3], np.int32), "not in order"),
    ("ngrams", np.array([-1, 3], np.int32), "not in order, not rising ids from 0 to 16,777,215"),
    ("ngrams", np.array([1, 2**24], np.int32), "not in order"),
    ("ngrams", np.array([1, 2]), "'ngrams' is int64"),
]


@pytest.mark.parametrize(("name", "value", "says"), WRONG)
def test_a_wrong_array_is_named(name: str, value: np.ndarray, says: str) -> None:
    with pytest.raises(UserError, match=says):
        NumbaScorer(settings(), {**arrays(), name: value})
    with pytest.raises(UserError, match=says):
        model_bytes(settings(), {**arrays(), name: value})


@pytest.mark.parametrize("name", sorted(arrays()))
def test_a_missing_array_is_named(name: str) -> None:
    without = {key: value for key, value in arrays().items() if key != name}
    with pytest.raises(UserError, match=f"no array '{name}'|'weight_0' is .*, not .*\\(1, "):
        NumbaScorer(settings(), without)


def ngrams(**changed: object) -> dict[str, Any]:
    return {"ngrams": {**asdict(SPEC), **changed}}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"temperature": 0}, "temperature is 0, not a number above 0"),
        ({"temperature": -1.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": 10**400}, "temperature"),
        ({"temperature": "2"}, "temperature is '2'"),
        ({"temperature": True}, "temperature is True"),
        ({"threshold": 1.5}, "threshold is 1.5, not a number from 0 to 1"),
        ({"threshold": None}, "threshold is None"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"max_query_chars": 0}, "max_query_chars is 0"),
        ({"max_title_chars": 10.0}, "max_title_chars is 10.0"),
        ({"max_title_chars": True}, "max_title_chars is True"),
        ({"max_title_chars": 2**31}, "max_title_chars is 2147483648, not a whole number from 1 to"),
        ({"single_texts": "no"}, "single_texts is 'no', not true or false"),
        ({"title": "title"}, "title is 'title', not a list of names of columns"),
        ({"ngrams": []}, "ngrams is \\[\\], not a table of preset"),
        (ngrams(preset="other"), "ngrams.preset is 'other', not one of \\('match', 'bert2dnn'\\)"),
        (ngrams(hash_bits=0), "hash_bits is 0, not from 1 to 30"),
        (ngrams(hash_bits=31, vocabulary_rows=0), "hash_bits is 31"),
        (ngrams(hash_bits="8"), "hash_bits is '8', not of type int"),
        (ngrams(bags="separate"), "unknown field 'bags'"),
        (ngrams(char_ngrams=1), "char_ngrams is 1"),
        (ngrams(units=1), "units is 1, not of type bool"),
        (ngrams(extra_units=[["carat"]]), "extra_units is .* pairs of a short name"),
        (ngrams(extra_units=[["carat", "c2"]]), "'c2' cannot be the name of a unit"),
        (ngrams(extra_units=3), "extra_units is 3, not pairs"),
        (ngrams(word_dim=-2), "word_dim is -2"),
        (ngrams(word_dim=True), "word_dim is True"),
        (ngrams(vocabulary_rows=-6), "vocabulary_rows is -6"),
        (ngrams(vocabulary_rows=2**25), "vocabulary_rows is 33554432"),
        (ngrams(stemming=True), "unknown field 'stemming'"),
    ],
)
def test_a_wrong_setting_is_named(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        NumbaScorer(settings(**changed), arrays())


@pytest.mark.parametrize("name", sorted({*settings(), *asdict(SPEC)} - {"single_texts"}))
def test_a_missing_setting_is_named(name: str) -> None:
    found = settings()
    found["ngrams"].pop(name, None)
    found.pop(name, None)
    with pytest.raises(UserError, match=name):
        NumbaScorer(found, arrays())
