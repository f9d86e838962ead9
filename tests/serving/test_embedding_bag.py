import numpy as np
import pytest

from raydistill.serving.embedding_bag import sum_bags
from raydistill.student.embedding_kernels import (
    adagrad_rows,
    add_rows,
    distinct,
    look_up,
    row_gradients,
)


def test_distinct_rows_in_the_order_they_come() -> None:
    rows, slots = distinct(np.array([7, 3, 7, 7, 9, 3], np.int32))
    assert rows.tolist() == [7, 3, 9]
    assert slots.tolist() == [0, 1, 0, 0, 2, 1]


@pytest.mark.parametrize("num", [0, 1, 2, 1_000])
def test_slots_lead_back_to_the_ids(num: int) -> None:
    ids = np.random.default_rng(0).integers(0, 300, num).astype(np.int32)
    lookup = look_up(ids, np.array([0, num]))
    assert (lookup.rows_U[lookup.slots_N] == ids).all()
    assert len(set(lookup.rows_U.tolist())) == len(lookup.rows_U)


def test_bags_by_hand() -> None:
    """Two pairs of two bags: {1, 2, 2, 3} and {} | {4} and {1, 1, 1, 1}; row i is (i, 10 i)."""
    table = np.arange(5, dtype=np.float32)[:, None] * np.array([1, 10], np.float32)
    ids = np.array([1, 2, 2, 3, 4, 1, 1, 1, 1], np.int32)
    offsets = np.array([0, 4, 4, 5, 9], np.int32)
    out = np.full((2, 5), -1, np.float32)  # the last column is not of the bags
    sum_bags(ids, offsets, table, 2, out)
    assert out.tolist() == [[4, 40, 0, 0, -1], [4, 40, 2, 20, -1]]


def test_gradients_of_rows_by_hand() -> None:
    """A row's gradient: over the bags it is in, times in it x the bag's gradient / sqrt(count)."""
    slots, offsets = np.array([0, 1, 1, 0, 0], np.int32), np.array([0, 4, 5], np.int32)
    out = np.full((2, 1), 9, np.float32)
    row_gradients(slots, offsets, np.array([[6.0], [5.0]], np.float32), 1, out)
    assert out.tolist() == [[2 * 6 / 2 + 5], [2 * 6 / 2]]


def test_adagrad_of_rows_by_hand() -> None:
    table, squares = np.ones((3, 2), np.float32), np.zeros(3, np.float32)
    squares[2] = 11.5
    grads = np.array([[3, 4]], np.float32)  # mean square 12.5
    adagrad_rows(table, squares, np.array([2], np.int32), grads, 0.1)
    rate = 0.1 / np.sqrt(11.5 + 12.5)
    assert squares.tolist() == [0, 0, 24]
    assert table[2] == pytest.approx([1 - 3 * rate, 1 - 4 * rate])
    assert (table[:2] == 1).all()


def test_rows_of_several_workers_add_up() -> None:
    out = np.zeros((2, 1), np.float32)
    add_rows(np.array([0, 1, 0], np.int32), np.array([[1], [2], [4]], np.float32), out)
    assert out.tolist() == [[5], [2]]
