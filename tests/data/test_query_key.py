"""The key of a query: which changes of the text keep the key, and which change it."""

import random

import numpy as np
import pytest

from raydistill.data.query_key import query_keys
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.tokenizer import encode

SPEC, ONES = NgramSpec("match", 26, units=True), Lexicon.from_idf(np.ones(1, np.float32))


@pytest.mark.parametrize(
    "alike",
    [
        ("Grey Sofa", "grey  sofa", "sofa grey", "grey sofas", "SOFAS, grey!"),
        ("sofa bed", "sofabed", "bed sofa", "sofa beds"),
        ("box", "boxes"),
        ("house plants", "plant houses"),
        ("kitchen knife", "kitchen knives"),
        ("shelf", "shelves"),
        ("battery", "batteries"),
        ("toy", "toys"),
        ("glass", "glasses"),
        ("women's dress", "womens dresses", "women 's dress", "women\u2019s dress"),
        ("don't", "don\u2019t", "dont"),
        ("12V drill", "drill 12 v", "12-v drills"),
        ("灰色沙发", "沙发 灰色"),
        ("nike鞋", "nike 鞋"),
        ("iphones手机壳", "iphone 手机壳", "手机壳 iPhone"),
        ("Ångström", "ångström", "angstrom"),
        # What the features read as one.
        ('2" pan', "2 inch pan", "2 in. pans", "pan 2''"),
        ("12 volt drill", "12V drill"),
        ("1-1/2 in pipe", '1.5" pipe', "1½ inch pipe", "1 - 1/2 in pipe"),
        ("creme brulee", "crème brûlée"),
        ("5'x7' rug", "5 ft x 7 ft rug", "5 feet by 7 feet rug"),
        ("5000mAh", "5,000 mah"),
        ("wh1000xm4", "WH-1000XM4"),
        ("10 ft² film", "film 10 square feet"),
        ("strasse", "STRASSE", "straße"),
        ("iphone 13 cases", "iPhone13 case", "iphone-13 case"),
        ("10\u044515 см", "10 x 15 см"),
        ("red sofa", "re\u00add\u200b sofa \u2764\ufe0f"),
    ],
)
def test_near_identical_queries_have_one_key(alike: tuple[str, ...]) -> None:
    assert len(set(query_keys(encode(alike)).tolist())) == 1


@pytest.mark.slow
def test_spellings_that_the_features_read_as_one_have_one_key() -> None:
    """By construction: both are made from the same words. Here over many spellings."""
    chance = random.Random(0)
    pieces = [*"0123456789", *" .,/-'\"x%", "1/2", " in", " inch", '"', "mAh", " mah", "v", " volt"]
    pieces += ["sofa", "WH-", "wh", "é", "e", "ß", "ss", "½", " 1/2", "&quot;", "\u200d", " 000"]
    texts = ["".join(chance.choices(pieces, k=chance.randrange(1, 6))) for _ in range(20_000)]
    features = featurize(encode(texts), encode(texts), spec=SPEC, lexicon=ONES)
    ends = features.offsets[:: SPEC.num_bags]
    keys = query_keys(encode(texts))
    key_of: dict[bytes, int] = {}
    num_alike = 0
    for row, key in enumerate(keys.tolist()):
        ids = features.ids_N[ends[row] : ends[row + 1]]
        if len(ids) > 1:  # a text of signs alone has no words
            num_alike += ids.tobytes() in key_of
            assert key_of.setdefault(ids.tobytes(), key) == key, texts[row]
    assert num_alike > 1_000


def test_units_of_a_run_are_known_to_the_key() -> None:
    texts = encode(["2 carat ring", "2ct ring", "2 ct ring"])
    assert len(set(query_keys(texts).tolist())) == 2
    assert len(set(query_keys(texts, extra_units=(("carat", "ct"),)).tolist())) == 1


def test_other_queries_have_other_keys() -> None:
    texts = ["sofa", "sofa grey", "12 v drill", "21 v drill", "1.5 in", "15 in", "?", "!", "沙发"]
    texts += [f"query {n}" for n in range(10_000)]
    keys = query_keys(encode(texts))
    assert len(np.unique(keys)) == len(texts)
    assert np.array_equal(query_keys(encode(texts[::-1])), keys[::-1])
    assert query_keys(encode([])).shape == (0,)
