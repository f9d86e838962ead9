"""The key of a query: what may change without changing it, and what may not."""

import numpy as np
import pytest

from raydistill.keys import query_keys
from raydistill.words import encode


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
        ("Ångström", "ångström"),
    ],
)
def test_near_identical_queries_have_one_key(alike: tuple[str, ...]) -> None:
    assert len(set(query_keys(encode(alike)).tolist())) == 1


def test_other_queries_have_other_keys() -> None:
    texts = ["sofa", "sofa grey", "12 v drill", "21 v drill", "1.5 in", "15 in", "?", "!", "沙发"]
    texts += [f"query {n}" for n in range(10_000)]
    keys = query_keys(encode(texts))
    assert len(np.unique(keys)) == len(texts)
    assert np.array_equal(query_keys(encode(texts[::-1])), keys[::-1])
    assert query_keys(encode([])).shape == (0,)
