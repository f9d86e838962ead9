"""Nearest n-grams: cosines by hand, of the trained table and of word vectors."""

import logging
from pathlib import Path

import numpy as np
import pytest

from raydistill.errors import UserError
from raydistill.serving.bundle import NGRAMS, bundle_files
from raydistill.serving.explanation.neighbors import Neighbors, common_ngrams, count_ngrams
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.tokenizer import word_hash
from tests.helpers.explained import linear_arrays, scorer_of, settings_of

PLAIN = NgramSpec("bert2dnn", 12)
ROWS = {"ipad": [2.0, 0.0], "tablet": [3.0, 4.0], "sofa": [0.0, 1.0], "ipad case": [1.0, 0.0]}


def test_the_rows_of_the_table_by_hand() -> None:
    # Lengths do not count: (2, 0) and (3, 4) have the cosine 3 / 5.
    finder = Neighbors(scorer_of(PLAIN, linear_arrays(PLAIN, rows=ROWS)), [*ROWS, "unknown"])
    assert finder.vectors == "table" and "unknown" not in finder.candidates  # a row of zeros
    found = finder.nearest("iPad", num=3)
    assert [(one.text, round(one.cosine, 6)) for one in found] == [
        ("ipad case", 1.0), ("tablet", 0.6), ("sofa", 0.0),
    ]  # fmt: skip
    assert [one.text for one in finder.nearest("ipad case", num=1)] == ["ipad"]


def test_the_table_in_int8_without_untrained_rows() -> None:
    arrays = linear_arrays(PLAIN, rows=ROWS)
    arrays["used"] = np.asarray(arrays["embedding"].any(axis=1))
    finder = Neighbors(scorer_of(PLAIN, arrays, table="int8"), [*ROWS, "unknown"])
    assert finder.candidates == list(ROWS)
    assert abs(finder.nearest("ipad", num=2)[1].cosine - 0.6) < 0.01


def test_word_vectors_come_first_where_there_are_any() -> None:
    spec = NgramSpec("match", 12, word_dim=2)
    words = np.array([word_hash(word) for word in ("ipad", "tablet", "sofa")])
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    lexicon = Lexicon.from_idf(np.ones(1, np.float32), words_K=words, vectors_KE=vectors)
    scorer = scorer_of(spec, linear_arrays(spec, rows=ROWS, lexicon=lexicon))
    finder = Neighbors(scorer, list(ROWS))
    assert finder.vectors == "words"
    assert [one.text for one in finder.nearest("tablet", num=9)] == ["sofa", "ipad"]
    with pytest.raises(UserError, match="give one word"):
        finder.nearest("ipad case", num=1)
    assert Neighbors(scorer, list(ROWS), vectors="table").vectors == "table"


def test_a_word_that_is_not_known_names_those_close_to_it() -> None:
    scorer = scorer_of(PLAIN, linear_arrays(PLAIN, rows=ROWS))
    finder = Neighbors(scorer, list(ROWS))
    with pytest.raises(UserError, match=r"'tablte' is no word.*close to it: tablet"):
        finder.nearest("tablte", num=1)
    with pytest.raises(UserError, match=r"has 0 words \(none\)"):
        finder.nearest(" ", num=1)
    with pytest.raises(UserError, match="no word vectors"):
        Neighbors(scorer, [], vectors="words")


def test_n_grams_are_counted_as_the_student_reads_them() -> None:
    spec = NgramSpec("match", 12, units=True)
    assert count_ngrams(["jo@x.y jo@x.y jo", "ipad"], spec=spec)["jo"] == 1  # of texts
    counts = count_ngrams(['12" iPad', "ipad 12in"], spec=spec)
    assert counts["ipad"] == 2 and counts["12 in"] == 2 and counts["in ipad"] == 1


def bundle(folder: Path, **files: object) -> Path:
    """A bundle in a folder, with what `bundle_files` takes."""
    folder.mkdir()
    settings = settings_of(PLAIN)
    model = model_bytes(settings, linear_arrays(PLAIN, rows=ROWS))
    given = {"golden": [], "card": "", **files}
    for name, data in bundle_files(settings, model, **given)[1].items():  # type: ignore[arg-type]
        (folder / name).write_bytes(data)
    return folder


def test_a_bundle_holds_its_common_n_grams(tmp_path: Path) -> None:
    assert common_ngrams(bundle(tmp_path / "a", ngrams=["sofa", "ipad case"])) == [
        "sofa", "ipad case",
    ]  # fmt: skip


def test_a_bundle_of_before_gives_the_words_of_its_golden_pairs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("raydistill"), "propagate", True)
    golden = [{"words_query": ["ipad", "case"], "words_title": ["sofa"]}]
    folder = bundle(tmp_path / "a", golden=golden)
    assert common_ngrams(folder) == ["case", "ipad", "ipad case", "sofa"]
    assert "export again" in caplog.text


def test_the_n_grams_of_another_bundle_are_refused(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "a", ngrams=["sofa"])
    (folder / NGRAMS).write_text('{"fingerprint": "0", "ngrams": ["sofa"]}')
    with pytest.raises(UserError, match="not of one bundle"):
        common_ngrams(folder)
