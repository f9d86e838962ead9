from math import log

import numpy as np
import pyarrow as pa
import pytest

from raydistill.evaluation.lexical import (
    BM25,
    TRIGRAMS,
    WORD_OVERLAP,
    DocumentFrequencies,
    document_frequencies,
    lexical_scores,
    num_words,
)
from raydistill.serving.text.arrow_text import Texts, to_texts
from raydistill.serving.tokenizer import word_hash


def texts(*values: str) -> Texts:
    return to_texts(pa.array(values, pa.string()))


TITLES = ("red sofa", "blue sofa", "red red lamp", "Chair")


def test_titles_are_counted_once_for_each_word() -> None:
    found = document_frequencies(texts(*TITLES))
    counts = dict(zip(found.words_D.tolist(), found.counts_D.tolist(), strict=True))
    expected = {"red": 2, "sofa": 2, "blue": 1, "lamp": 1, "chair": 1}
    assert counts == {int(word_hash(word)): num for word, num in expected.items()}
    assert found.num_titles == 4 and found.mean_words == 2


def scores(query: str, title: str, frequencies: DocumentFrequencies) -> dict[str, float]:
    found = lexical_scores(texts(query), texts(title), frequencies=frequencies)
    return {name: float(values[0]) for name, values in found.items()}


def test_scores_are_those_of_a_calculation_by_hand() -> None:
    found = scores("red sofa lamp", "Red red sofa", document_frequencies(texts(*TITLES)))
    assert found[WORD_OVERLAP] == pytest.approx(2 / 3)
    # " red sofa lamp " has 13 trigrams; " red red sofa " has 12, of which " re", "red", "ed " occur
    # twice. Distinct: 13 and 9 = " re red ed  d r | d s  so sof ofa fa "; both: all but "d r".
    assert found[TRIGRAMS] == pytest.approx(2 * 8 / (13 + 9))
    idf = log(1 + 2.5 / 2.5)  # of red and of sofa: 2 of 4 titles
    norm = 1.2 * (0.25 + 0.75 * 3 / 2)
    bm25 = idf * 2 * 2.2 / (2 + norm) + idf * 2.2 / (1 + norm)
    assert found[BM25] == pytest.approx(bm25 / (1 + bm25))


def test_a_word_of_no_title_is_the_rarest() -> None:
    frequencies = document_frequencies(texts(*TITLES))
    new, known = (scores(word, f"{word} x", frequencies)[BM25] for word in ("desk", "blue"))
    assert new > known > 0


@pytest.mark.parametrize(
    ("query", "title"), [("", "red"), ("red", "!"), ("-", ""), ("\u200b", "a")]
)
def test_texts_without_words_share_nothing(query: str, title: str) -> None:
    found = scores(query, title, document_frequencies(texts(*TITLES)))
    assert set(found.values()) == {0.0}


def test_equal_texts_share_everything_but_for_bm25() -> None:
    found = scores("Größe 1.5 沙发", "grosse 1.5 沙发", document_frequencies(texts()))
    assert found[WORD_OVERLAP] == found[TRIGRAMS] == 1 and 0 < found[BM25] < 1


def test_sides_of_different_length_are_refused() -> None:
    frequencies = document_frequencies(texts("a"))
    with pytest.raises(ValueError, match="2 queries for 1 titles"):
        lexical_scores(texts("a", "b"), texts("a"), frequencies=frequencies)


def test_words_are_counted_in_every_script() -> None:
    assert np.array_equal(num_words(texts("red sofa", "", "沙发 3m", "it's")), [2, 0, 3, 1])
