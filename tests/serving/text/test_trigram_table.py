from itertools import islice, pairwise

import numpy as np
import pytest

from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.match_features import DENSE_NAMES, NUM_DENSE
from raydistill.serving.text.trigram_table import (
    TrigramTable,
    cover,
    find_trigrams,
    index_query,
    num_slots,
)
from raydistill.serving.tokenizer import encode

PLAIN = Lexicon.from_idf(np.ones(1, np.float32))
FACTOR = 0x9E3779B97F4A7C15


def colliding(num: int, num_grams: int, slot: int) -> np.ndarray:
    """`num` trigrams that all have one slot of a table of `num_grams`."""
    inverse, slots = pow(FACTOR, -1, 2**64), num_slots(num_grams)
    hashes = (2**64 // slots * slot + rest for rest in range(2**64 // slots))
    grams = (rest * inverse % 2**64 for rest in hashes)
    return np.array(list(islice((gram for gram in grams if gram < 2**63), num)), np.uint64)


def table_of(num_query: int, num_title: int) -> TrigramTable:
    """Memory of exactly the table's size, with other numbers in it."""
    sizes = (num_slots(num_query), num_query, num_query)
    numbers = (np.full(size, 12345, np.int32) for size in sizes)
    return TrigramTable(*numbers, np.ones(num_query, np.bool_), np.full(num_title, 12345, np.int32))


def check(query: np.ndarray, *titles: np.ndarray) -> int:
    """Compare with numpy: the titles one after the other; the number of chains."""
    table = table_of(len(query), max(map(len, titles)))
    index_query(query, table)
    for title in titles:
        assert find_trigrams(query, title, table) == np.isin(title, query).sum()
        hits = table.found_N[table.sames_N]
        assert hits.tolist() == np.isin(query, title).tolist()
    return int((table.firsts_S >= 0).sum())


@pytest.mark.parametrize("seed", range(20))
def test_random_trigrams_with_repeats(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known = rng.integers(0, 2**63, rng.integers(1, 500)).astype(np.uint64)
    query = rng.choice(known, rng.integers(1, 300))
    check(query, *(rng.choice(known, length) for length in (0, 1, 40, 1_000, 0, 40)))


@pytest.mark.parametrize("slot", [0, 511])
def test_trigrams_of_one_slot(slot: int) -> None:
    grams = colliding(80, 40, slot)
    assert num_slots(40) == 512
    assert check(grams[:40], grams[20:], np.roll(grams, 7), grams[:0], grams[40:]) == 1
    others = np.arange(1, 9, dtype=np.uint64)
    assert check(np.concatenate([others, grams[:32]]), grams, others[3:]) > 1


def test_a_long_query_has_more_slots() -> None:
    assert [num_slots(num) for num in (0, 1, 128, 129, 1_000)] == [512, 512, 512, 1_024, 4_096]
    check(np.arange(3_000, dtype=np.uint64) ** 2, np.arange(9_000, dtype=np.uint64))


def test_sides_without_trigrams() -> None:
    none, some = np.empty(0, np.uint64), np.arange(30, dtype=np.uint64)
    check(none, none, some, none)
    check(some, none)
    table, covered = table_of(0, 30), np.empty(0, np.float32)
    index_query(none, table)
    assert cover(none, some, table, covered) == (0, 0)


def by_hand(query: list[str], title: list[str]) -> dict[str, float]:
    """The features of trigrams, in plain Python."""
    spaced = [f" {' '.join(words)} " if words else "" for words in (query, title)]
    grams_q, grams_t = ([text[at : at + 3] for at in range(len(text) - 2)] for text in spaced)
    covered = []
    for word in query:
        own = [f" {word} "[at : at + 3] for at in range(len(word))]
        covered.append(sum(gram in grams_t for gram in own) / len(own))
    return {
        "query_trigrams_found": sum(g in grams_t for g in grams_q) / max(len(grams_q), 1),
        "title_trigrams_found": sum(g in grams_q for g in grams_t) / max(len(grams_t), 1),
        "query_part_found_least": min(covered, default=0),
        "query_part_found_last": covered[-1] if covered else 0,
        "query_bigrams_found": sum(
            two[1] in title and title.index(two[1]) > 0
            and title[title.index(two[1]) - 1] == two[0]
            for two in pairwise(query)
        ) / max(len(query) - 1, 1),
        "title_found": sum(word in query for word in title) / max(len(title), 1),
        "query_found_mean": sum(word in title for word in query) / max(len(query), 1),
    }  # fmt: skip


def test_features_of_random_words_are_those_of_plain_python() -> None:
    """Short and long texts in turn, some with letters from 1,024 on; 200 words: 1,000 chars."""
    rng = np.random.default_rng(1)
    known = ["".join(rng.choice(list("abcdéж"), size)) for size in rng.integers(1, 9, 60)]
    sizes = [(q, t) for q in (0, 1, 3, 7, 40) for t in (0, 1, 8, 200)]
    pairs = [tuple(rng.choice(known, n).tolist() for n in size) for size in sizes * 5]
    pairs = [pair for pair in pairs for _ in range(2)]  # the second time the query is as before
    texts = (encode([" ".join(pair[side]) for pair in pairs]) for side in (0, 1))
    rows = featurize(*texts, spec=NgramSpec("match", 16), lexicon=PLAIN).dense_BF[:, :NUM_DENSE]
    for row, (query, title) in zip(rows, pairs, strict=True):
        # é is read as e
        words = [[word.replace("é", "e") for word in side] for side in (query, title)]
        found = dict(zip(DENSE_NAMES, row.tolist(), strict=True))
        wanted = by_hand(*words)
        if query or title:
            assert {name: found[name] for name in wanted} == {
                name: pytest.approx(value, rel=1e-6) for name, value in wanted.items()
            }
