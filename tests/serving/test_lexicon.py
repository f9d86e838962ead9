import numpy as np
import pytest

from raydistill.serving.lexicon import Lexicon, find_word, unit_rows


def test_every_word_is_found_and_no_other() -> None:
    words = np.random.default_rng(0).integers(0, 2**64, 5_000, np.uint64)
    lexicon = Lexicon.from_idf(np.ones(1, np.float32), words_K=words)
    found = [find_word(word, lexicon.words_K, lexicon.places) for word in words]
    assert found == list(range(5_000))
    assert find_word(np.uint64(1), lexicon.words_K, lexicon.places) == -1
    assert len(lexicon.places) == 32_768  # of which four words have a slot each
    empty = Lexicon.from_idf(np.ones(1, np.float32))
    assert find_word(np.uint64(1), empty.words_K, empty.places) == -1


def test_words_whose_lowest_bits_agree_are_kept_apart() -> None:
    words = (np.arange(1, 9, dtype=np.uint64) << np.uint64(32)) + np.uint64(3)
    lexicon = Lexicon.from_idf(np.ones(1, np.float32), words_K=words)
    assert [find_word(w, words, lexicon.places) for w in words] == list(range(8))


def test_a_file_gives_the_lexicon_back() -> None:
    vectors = unit_rows(np.array([[3, 4], [0, 0]], np.float32))
    assert vectors.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    words = np.array([7, 9], np.uint64)
    lexicon = Lexicon.from_idf(np.ones(4, np.float32), words_K=words, vectors_KE=vectors)
    again = Lexicon.from_arrays(lexicon.to_arrays())
    assert again.vectors_KE.dtype == np.float32
    assert again.vectors_KE == pytest.approx(vectors, abs=1e-3)
    twice = Lexicon.from_arrays(again.to_arrays())
    assert (twice.vectors_KE == again.vectors_KE).all()


def test_words_and_vectors_must_agree() -> None:
    with pytest.raises(ValueError, match="1 words for 2 vectors"):
        Lexicon.from_idf(
            np.ones(1, np.float32), words_K=np.ones(1, np.uint64), vectors_KE=np.ones((2, 1))
        )
