import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from raydistill.teachers.selection import Selection, mixed, passes, ranks, uncertainty

NOTHING = np.zeros(6, bool)


def keys(*values: int) -> NDArray[np.uint64]:
    return np.array(values, np.uint64)


def test_a_rank_is_the_place_in_the_query_by_key() -> None:
    groups = np.array([0, 0, 0, 1, 1, 2])
    found = ranks(groups, keys(5, 1, 3, 9, 2, 7), is_labeled_B=NOTHING)
    assert found.tolist() == [2, 0, 1, 1, 0, 0]


def test_labeled_pairs_of_a_query_come_first() -> None:
    groups = np.array([0, 0, 0, 1, 1, 2])
    is_labeled = np.array([True, False, False, False, False, True])
    found = ranks(groups, keys(5, 1, 3, 9, 2, 7), is_labeled_B=is_labeled)
    assert found.tolist() == [0, 1, 2, 1, 0, 0]


def test_copies_of_a_pair_have_one_place() -> None:
    groups = np.array([0, 0, 0, 0, 1, 1])
    found = ranks(groups, keys(5, 1, 5, 9, 9, 9), is_labeled_B=NOTHING)
    assert found.tolist() == [1, 0, 1, 2, 0, 0]


def test_numbers_of_pairs_are_uniform_and_depend_on_the_seed() -> None:
    ids = np.arange(100_000)
    found = mixed(ids, seed=0)
    assert np.array_equal(found, mixed(ids, seed=0))
    assert not np.array_equal(found, mixed(ids, seed=1))
    shares = found.astype(np.float64) / 2.0**64
    assert np.histogram(shares, bins=10, range=(0, 1))[0] == pytest.approx([10_000] * 10, rel=0.05)
    assert abs(np.corrcoef(shares, mixed(ids, seed=1).astype(np.float64))[0, 1]) < 0.02


def test_entropy_and_disagreement() -> None:
    scores = np.array([0.5, 0.0, 0.5, 1.0, 1.0], np.float32)
    assert uncertainty(scores) == pytest.approx([1, 0, 1, 0, 0], abs=1e-6)
    far = np.array([[-50, 50], [-50, 50], [0, 0], [0, np.nan], [np.nan, np.nan]], np.float32)
    assert uncertainty(scores, far) == pytest.approx([1, 1, 1, 0, 0], abs=1e-6)
    half = np.array([[0, 50]], np.float32)  # probabilities 0.5 and 1
    assert uncertainty(np.zeros(1, np.float32), half) == pytest.approx([0.5], abs=1e-6)
    assert uncertainty(np.zeros(1, np.float32), half[:, :1]) == pytest.approx([0], abs=1e-6)


def test_nothing_is_known_of_a_pair_without_a_score() -> None:
    scores = np.array([np.nan, 0.0], np.float32)
    assert uncertainty(scores) == pytest.approx([1, 0], abs=1e-6)
    assert uncertainty(scores, np.zeros((2, 2), np.float32)) == pytest.approx([1, 0], abs=1e-6)
    found = passes(np.array([np.nan, 1.0, -np.inf, np.inf]), mixed(np.arange(4), seed=1))
    assert found[[0, 1, 3]].tolist() == [1, 1, 1] and found[2] > 1


def test_a_pass_accepts_as_many_as_are_uncertain() -> None:
    draws = mixed(np.arange(100_000), seed=3)
    found = passes(np.full(100_000, 0.25), draws)
    shares = np.bincount(found, minlength=4)[1:4] / 100_000
    assert shares == pytest.approx([0.25, 0.25 * 0.75, 0.25 * 0.75**2], abs=0.005)
    assert set(passes(np.ones(1_000), draws[:1_000])) == {1}


def offer(selection: Selection, names: list[str], order: list[tuple[int, int, int]]) -> None:
    found = [np.array(column) for column in zip(*order, strict=True)]
    selection.add(
        pa.table({"title": names}),
        passes_B=found[0],
        ranks_B=found[1],
        keys_B=found[2].astype(np.uint64),
    )


def test_the_first_of_the_order_are_selected() -> None:
    selection = Selection(3)
    offer(selection, ["a", "b", "c"], [(1, 1, 5), (2, 0, 0), (1, 0, 9)])
    offer(selection, ["d", "e"], [(1, 0, 4), (0, 7, 7)])
    found = selection.table()
    assert found is not None and found.column_names == ["title"]
    assert found["title"].to_pylist() == ["e", "d", "c"]


def test_of_the_copies_of_a_pair_the_first_is_selected() -> None:
    selection = Selection(3, slack_rows=3)
    for shard in range(5):  # 7 and 8 are in each shard
        order = [(1, 0, 7), (1, 1, 8), (1, 2, 100 + shard)]
        offer(selection, [f"{shard}-a", f"{shard}-b", f"{shard}-c"], order)
    offer(selection, ["first"], [(1, 0, 8)])
    found = selection.table()
    assert found is not None and found["title"].to_pylist() == ["0-a", "first", "0-c"]


def test_no_pair_no_selection() -> None:
    assert Selection(3).table() is None


def some_pairs(rng: np.random.Generator) -> tuple[pa.Table, dict[str, NDArray[np.int64]]]:
    num = 4_000
    table = pa.table({"id": rng.integers(2**40, size=num)})
    order = {"passes_B": rng.integers(1, 4, num), "ranks_B": rng.integers(0, 50, num)}
    return table, {**order, "keys_B": mixed(table["id"].to_numpy(), seed=0)}


def test_cuts_and_skipped_pairs_change_nothing() -> None:
    """Eight shards of 4,000 pairs, cut several times, against one sort of all."""
    rng = np.random.default_rng(0)
    shards = [some_pairs(rng) for _ in range(8)]
    selection, num_skipped = Selection(100, slack_rows=100), 0
    for table, order in shards:
        mask = selection.may_enter(order["ranks_B"], order["keys_B"])
        num_skipped += int((~mask).sum())
        selection.add(table.filter(pa.array(mask)), **{n: v[mask] for n, v in order.items()})
    columns = [np.concatenate([order[n] for _, order in shards]) for n in shards[0][1]]
    ids = np.concatenate([table["id"].to_numpy() for table, _ in shards])
    expected = ids[np.lexsort(columns[::-1])[:100]]
    found = selection.table()
    assert found is not None and found["id"].to_pylist() == expected.tolist()
    assert num_skipped > 20_000  # of 32,000: they need no score


def test_a_smaller_budget_selects_the_first_rows() -> None:
    table, order = some_pairs(np.random.default_rng(0))
    found = []
    for budget in (100, 300):
        selection = Selection(budget)
        selection.add(table, **order)
        rows = selection.table()
        assert rows is not None
        found.append(rows["id"].to_pylist())
    assert found[1][:100] == found[0]
