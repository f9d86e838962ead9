import numpy as np
import pytest

from raydistill.evaluation.word_models import fasttext_classifier, has_fasttext

PAIRS = [("sofa", "red sofa"), ("lamp", "blue\nchair")] * 200
RELEVANT = np.array([True, False] * 200)


@pytest.mark.skipif(not has_fasttext(), reason="fastText is optional")
@pytest.mark.slow
def test_fasttext_learns_words_and_gives_the_same_scores_again() -> None:
    one, other = (fasttext_classifier(PAIRS, RELEVANT) for _ in range(2))
    asked = [("sofa", "a red sofa"), ("lamp", "chair"), ("", "")]
    scores = one(asked)
    assert scores[0] > 0.5 > scores[1] and scores.dtype == np.float32
    assert np.array_equal(scores, other(asked)) and len(one([])) == 0


@pytest.mark.skipif(not has_fasttext(), reason="fastText is optional")
@pytest.mark.slow
def test_a_text_cannot_add_a_label() -> None:
    texts = [("__label__1", "sofa"), ("__label__0", "chair")] * 200
    scores = fasttext_classifier(texts, ~RELEVANT)([("", "sofa"), ("", "chair")])
    assert scores[0] < 0.5 < scores[1]
