"""How often an item may be lost, and what is said while nothing works."""

import logging

import pytest

from raydistill.cluster.pools import pieces
from raydistill.cluster.pools.pieces import Patience, Piece


def test_an_item_that_ends_its_process_fails_and_one_whose_machines_are_lost_does_not() -> None:
    poison, innocent = Piece({"at": 0}), Piece({"at": 1})
    assert [poison.lose(with_machine=False) for _ in range(4)] == [True] * 3 + [False]
    assert [innocent.lose(with_machine=True) for _ in range(10)] == [True] * 9 + [False]
    both = Piece({"at": 2})
    assert all(both.lose(with_machine=with_machine) for with_machine in [True, False] * 3)


def test_a_line_a_minute_while_nothing_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 1_000.0
    monkeypatch.setattr(pieces.time, "monotonic", lambda: now_s)
    patience = Patience()
    said = {}
    with caplog.at_level(logging.INFO):
        for second in range(200):
            now_s = 1_000.0 + second
            patience.look(works=second in (60, 61), num_left=7)
            said[second] = len(caplog.messages)
    starts = [second for second in range(1, 200) if said[second] > said[second - 1]]
    assert starts == [30, 91, 151]
    assert caplog.messages[0].startswith("cluster   waiting for machines since 30 s, 7 items are")
