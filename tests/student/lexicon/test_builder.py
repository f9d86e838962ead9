from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.serving.tokenizer import encode
from raydistill.student.lexicon.builder import (
    count_idf,
    encode_words,
    frequent_words,
    principal_components,
    single_words,
)
from tests.helpers.pairs import write_word_shards


def words_of(*titles: str, most: int = 100) -> list[str]:
    queries = [""] * len(titles)
    return frequent_words([pa.table({"query": queries, "title": list(titles)})], most=most)[0]


def test_frequent_words_by_hand() -> None:
    titles = ["Grey SOFA", "grey sofa-bed", "grey", "1/2 in.", "1/2 in", "once"]
    assert words_of(*titles) == ["grey", "1/2", "in", "sofa"]
    assert words_of(*titles, most=2) == ["grey", "1/2"]


def test_a_token_of_several_words_is_taken_apart() -> None:
    assert words_of(*["and/or"] * 2) == ["and", "or"]
    assert sorted(words_of(*["\u6c99\u53d1"] * 2)) == ["\u53d1", "\u6c99"]


def test_spellings_of_one_word_are_one() -> None:
    assert words_of(*["women's"] * 3, *["womens"] * 2) == ["women's"]
    assert words_of(*["Don't", "do n't", "do don\u2019t."]) == ["do", "n't"]
    assert words_of(*["a woman 's", "woman's", "a"]) == ["a", "woman's"]


def test_the_order_of_rows_does_not_matter() -> None:
    titles = ["b a", "a b", "c", "c d", "d"]
    assert words_of(*titles) == words_of(*titles[::-1])


def test_hashes_are_those_of_the_features() -> None:
    hashes, single = single_words(["Sofa", "sofa", "a b", ""])
    assert hashes[0] == hashes[1] != hashes[2]
    assert single.tolist() == [True, True, False, False]
    assert len(single_words([])[0]) == 0
    assert len(encode(["x"])[0]) == 1


def test_vectors_do_not_depend_on_their_batch(tiny_bert: Path) -> None:
    words = ["grey", "sofa", "a", "greyer", "lamp"]
    together = encode_words(words, tiny_bert, device="cpu")
    alone = [encode_words([word], tiny_bert, device="cpu")[0] for word in words]
    assert together == pytest.approx(np.stack(alone), rel=0.05, abs=0.05)  # in bfloat16


def test_principal_components_by_hand() -> None:
    # All there is lies along (3, 4) / 5.
    vectors = np.array([[3, 4], [-3, -4], [6, 8], [-6, -8]], np.float32)
    found = principal_components(vectors, num=3)
    assert np.abs(found[:, 0]) == pytest.approx([5, 5, 10, 10])
    assert found[:, 1:] == pytest.approx(0, abs=1e-5)
    assert found.shape == (4, 3)


def test_idf_counts_titles(tmp_path: Path) -> None:
    pairs, _, shards = write_word_shards(tmp_path)
    weights = count_idf(pairs, shards, units=True)
    assert weights.max() == pytest.approx(np.log(43))
    assert weights.min() >= np.log(43 / 5)  # each word stands in one title; a few share a row
