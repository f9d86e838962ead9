import numpy as np
import pytest

from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.match_features import DENSE_NAMES, NUM_DENSE
from raydistill.serving.tokenizer import encode, single_words

ONES = np.ones(1, np.float32)
PLAIN = Lexicon.from_idf(ONES)
# couch is at 0.8 from sofa, at 0.6 from grey.
VECTORS = Lexicon.from_idf(
    ONES,
    words_K=single_words(["sofa", "couch", "grey"])[0],
    vectors_KE=np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32),
)


def dense(query: str, title: str, lexicon: Lexicon = PLAIN) -> dict[str, float]:
    spec = NgramSpec("match", 16, word_dim=lexicon.dim)
    row = featurize(encode([query]), encode([title]), spec=spec, lexicon=lexicon).dense_BF[0]
    return dict(zip(DENSE_NAMES, row[:NUM_DENSE].tolist(), strict=True))


def test_words_found_by_hand() -> None:
    found = dense("grey sofa 3", "sofa grey sofa bed")
    assert found["query_found_mean"] == pytest.approx(2 / 3)
    assert found["query_found_idf"] == pytest.approx(2 / 3)  # all words are as rare
    assert [found["query_found_least"], found["query_found_last"]] == [0, 0]
    assert found["title_found"] == pytest.approx(3 / 4)
    assert found["all_query_words_found"] == 0
    assert found["first_match_position"] == 0
    assert found["log_query_words"] == pytest.approx(np.log(4))
    assert [found["query_numbers"], found["query_numbers_found"]] == [1, 0]
    assert [found["query_number_missing"], found["title_numbers"]] == [1, 0]


def test_order_by_hand() -> None:
    found = dense("grey sofa", "big grey sofa")
    assert [found["query_bigrams_found"], found["longest_run"]] == [1, 1]
    assert found["first_match_position"] == pytest.approx(1 / 3)
    assert found["query_found_missing"] == 1  # none is
    assert found["query_numbers_found"] == 1  # none was asked for
    apart = dense("grey sofa", "grey big sofa")
    assert [apart["query_bigrams_found"], apart["longest_run"]] == [0, 0.5]


def test_trigrams_by_hand() -> None:
    # " ab " has " ab", "ab "; " abc " has " ab", "abc", "bc ".
    found = dense("ab", "abc")
    assert found["query_trigrams_found"] == pytest.approx(1 / 2)
    assert found["title_trigrams_found"] == pytest.approx(1 / 3)
    # Word by word: half of ab, all of xy.
    found = dense("xy ab", "abc xy")
    assert found["query_part_found_mean"] == pytest.approx(3 / 4)
    assert found["query_part_found_last"] == pytest.approx(1 / 2)
    assert found["query_part_found_missing"] == pytest.approx(1 / 2)


def test_every_word_of_a_script_without_spaces_has_its_share() -> None:
    found = dense("\u6c99\u53d1", "\u53d1")
    assert [found["query_found_mean"], found["query_part_found_mean"]] == [0.5, 0.5]


def test_near_words_by_hand() -> None:
    found = dense("grey couch", "sofa grey", VECTORS)
    assert found["query_near_mean"] == pytest.approx((1 + 0.8) / 2)
    assert found["query_near_missing"] == pytest.approx(0.8)
    assert found["title_near"] == pytest.approx((0.8 + 1) / 2)
    assert found["query_near_last"] == pytest.approx(0.8)
    # Means (0.8, 1.6) and (1, 1), each over its length.
    assert found["cosine"] == pytest.approx(2.4 / np.sqrt(0.8**2 + 1.6**2) / np.sqrt(2))
    assert [found["query_unknown"], dense("lamp", "sofa", VECTORS)["query_unknown"]] == [0, 1]


def test_a_word_is_never_less_than_near_nothing() -> None:
    opposite = Lexicon.from_idf(
        ONES, words_K=VECTORS.words_K[:2], vectors_KE=np.array([[1], [-1]], np.float32)
    )
    assert dense("sofa", "couch", opposite)["query_near_mean"] == 0
    assert dense("sofa", "couch", opposite)["cosine"] == -1


def test_mean_vectors_of_both_sides_follow() -> None:
    spec = NgramSpec("match", 16, word_dim=2)
    texts = encode(["sofa grey", "lamp"]), encode(["couch lamp", "grey"])
    rows = featurize(*texts, spec=spec, lexicon=VECTORS).dense_BF[:, NUM_DENSE:]
    assert rows[0] == pytest.approx([np.sqrt(0.5), np.sqrt(0.5), 0.8, 0.6])
    assert rows[1] == pytest.approx([0, 0, 0, 1])  # a word that nobody knows has no direction


HEADS = {
    "oak table with two chairs": "table",
    "oak table for 6": "table",
    "oak chair in grey": "chair",
    "3 in pipe": "pipe",  # inches
    "48 in. W x 72 in. H shelf": "shelf",
    "8 sq. in. plate": "plate",
    "drop-in sink in white": "sink",
    "bow tie with clip": "tie",
    "lag screw for wood": "screw",
    "made in spain oak chair": "chair",
    "tisch f\u00fcr garten": "tisch",
    "with": "with",  # of the band a record, perhaps
    "grey sofa": "sofa",
}


@pytest.mark.parametrize("title", HEADS)
def test_the_head_of_a_title_is_the_thing_itself(title: str) -> None:
    found = {
        word: dense(word, title)["head_last_near"]
        for word in title.replace("-", " ").split()
        if word.isalpha()
    }
    assert [word for word, near in found.items() if near] == [HEADS[title]]


def test_heads_by_hand() -> None:
    found = dense("oak table", "table oak leg with oak top")
    assert found["head_near"] == found["head_last_near"] == 0  # a leg
    assert found["last_before_head"] == pytest.approx(2 / 3)
    found = dense("sofa grey", "grey couch with sofa cover", VECTORS)
    assert found["head_near"] == pytest.approx(0.8)  # couch beside sofa
    assert found["head_last_near"] == pytest.approx(0.6)  # couch beside grey
    assert found["last_before_head"] == pytest.approx(1 / 2)
    none = dense("sofa", "", VECTORS)
    assert [none["head_near"], none["head_last_near"], none["last_before_head"]] == [0, 0, 1]


def test_bm25_and_rarity_by_hand() -> None:
    # Once in a title of 12 words: idf * 2.2 / (1 + 1.2) = idf.
    title = "tap " + " ".join(f"x{n}" for n in range(11))
    found = dense("tap yy", title, Lexicon.from_idf(np.full(1, 3.0, np.float32)))
    assert found["bm25"] == pytest.approx(3)
    assert [found["rarest_missing"], found["rarest"], found["query_idf"]] == [3, 3, 6]
    assert dense("tap", "tap")["rarest_missing"] == 0


def test_no_query_is_said() -> None:
    found = dense("", "a film", VECTORS)
    assert found["no_query"] == 1
    assert np.isfinite(list(found.values())).all()


def test_vectors_must_have_the_columns_that_are_wanted() -> None:
    with pytest.raises(ValueError, match="2 columns, 0 wanted"):
        featurize(encode(["a"]), encode(["b"]), spec=NgramSpec("match", 8), lexicon=VECTORS)
