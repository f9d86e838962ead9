import random
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydistill.serving.native.build import own_targets
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.native.layout import aligned
from raydistill.serving.native.library import Library, Model
from raydistill.serving.numba_scorer import NumbaScorer
from raydistill.serving.text.cleaning import clean_text
from tests.serving.native.cases import (
    EXTREME,
    MAX_QUERY_CHARS,
    MAX_TITLE_CHARS,
    default_model,
    odd_pairs,
    odd_text,
    random_bundle,
    small_model,
)

pytestmark = pytest.mark.timeout(900)  # where the library is not in the cache

SETTINGS: list[dict[str, Any]] = [
    {"units": True, "word_dim": 32},
    {"units": True, "word_dim": 5, "char_ngrams": 3, "hidden": (256, 64), "width": 64},
    {"word_dim": 0, "hidden": (17,)},
    {"units": True, "word_dim": 3, "vocabulary_rows": 500, "hidden": ()},
    {"units": True, "word_dim": 8, "extra_units": (("ply", "plies lagen"),), "width": 7},
    {"preset": "bert2dnn", "hidden": (64, 32, 16, 8)},
    {"preset": "bert2dnn", "char_ngrams": 4},
    {"preset": "bert2dnn", "vocabulary_rows": 500, "char_ngrams": 2},
]


def check_scores(bundle: tuple[dict[str, Any], dict[str, Any]], model: Model, num: int) -> None:
    """Compare with the scorer; sums of float32 in another order differ."""
    scorer = NumbaScorer(*bundle)
    # The second: words that occur hundreds of times, so features hundreds of deviations away.
    for pairs, most in ((odd_pairs(num), 1e-6), (EXTREME, 1e-5)):
        queries, titles = zip(*pairs, strict=True)
        expected = scorer.score_pairs(queries, titles)
        assert np.std(expected) > 0.01
        assert np.abs(model.score_pairs(queries, titles) - expected).max() < most


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("vectors", ["float32", "float16", "int8"])
def test_scores_are_those_of_the_scorer(
    library: Library, settings: dict[str, Any], vectors: str
) -> None:
    settings, arrays = random_bundle(**settings)
    model = Model(aligned(model_bytes(settings, arrays, vectors=vectors)), library)
    if vectors == "int8":
        arrays["word_vectors"] = rounded(arrays["word_vectors"].astype(np.float32))
    check_scores((settings, arrays), model, 300)


def rounded(rows: np.ndarray) -> np.ndarray:
    """What int8 holds of each row: steps of a 127th of its largest value."""
    scales = np.abs(rows).max(axis=1, keepdims=True, initial=0) / np.float32(127)
    return np.asarray(np.rint(rows / np.where(scales > 0, scales, 1)) * scales, np.float32)


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_a_smaller_table_is_read_as_the_numbers_it_holds(library: Library, kind: str) -> None:
    settings, arrays = random_bundle(units=True, word_dim=4)
    model = Model(aligned(model_bytes(settings, arrays, table=kind)), library)
    table = arrays["embedding"]
    stored = rounded(table) if kind == "int8" else table.astype(np.float16).astype(np.float32)
    assert 0 < np.abs(stored - table).max() < 0.02
    check_scores((settings, {**arrays, "embedding": stored}), model, 100)


@pytest.mark.parametrize("layers", ["float32", "int8"])
@pytest.mark.parametrize("ids", [{"vocabulary_rows": 500}, {}], ids=["vocabulary", "hashed"])
def test_numba_reads_the_same_model_file(
    library: Library, ids: dict[str, int], layers: str
) -> None:
    for kind in ("float32", "float16", "int8"):
        settings, arrays = random_bundle(units=True, word_dim=4, **ids)
        used = np.random.default_rng(1).random(len(arrays["embedding"])) < 0.6
        small = {**arrays, "used": used} if kind != "float32" else arrays
        data = aligned(model_bytes(settings, small, table=kind, vectors=kind, layers=layers))
        queries, titles = zip(*odd_pairs(100), strict=True)
        expected = Model(data, library).score_pairs(queries, titles)
        found = NumbaScorer.from_model(settings, data).score_pairs(queries, titles)
        assert np.abs(found - expected).max() < 1e-6


def test_an_id_without_a_row_adds_nothing_and_is_counted(library: Library) -> None:
    settings, arrays = random_bundle()
    used = np.random.default_rng(1).random(len(arrays["embedding"])) < 0.5
    zeros = np.where(used[:, None], arrays["embedding"], 0).astype(np.float32)
    model = Model(aligned(model_bytes(settings, {**arrays, "used": used})), library)
    check_scores((settings, {**arrays, "embedding": zeros}), model, 100)


def test_all_libraries_of_this_machine_give_the_same_scores(
    libraries: dict[str, Path], library: Library
) -> None:
    if len(own_targets()) < 2:
        pytest.skip("this CPU has one library")
    queries, titles = zip(*odd_pairs(300), strict=True)
    for data in (aligned(default_model()), aligned(small_model())):
        expected = Model(data, library).score_pairs(queries, titles)
        for target in own_targets():
            other = Model(data, Library(libraries[target]))
            assert np.abs(other.score_pairs(queries, titles) - expected).max() < 1e-6


@pytest.mark.slow
def test_texts_are_cleaned_as_in_python(model: Model) -> None:
    for pair in (*odd_pairs(2_000, seed=1), *EXTREME):
        for text in pair:
            assert model.clean(text) == clean_text(text)[:MAX_TITLE_CHARS], ascii(text)
            assert model.clean(text, is_query=True) == clean_text(text)[:MAX_QUERY_CHARS]


@pytest.mark.parametrize("most", [MAX_QUERY_CHARS, MAX_TITLE_CHARS])
def test_an_ampersand_is_cleaned_as_in_python_wherever_a_text_is_cut(
    model: Model, most: int
) -> None:
    tails = ("&", "& ", "& b", "&b", "&amp;", "&amp; b", " & ", "& &", "&&", "&  b", "&#38;#38;x")
    for tail in tails:
        for start in ("", "x", "a & b ", *("x" * (most - back) for back in range(-1, 6))):
            text = start + tail
            found = model.clean(text, is_query=most == MAX_QUERY_CHARS)
            assert found == clean_text(text)[:most], (len(start), tail)


@pytest.mark.slow
def test_every_character_is_cleaned_as_in_python(model: Model) -> None:
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    step = 40
    for before in ("a", "1", " "):
        for at in range(0, len(codes), step):
            text = "a" + "".join(before + chr(code) for code in codes[at : at + step]) + "a"
            assert model.clean(text) == clean_text(text)[:MAX_TITLE_CHARS], hex(codes[at])


@pytest.mark.slow
def test_sequences_of_marks_are_cleaned_as_in_python(model: Model) -> None:
    chars = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    marks = [char for char in chars if unicodedata.combining(char)]
    parts = [char for char in chars if unicodedata.decomposition(char)]
    hangul = [chr(code) for code in (*range(0x1100, 0x1200), *range(0xAC00, 0xAD00))]
    rng = random.Random(3)
    for _ in range(50_000):
        pools = rng.choices((chars, marks, parts, parts, hangul, list("1½²\u2044/º CF")), k=9)
        text = "".join(map(rng.choice, pools))
        assert model.clean(text) == clean_text(text), ascii(text)


def test_invalid_utf_8_is_read_as_replacement_characters(model: Model) -> None:
    rng = random.Random(5)
    for _ in range(3_000):
        raw = bytearray(odd_text(rng, 4).encode())
        for _ in range(rng.randint(1, 4)):
            raw.insert(
                rng.randint(0, len(raw)), rng.choice([0x80, 0xC1, 0xE2, 0xF0, 0xF5, 0xFF, 0xED])
            )
        text = bytes(raw).decode("utf-8", "replace")
        assert model.clean(bytes(raw)) == clean_text(text)[:MAX_TITLE_CHARS], bytes(raw)
