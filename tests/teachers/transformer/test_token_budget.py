"""Decrease and increase of a token budget, with values by hand."""

from raydistill.teachers.transformer.token_budget import TokenBudget


def test_a_failed_batch_halves_the_budget_until_it_is_smaller() -> None:
    budget = TokenBudget(1_000)
    budget.reduce(990)
    assert budget.tokens == 500
    budget.reduce(70)  # 250 and 125 would be the same batch again
    assert budget.tokens == 62
    for _ in range(10):
        budget.reduce(2)
    assert budget.tokens == 1


def goods(budget: TokenBudget, num: int) -> int:
    for _ in range(num):
        budget.note_good_batch()
    return budget.tokens


def test_good_batches_double_it_up_to_what_it_was() -> None:
    budget = TokenBudget(1_000)
    assert goods(budget, 1_000) == 1_000
    budget.reduce(1_000)
    budget.reduce(500)
    budget.reduce(250)
    assert budget.tokens == 125
    assert [goods(budget, num) for num in (31, 1, 31, 1, 32)] == [125, 250, 250, 500, 1_000]
    assert goods(budget, 1_000) == 1_000


def test_each_new_failure_waits_twice_as_long() -> None:
    budget = TokenBudget(1_000)
    waits = []
    for _ in range(5):  # it never fits: grows, fails, grows
        budget.reduce(1_000)
        waits.append(budget.wait_batches)
        goods(budget, budget.wait_batches)
        assert budget.tokens == 1_000
    assert waits == [32, 64, 128, 256, 512]


def test_failures_in_a_row_are_one() -> None:
    budget = TokenBudget(1_000)
    for batch in (1_000, 500, 250):
        budget.reduce(batch)
    assert budget.wait_batches == 32
