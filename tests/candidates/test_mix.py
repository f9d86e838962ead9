"""The selection of candidate titles for a query."""

import numpy as np
import pytest

from raydistill.candidates.mix import Mix, choose
from raydistill.errors import UserError


def draw(ranked: list[int], *, num_titles: int, mix: Mix, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    found = choose(np.array(ranked, np.int64), num_titles=num_titles, mix=mix, rng=rng)
    return [part.tolist() for part in found]


@pytest.mark.parametrize("num_titles", [1_000, 1_000_000])
def test_first_ranks_then_some_of_the_later_ones_then_others(num_titles: int) -> None:
    ranked = list(range(100, 130))
    mix = Mix(top=3, middle=4, random=5, max_rank=30)
    rows, kinds, ranks = draw(ranked, num_titles=num_titles, mix=mix)
    assert kinds == [0] * 3 + [1] * 4 + [2] * 5
    assert ranks[:3] == [1, 2, 3] and ranks[7:] == [0] * 5
    assert ranks[3:7] == sorted(set(ranks[3:7])) and 4 <= ranks[3] and ranks[6] <= 30
    assert rows[:7] == [99 + rank for rank in ranks[:7]]
    assert len(set(rows)) == 12 and not set(rows[7:]) & set(ranked)
    assert draw(ranked, num_titles=num_titles, mix=mix) == [rows, kinds, ranks]
    assert draw(ranked, num_titles=num_titles, mix=mix, seed=1) != [rows, kinds, ranks]


def test_where_there_are_fewer_there_are_fewer() -> None:
    mix = Mix(top=3, middle=4, random=5, max_rank=30)
    rows, kinds, ranks = draw([6, 2, 4, 0], num_titles=7, mix=mix)
    assert rows[:4] == [6, 2, 4, 0] and sorted(rows[4:]) == [1, 3, 5]
    assert (kinds, ranks) == ([0, 0, 0, 1, 2, 2, 2], [1, 2, 3, 4, 0, 0, 0])
    assert len(draw([], num_titles=7, mix=mix)[0]) == 5


def test_middle_ranks_are_drawn_evenly() -> None:
    mix = Mix(top=2, middle=1, random=0, max_rank=6)
    ranks = [draw(list(range(6)), num_titles=6, mix=mix, seed=s)[2][2] for s in range(400)]
    assert sorted(set(ranks)) == [3, 4, 5, 6]
    assert min(np.bincount(ranks)[3:]) > 70  # 100 expected, deviation 9


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"top": -1}, "top = -1"),
        ({"top": 0, "middle": 0, "random": 0}, "all 0"),
        ({"top": 20, "middle": 20, "max_rank": 30}, "leaves 10 ranks after the top 20 for 20"),
    ],
)
def test_a_mix_that_cannot_be(numbers: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Mix(**numbers)
