"""A fictitious shop: from a seed to a catalogue, a query log, judged pairs and transfer pairs.

Relevance is a function of the query's intent and the product (`relevance`), never of shared words:
synonyms, units and accessories make the two differ, as in a real shop. All words and shares are in
shop_words.toml. The numbers imitate no real shop.
"""

import random
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.demo.shop_text import (
    ATTRIBUTES,
    AttributeCatalog,
    Item,
    Kind,
    Writer,
    load_kinds,
    misspell,
)

Ids = NDArray[np.int32]

NONE = -1  # attribute not stated

# Quarters of a grade subtracted for a stated attribute that differs.
PENALTIES = {"brand": 2, "colour": 2, "material": 2, "style": 2, "pack": 2, "size": 3, "model": 3}
NEAR_SHADE_PENALTY = 1

# Last element of a random stream's seed. Never 0: numpy gives [seed] and [seed, 0] one stream.
_BUILD, _JUDGED, _TRANSFER = 1, 2, 3


@dataclass(frozen=True, eq=False, kw_only=True)
class Facts:
    """Intents of queries, or products: ids, one array a column; NONE means not stated.

    `kind` is the product type. `group` contains the types that are partly acceptable for it (an
    accessory is alone in its group, with an id below NONE). `shade` is the family of near colours.
    """

    kind: Ids | int
    group: Ids | int
    brand: Ids | int = NONE
    colour: Ids | int = NONE
    shade: Ids | int = NONE
    material: Ids | int = NONE
    style: Ids | int = NONE
    size: Ids | int = NONE
    pack: Ids | int = NONE
    model: Ids | int = NONE

    def take(self, rows: NDArray[np.int64]) -> "Facts":
        """The given rows, in the shape of `rows`."""
        return Facts(**{f.name: np.asarray(getattr(self, f.name))[rows] for f in fields(self)})


def relevance(intent: Facts, product: Facts) -> NDArray[np.float32]:
    """True grade of products for intents, row by row (shapes broadcast).

    1 if the type and all stated attributes agree. Each mismatch subtracts one to three quarters
    (`PENALTIES`), down to 0.25 for the right type. 0.25 for another type of the group; else 0.
    """
    lost: Any = 0
    for attribute, penalty in PENALTIES.items():
        asked, given = getattr(intent, attribute), getattr(product, attribute)
        missed: Any = np.not_equal(asked, NONE) & np.not_equal(asked, given)
        if attribute == "colour":
            near = np.equal(intent.shade, product.shade)
            lost = lost + missed * np.where(near, NEAR_SHADE_PENALTY, penalty)
        else:
            lost = lost + missed * penalty
    same_kind = np.equal(intent.kind, product.kind)
    same_group = np.equal(intent.group, product.group)
    quarters = np.where(same_kind, np.maximum(4 - lost, 1), np.where(same_group, 1, 0))
    return np.asarray(quarters / 4, dtype=np.float32)


def _to_facts(items: Sequence[Item], kinds: Sequence[Kind], catalog: AttributeCatalog) -> Facts:
    # An accessory substitutes for nothing: it is alone in its group.
    groups = [NONE - 1 - k if kind.part else kind.group for k, kind in enumerate(kinds)]
    columns = {a: [item.stated.get(a, NONE) for item in items] for a in ATTRIBUTES}
    columns["shade"] = [catalog.shades.get(colour, NONE) for colour in columns["colour"]]
    columns["kind"] = [item.kind for item in items]
    columns["group"] = [groups[item.kind] for item in items]
    return Facts(**{name: np.array(ids, dtype=np.int32) for name, ids in columns.items()})


def _make_catalogue(
    writer: Writer, kinds: Sequence[Kind], *, num_products: int, rng: np.random.Generator
) -> list[Item]:
    """Products in the order of their kinds; the popularity of types varies."""
    popularity = np.exp(0.7 * rng.standard_normal(len(kinds)))
    num_parts = np.bincount([kind.main for kind in kinds]) - 1
    for k, kind in enumerate(kinds):
        if kind.part:  # all accessories of a type together have 0.4 times the type's popularity
            popularity[k] = popularity[kind.main] * 0.4 / num_parts[kind.main]
    counts = rng.multinomial(num_products, popularity / popularity.sum())
    made: list[Item] = []
    mains: dict[int, list[Item]] = {}
    for k, kind in enumerate(kinds):
        if not kind.part:
            mains[k] = [writer.draw_main(k) for _ in range(counts[k])]
            made += mains[k]
            continue
        sold = mains[kind.main] or [writer.draw_main(kind.main)]
        made += [writer.draw_part(k, sold[rng.integers(len(sold))]) for _ in range(counts[k])]
    return made


def _make_queries(
    writer: Writer,
    kinds: Sequence[Kind],
    *,
    products: Sequence[Item],
    num_queries: int,
    chance: random.Random,
) -> dict[str, Item]:
    """Distinct queries with their intents, most frequent first.

    A query with fewer attributes is more frequent; misspelt queries and accessories are rarer.
    """
    found: dict[str, tuple[float, str, Item]] = {}
    # Two of three draws are new; the limit ends the loop if the catalogue is too small.
    for row in chance.choices(range(len(products)), k=10 * num_queries + 1000):
        text, intent = writer.query(writer.intent(products[row]))
        typed = misspell(text, chance) if chance.random() < 0.1 else text
        rank = len(intent.stated) + 1.5 * (typed != text) + 0.7 * bool(kinds[intent.kind].part)
        # Lower-cased: after prepare Sofa and sofa are one query.
        found.setdefault(typed.lower(), (chance.gauss(rank, 0.5), typed, intent))
        if len(found) == num_queries:
            return {
                typed: intent for _, typed, intent in sorted(found.values(), key=lambda f: f[0])
            }
    raise ValueError(
        f"only {len(found)} different queries can be asked of {len(products)} products, "
        f"num_queries is {num_queries}; give fewer queries or more products"
    )


@dataclass(frozen=True, eq=False)
class _Shelves:
    """Products to draw for a query: `pool[start : start + size]` by query and source."""

    pool: NDArray[np.int32]
    start: NDArray[np.int64]
    size: NDArray[np.int64]

    def draw(
        self, queries: NDArray[np.int64], *, shares: Sequence[float], rng: np.random.Generator
    ) -> NDArray[np.int32]:
        """A product for each query; `shares` are the sources' probabilities, sum 1."""
        source = np.searchsorted(np.cumsum(shares)[:-1], rng.random(len(queries)))
        size = self.size[queries, source]
        at = self.start[queries, source] + (rng.random(len(queries)) * size).astype(np.int64)
        return self.pool[at]


def _ranges(
    kinds: Sequence[Kind], intents: Facts, products: Facts
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Start and size by query: products are sorted by kind, so a type is a range of products."""
    keys_by_source: dict[str, list[Any]] = {
        "kind": list(range(len(kinds))),
        "family": [kind.main for kind in kinds],
        "group": [kind.group for kind in kinds],
        "department": [kind.department for kind in kinds],
        "anything": [None] * len(kinds),
    }
    of_query = np.asarray(intents.kind)
    found: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    for source, keys in keys_by_source.items():
        last = {key: k for k, key in enumerate(keys)}
        begin = np.searchsorted(products.kind, [keys.index(key) for key in keys])
        end = np.searchsorted(products.kind, [last[key] for key in keys], side="right")
        if source == "family":  # for a main product only its accessories, which follow it
            begin = np.where([not kind.part for kind in kinds], found["kind"][1], begin)
        found[source] = (begin, end)
    return {s: (begin[of_query], (end - begin)[of_query]) for s, (begin, end) in found.items()}


def _relevant_products(intents: Facts, products: Facts) -> list[NDArray[np.int64]]:
    """Products of grade 1 for each query; they all have the query's type."""
    found = [np.empty(0, dtype=np.int64)] * len(np.asarray(intents.kind))
    for kind in np.unique(intents.kind):  # one block of queries x products for each type
        queries = np.flatnonzero(np.equal(intents.kind, kind))
        sold = np.flatnonzero(np.equal(products.kind, kind))
        grades = relevance(intents.take(queries[:, None]), products.take(sold[None, :]))
        for query, row in zip(queries, grades == 1, strict=True):
            found[query] = sold[row]
    return found


def _products_by_word(titles: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for row, title in enumerate(titles):
        for word in set(title.lower().replace(",", " ").split()):
            found[word].append(row)
    return found


def _arrange(
    kinds: Sequence[Kind],
    *,
    sources: Sequence[str],
    queries: Sequence[str],
    titles: Sequence[str],
    intents: Facts,
    products: Facts,
) -> _Shelves:
    ranges = _ranges(kinds, intents, products)
    lists: list[Any] = _relevant_products(intents, products)
    place = {"relevant": np.arange(len(queries))}
    by_word = _products_by_word(titles)
    # The empty list is for words that no title has.
    of_word = {word: len(lists) + i for i, word in enumerate([*by_word, ""])}
    lists += [*by_word.values(), []]
    for n in range(3):
        words = [(words := query.lower().split())[n % len(words)] for query in queries]
        place[f"word_{n}"] = np.array([of_word.get(word, of_word[""]) for word in words])
    sizes = np.array([len(rows) for rows in lists])
    starts = len(titles) + np.cumsum(sizes) - sizes  # after the catalogue, the pool's first part
    ranges |= {source: (starts[at], sizes[at]) for source, at in place.items()}
    start = np.stack([ranges[source][0] for source in sources], axis=1)
    size = np.stack([ranges[source][1] for source in sources], axis=1)
    pool = np.concatenate([np.arange(len(titles)), *lists]).astype(np.int32)
    # An empty list, for instance of a misspelt word: draw from all products instead.
    return _Shelves(pool, np.where(size > 0, start, 0), np.where(size > 0, size, len(titles)))


def _rate(grades: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Mean of three raters who give 0, 0.25 .. 1 and err in 8 % of cases, mostly by one step."""
    quarters = np.repeat(np.rint(grades * 4).astype(np.int64)[:, None], 3, axis=1)
    steps = rng.choice([-2, -1, 0, 1, 2], size=quarters.shape, p=[0.005, 0.035, 0.92, 0.035, 0.005])
    # Reflected at the ends: clipping would remove half of the errors at the most frequent grades.
    rated = 4 - np.abs(4 - np.abs(quarters + steps))
    return np.asarray(rated.mean(axis=1) / 4, dtype=np.float32)


@dataclass(frozen=True, eq=False, kw_only=True)
class Shop:
    """Catalogue and query log.

    Attributes:
        seed: the seed of all random choices.
        queries: distinct query texts, the most frequent first.
        query_shares: relative frequency of each query, sum 1.
        intents: the intent of each query.
        titles: product titles, by type.
        products: the facts of each product.
    """

    seed: int
    queries: pa.StringArray
    query_shares: NDArray[np.float64]
    intents: Facts
    titles: pa.StringArray
    products: Facts
    _shelves: _Shelves
    _mixtures: Mapping[str, Sequence[float]]

    def __repr__(self) -> str:
        """One line: a failing test must not print the catalogue."""
        sizes = f"{len(self.titles)} products, {len(self.queries)} queries"
        return f"Shop(seed={self.seed}, {sizes})"

    @classmethod
    def build(cls, *, seed: int = 0, num_products: int = 20_000, num_queries: int = 6_000) -> Self:
        """Make the shop in about 1 s; equal arguments (and numpy version) give an equal shop."""
        if min(num_products, num_queries) < 1:
            raise ValueError(
                f"num_products is {num_products} and num_queries {num_queries}; give 1 or more"
            )
        chance, rng = random.Random(seed), np.random.default_rng([seed, _BUILD])
        with (resources.files("raydistill.demo") / "shop_words.toml").open("rb") as file:
            catalog = AttributeCatalog(tomllib.load(file), chance)
        kinds = load_kinds(catalog)
        writer = Writer(catalog, kinds, chance)
        items = _make_catalogue(writer, kinds, num_products=num_products, rng=rng)
        titles = [writer.title(item) for item in items]
        asked = _make_queries(writer, kinds, products=items, num_queries=num_queries, chance=chance)
        queries = list(asked)
        products = _to_facts(items, kinds, catalog)
        intents = _to_facts(list(asked.values()), kinds, catalog)
        # Zipf with Mandelbrot's shift: without the shift a few queries would be half of the log.
        shares = (np.arange(num_queries) + 10.0) ** -0.82
        mixtures = dict(catalog.words["mixtures"])
        sources = mixtures.pop("sources")
        return cls(
            seed=seed,
            queries=pa.array(queries, pa.string()),
            query_shares=shares / shares.sum(),
            intents=intents,
            titles=pa.array(titles, pa.string()),
            products=products,
            _shelves=_arrange(
                kinds,
                sources=sources,
                queries=queries,
                titles=titles,
                intents=intents,
                products=products,
            ),
            _mixtures=mixtures,
        )

    def transfer_pairs(self, shard: int, *, num_rows: int) -> pa.Table:
        """One shard of the log, columns `query` and `title`; a function of its arguments only.

        A frequent query has the same title more than once, as in a log.
        """
        rng = np.random.default_rng([self.seed, _TRANSFER, shard])
        edges = np.cumsum(self.query_shares)[:-1]
        queries = np.searchsorted(edges, rng.random(num_rows), side="right")
        products = self._shelves.draw(queries, shares=self._mixtures["transfer"], rng=rng)
        return pa.table({"query": self.queries.take(queries), "title": self.titles.take(products)})

    def judged_pairs(self, *, num_rows: int) -> pa.Table:
        """Distinct pairs with their `label`, 5 to 8 titles a query; more if queries run out."""
        # Beyond 1 % of the catalogue a query gets few new products from a draw.
        limit = len(self.queries) * min(len(self.titles), max(16, len(self.titles) // 100))
        if num_rows > limit:
            raise ValueError(
                f"num_rows is {num_rows}, this shop has at most {limit} judged pairs; "
                "ask for fewer or build a larger shop"
            )
        rng = np.random.default_rng([self.seed, _JUDGED])
        pairs = np.empty(0, dtype=np.int64)
        while len(pairs) < num_rows:  # each turn uses every query once
            turn = rng.permutation(len(self.queries)).repeat(rng.integers(5, 9, len(self.queries)))
            drawn = turn * len(self.titles) + self._shelves.draw(
                turn, shares=self._mixtures["judged"], rng=rng
            )
            pairs = np.concatenate([pairs, drawn])
            pairs = pairs[np.sort(np.unique(pairs, return_index=True)[1])]
        queries, products = np.divmod(pairs[:num_rows], len(self.titles))
        grades = relevance(self.intents.take(queries), self.products.take(products))
        table = {"query": self.queries.take(queries), "title": self.titles.take(products)}
        return pa.table(table | {"label": _rate(grades, rng)})
