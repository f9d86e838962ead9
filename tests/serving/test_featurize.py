import numpy as np
import pyarrow as pa
import pytest

from raydistill.data.pairs import normalise
from raydistill.serving.feature_spec import Features, NgramSpec, concatenate
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.match_features import DENSE_NAMES
from raydistill.serving.text.arrow_text import to_texts
from raydistill.serving.tokenizer import encode
from raydistill.student.lexicon.document_counts import IDF_BITS, document_counts, idf

PAPER = NgramSpec("bert2dnn", 16)
MATCH = NgramSpec("match", 16)
UNITS = NgramSpec("match", 16, units=True)
ONES = Lexicon.from_idf(np.ones(1, np.float32))
ODD = ["", "a", "Grey SOFA, 3-seat", "1/2 in. tap", "women's", "沙发灰色", "größe İstanbul ΣΑΣ",
       "naïve café", "a\u200bb", "🛋 sofa", "x" * 300, "ตู้เย็น", "\uff11\uff12 \ufb01x",
       "pipe 1  1/2\tin", "5\u200b in", "dcd\u00ad771 in",
       "women  's can't don'\u200bt women '\u00ads a\u00ad's",
       "1-\u00ad1/2\ufeff\" 5½ l"]  # fmt: skip


def features(query: str, title: str, spec: NgramSpec = MATCH) -> Features:
    return featurize(encode([query]), encode([title]), spec=spec, lexicon=ONES)


def test_n_words_give_2n_plus_1_ngrams() -> None:
    assert len(features("grey sofa", "a b c", PAPER).ids_N) == (2 * 2 + 1) + (2 * 3 + 1)
    assert len(features("", "a b c", PAPER).ids_N) == 2 * 3 + 1  # a single text


def test_the_papers_ids_ignore_case_and_keep_punctuation() -> None:
    assert (
        features("q", "Grey SOFA", PAPER).ids_N == features("q", "grey sofa", PAPER).ids_N
    ).all()
    assert set(features("q", "sofa,", PAPER).ids_N) != set(features("q", "sofa", PAPER).ids_N)
    assert set(features("q", "sofa,").ids_N) == set(features("q", "sofa").ids_N)


def test_character_ngrams_by_hand() -> None:
    # " ab " and " ab cd ": two and five windows of three characters.
    found = features("Ab", "ab-cd", NgramSpec("match", 16, char_ngrams=3))
    assert np.diff(found.offsets).tolist() == [3 + 5, 3 - 1, 2, 5]
    query, title = found.ids_N[-7:-5], found.ids_N[-5:]
    assert query.tolist() == title[:2].tolist()
    assert len(set(title.tolist())) == 5
    assert len(features("", "", NgramSpec("match", 16, char_ngrams=3)).ids_N) == 1


def test_order_shows_in_bigrams_alone() -> None:
    ab, ba = (set(features("", t, PAPER).ids_N) for t in ("a b", "b a"))
    assert len(ab & ba) == 2


def test_matched_and_unmatched_words_by_hand() -> None:
    found = features("grey sofa", "sofa cover")
    assert np.diff(found.offsets).tolist() == [10, 3]  # bag 1: grey missing, sofa matched, cover
    tagged = found.ids_N[10:]
    assert tagged[1] == features("sofa", "sofa").ids_N[-1]  # the same word, matched
    assert tagged[0] != features("grey", "grey").ids_N[-1]


def test_idf_weighs_rare_words_more() -> None:
    counts = document_counts(encode(["grey sofa", "grey bed grey", "grey"]), units=True)
    assert sorted(counts[counts > 0].tolist()) == [1, 1, 3]
    weights = idf(counts, num_documents=3)
    assert weights.max() == pytest.approx(np.log(4))  # a word never seen
    assert len(weights) == 1 << IDF_BITS
    texts = encode(["grey sofa"] * 2), encode(["grey", "sofa"])
    both = featurize(*texts, spec=MATCH, lexicon=Lexicon.from_idf(weights))
    common, rare = both.dense_BF[:, DENSE_NAMES.index("query_found_idf")]
    assert common == 0 and rare == 1  # every title has grey: ln(4 / 4) = 0


def test_numbers_fractions_and_scripts_are_words() -> None:
    words = lambda text: (len(features("", text).ids_N) - 1) // 3  # noqa: E731 - 2n + 1 and n tagged
    assert words("1/2 in. 0.5 x") == 4
    assert words("women's") == 1
    assert words("3-seat sofa") == 3
    assert words("沙发 ab") == 3


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("it isn't good", "it is nt good"),
        ("do n't, don\u2019t", "do nt do nt"),
        ("n't don't", "nt do nt"),
        ("ISN'T", "is nt"),
        ("women 's and women's", "womens and womens"),
        ("we 're they 've i 'd you 'll i 'm", "were theyve id youll im"),
        ("isn'ts n'tn ain't", "isnts ntn ai nt"),
        ("steel 'S' hooks in 's', 'm'", "steel s hooks in s m"),
        ("8 's 5 'x y ' s a 'sa", "8 s 5 x y s a sa"),  # no word's end, or a number's
    ],
)
def test_contractions_have_one_spelling(written: str, read: str) -> None:
    for spec in (MATCH, UNITS):
        found, plain = (features("", text, spec=spec) for text in (written, read))
        assert found.ids_N.tolist() == plain.ids_N.tolist()
        assert found.dense_BF.tolist() == plain.dense_BF.tolist()


@pytest.mark.parametrize("spec", [PAPER, MATCH, UNITS])
def test_training_and_serving_see_the_same(spec: NgramSpec) -> None:
    """Arrow's cleaned column and Python's raw strings give the same features."""
    rng = np.random.default_rng(0)
    queries = [ODD[i] for i in rng.integers(0, len(ODD), 200)]
    titles = [ODD[i] + "  " + ODD[j] for i, j in rng.integers(0, len(ODD), (200, 2))]
    by_arrow = featurize(
        to_texts(normalise(pa.array(queries))),
        to_texts(normalise(pa.array(titles))),
        spec=spec,
        lexicon=ONES,
    )
    by_strings = featurize(encode(queries), encode(titles), spec=spec, lexicon=ONES)
    assert (by_arrow.ids_N == by_strings.ids_N).all()
    assert (by_arrow.offsets == by_strings.offsets).all()
    assert (by_arrow.dense_BF == by_strings.dense_BF).all()


def test_a_pair_does_not_depend_on_its_neighbours() -> None:
    together = featurize(encode(ODD), encode(ODD[::-1]), spec=MATCH, lexicon=ONES)
    alone = [features(q, t) for q, t in zip(ODD, ODD[::-1], strict=True)]
    joined = concatenate(alone)
    assert (joined.ids_N == together.ids_N).all()
    assert (joined.dense_BF == together.dense_BF).all()


def test_take_gives_those_pairs() -> None:
    together = featurize(encode(ODD), encode(ODD[::-1]), spec=MATCH, lexicon=ONES)
    taken = together.take(np.array([4, 2]))
    expected = concatenate([features(ODD[4], ODD[-5]), features(ODD[2], ODD[-3])])
    assert (taken.ids_N == expected.ids_N).all()
    assert (taken.offsets == expected.offsets).all()
    assert together.take(np.empty(0, np.int64)).num_pairs == 0


def test_ids_fit_the_table() -> None:
    tiny = NgramSpec("match", 8)
    found = featurize(encode(ODD), encode(ODD), spec=tiny, lexicon=ONES)
    assert found.ids_N.min() >= 0 and found.ids_N.max() < 256


def test_many_rows_over_several_blocks() -> None:
    queries, titles = [f"q {n}" for n in range(20_000)], [f"t {n} x" for n in range(20_000)]
    found = featurize(encode(queries), encode(titles), spec=PAPER, lexicon=ONES)
    assert found.num_pairs == 20_000
    assert (np.diff(found.offsets) == 5 + 7).all()
    last = features(queries[-1], titles[-1], PAPER)
    assert (found.ids_N[-12:] == last.ids_N).all()


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="1 queries for 2 titles"):
        featurize(encode(["a"]), encode(["a", "b"]), spec=PAPER, lexicon=ONES)


def test_nothing_in_nothing_out() -> None:
    assert featurize(encode([]), encode([]), spec=MATCH, lexicon=ONES).num_pairs == 0
