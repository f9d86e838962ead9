"""The made-up shop: relevance by hand, and statistics as in a real log."""

import re

import numpy as np
import pyarrow as pa
import pytest

from raydistill.demo.shop import PENALTIES, Facts, Shop, relevance
from raydistill.demo.shop_text import ATTRIBUTES

# Ids in the hand-written facts: two seats of one group, a cover in no other's group, a drill.
SOFA, ARMCHAIR, SOFA_COVER, DRILL = 0, 1, 2, 9
SEATING, TOOLS = 0, 9
GRAY, CHARCOAL, RED = 20, 21, 22
DARK, WARM = 5, 6


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop.build()


@pytest.fixture(scope="module")
def judged(shop: Shop) -> pa.Table:
    return shop.judged_pairs(num_rows=8_000)


def sofa(**facts: int) -> Facts:
    return Facts(kind=SOFA, group=SEATING, **facts)


def grades(shop: Shop, query_row: int) -> np.ndarray:
    return relevance(shop.intents.take(np.array([query_row])), shop.products)


def share_of_words_found(pairs: pa.Table) -> np.ndarray:
    def words(text: str) -> set[str]:
        return set(text.lower().replace(",", " ").split())

    return np.array(
        [
            len(words(q) & words(t)) / len(words(q))
            for q, t in zip(pairs["query"].to_pylist(), pairs["title"].to_pylist(), strict=True)
        ]
    )


def auc(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Share of (relevant, other) pairs in the right order; a tie is half."""
    good, bad = scores[relevant][:, None], np.sort(scores[~relevant])
    below = np.searchsorted(bad, good) + np.searchsorted(bad, good, side="right")
    return float(below.mean() / 2 / len(bad))


# --- relevance, written by hand


@pytest.mark.parametrize(
    ("asked", "given", "grade"),
    [
        ({}, {"brand": 7, "size": 60}, 1.0),  # what is not asked does not matter
        ({"brand": 7, "size": 60}, {"brand": 7, "size": 60, "pack": 2}, 1.0),
        ({"colour": GRAY}, {"colour": CHARCOAL, "shade": DARK}, 0.75),
        ({"colour": GRAY}, {"colour": RED, "shade": WARM}, 0.5),
        ({"colour": GRAY}, {}, 0.5),
        ({"brand": 7}, {"brand": 8}, 0.5),
        ({"size": 60}, {"size": 72}, 0.25),
        ({"model": 4021}, {"model": 4022}, 0.25),
        ({"brand": 7, "size": 60, "style": 3}, {"brand": 8}, 0.25),  # never less for the type
    ],
)
def test_relevance_of_the_right_type(
    asked: dict[str, int], given: dict[str, int], grade: float
) -> None:
    shade = {"shade": DARK} if "colour" in asked else {}
    assert relevance(sofa(**asked, **shade), sofa(**given)) == grade


def test_relevance_of_other_types() -> None:
    products = Facts(
        kind=np.array([SOFA, ARMCHAIR, SOFA_COVER, DRILL], dtype=np.int32),
        group=np.array([SEATING, SEATING, -3, TOOLS], dtype=np.int32),
        brand=7,
    )
    assert relevance(sofa(brand=7), products).tolist() == [1.0, 0.25, 0.0, 0.0]
    cover = Facts(kind=SOFA_COVER, group=-3)
    assert relevance(cover, products).tolist() == [0.0, 0.0, 1.0, 0.0]
    assert relevance(cover, products).dtype == np.float32


def test_every_attribute_has_its_penalty() -> None:
    assert set(PENALTIES) == set(ATTRIBUTES)


# --- the shop


def test_a_shop_prints_as_one_line(shop: Shop) -> None:
    assert repr(shop) == "Shop(seed=0, 20000 products, 6000 queries)"


def test_the_seed_decides_everything() -> None:
    def build(seed: int) -> list[pa.Table]:
        shop = Shop.build(seed=seed, num_products=800, num_queries=200)
        return [shop.transfer_pairs(3, num_rows=500), shop.judged_pairs(num_rows=500)]

    first = build(7)
    assert build(7) == first
    for one, other in zip(first, build(8), strict=True):
        assert one != other


def test_shards_differ_and_do_not_depend_on_each_other(shop: Shop) -> None:
    backwards = {s: shop.transfer_pairs(s, num_rows=1_000) for s in (5, 1, 0)}
    assert shop.transfer_pairs(5, num_rows=1_000) == backwards[5]
    assert shop.transfer_pairs(0, num_rows=1_000) == backwards[0]
    pairs = [set(zip(*t.to_pydict().values(), strict=True)) for t in backwards.values()]
    assert len(pairs[0] & pairs[1]) < 100  # frequent queries only
    assert backwards[0].schema == pa.schema({"query": pa.string(), "title": pa.string()})
    assert shop.transfer_pairs(0, num_rows=0).num_rows == 0


def test_labels(judged: pa.Table) -> None:
    labels = judged["label"].to_numpy()
    assert judged.num_rows == 8_000
    assert judged.schema.field("label").type == pa.float32()
    assert labels.min() == 0
    assert labels.max() == 1
    assert len(np.unique(labels)) > 8  # three raters in quarters: graded
    assert 0.35 <= (labels >= 0.75).mean() <= 0.50


def test_labels_are_close_to_the_true_grade(judged: pa.Table) -> None:
    labels = judged["label"].to_numpy()
    # 8 % of ratings are off by 0.25 or 0.5: a mean is off in 1 - 0.92**3 = 22 % at the most.
    on_a_quarter = np.isclose(labels * 4, np.rint(labels * 4))
    assert 0.70 < on_a_quarter.mean() < 0.90


def test_judged_pairs_are_distinct_with_five_to_eight_titles_a_query(shop: Shop) -> None:
    few = shop.judged_pairs(num_rows=500)
    assert len(set(zip(few["query"].to_pylist(), few["title"].to_pylist(), strict=True))) > 490
    counts = np.unique(few["query"].to_pylist(), return_counts=True)[1]
    assert 5 <= counts.mean() <= 8
    with pytest.raises(ValueError, match="ask for fewer or build a larger shop"):
        shop.judged_pairs(num_rows=10_000_000)


def test_impossible_shops_are_refused() -> None:
    with pytest.raises(ValueError, match="num_products is 0"):
        Shop.build(num_products=0)
    with pytest.raises(ValueError, match="give fewer queries or more products"):
        Shop.build(seed=1, num_products=1, num_queries=1_000)


@pytest.mark.parametrize(
    "names",
    [
        ("sofa", "couch", "settee"),
        ("bathroom faucet", "bathroom tap"),
        ("light bulb", "lightbulb", "lamp bulb"),
    ],
)
def test_a_synonym_is_as_good_as_the_same_word(shop: Shop, names: tuple[str, ...]) -> None:
    queries = [query.lower() for query in shop.queries.to_pylist()]
    titles = [title.lower() for title in shop.titles.to_pylist()]
    asked = [name for name in names if name in queries]
    assert asked
    for query in asked:
        relevant = grades(shop, queries.index(query)) == 1
        for name in names:
            in_title = np.array([name in title for title in titles])
            assert (relevant & in_title).any(), f"{query}: no title with {name}"
        types = np.asarray(shop.products.kind)[relevant]
        assert len(set(types)) == 1
        assert (np.asarray(shop.products.kind) == types[0]).sum() == relevant.sum()


def test_an_accessory_with_all_the_words_is_not_relevant_but_serves_its_own_query(
    shop: Shop,
) -> None:
    queries = [query.lower() for query in shop.queries.to_pylist()]
    titles = [set(title.lower().split()) for title in shop.titles.to_pylist()]
    accessory = np.asarray(shop.products.group) < -1
    for query, for_the_accessory in [("air purifier", "filter"), ("frying pan", "lid")]:
        row = queries.index(query)
        with_all_words = np.array([set(query.split()) <= title for title in titles])
        assert (with_all_words & accessory).sum() >= 20
        assert grades(shop, row)[with_all_words & accessory].max() == 0
        own = [i for i, q in enumerate(queries) if q.endswith(f"{query} {for_the_accessory}")]
        assert own
        for i in own:
            assert grades(shop, i)[accessory].max() == 1
            assert grades(shop, i)[~accessory].max() == 0


def test_attributes_decide_relevance_and_words_alone_do_not(shop: Shop, judged: pa.Table) -> None:
    relevant = judged["label"].to_numpy() >= 0.75
    row_of_query = {query: row for row, query in enumerate(shop.queries.to_pylist())}
    row_of_title = {title: row for row, title in enumerate(shop.titles.to_pylist())}
    intents = shop.intents.take(np.array([row_of_query[q] for q in judged["query"].to_pylist()]))
    products = shop.products.take(np.array([row_of_title[t] for t in judged["title"].to_pylist()]))
    assert auc(relevance(intents, products), relevant) > 0.97
    assert 0.6 < auc(share_of_words_found(judged), relevant) < 0.8  # 0.79


@pytest.mark.parametrize(
    "spellings",
    [
        ("1/2 in.", '1/2"', "1/2-inch", "0.5 inch"),
        ("18v", "18 volt", "18-volt"),
        ("5 gal", "5 gallon", "5-gallon"),
        ("6 ft", "72 in", "6'"),
        ("gray", "grey"),
        ("pack of 2", "2-pack", "set of 2"),
    ],
)
def test_titles_spell_the_same_thing_in_several_ways(shop: Shop, spellings: tuple[str]) -> None:
    titles = [title.lower() for title in shop.titles.to_pylist()]
    for spelling in spellings:
        assert any(re.search(rf"(?<![\w.]){re.escape(spelling)}", t) for t in titles), spelling


def test_queries_are_short_distinct_and_mostly_lower_case(shop: Shop) -> None:
    queries = shop.queries.to_pylist()
    assert len({query.lower() for query in queries}) == len(queries) == 6_000
    lengths = [len(query.split()) for query in queries]
    assert min(lengths) == 1
    assert 2 <= np.median(lengths) <= 5
    assert 0.01 < np.mean([query != query.lower() for query in queries]) < 0.10
    assert any(re.fullmatch(r"[a-z]{2}-?\d{3,4}[bsx]?", query) for query in queries)  # a model


@pytest.mark.slow
def test_a_few_queries_are_asked_far_more_often_than_most(shop: Shop) -> None:
    pairs = shop.transfer_pairs(0, num_rows=200_000)
    counts = pairs.group_by("query").aggregate([([], "count_all")])["count_all"].to_numpy()
    assert counts.max() > 30 * np.median(counts)
    distinct = pairs.group_by(["query", "title"]).aggregate([]).num_rows
    assert 0.75 < distinct / 200_000 < 1  # as a log: the same title comes again, but not mostly
