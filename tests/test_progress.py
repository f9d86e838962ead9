"""Progress lines: what they say, when they come, and that they end."""

import logging
import re
import threading
import time

import pytest

from raydistill import progress
from raydistill.progress import Progress, RelayedLines, heartbeat, rate_line


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="raydistill")


def wait_for(caplog: pytest.LogCaptureFixture, number: int) -> list[str]:
    until_s = time.monotonic() + 20
    while len(caplog.records) < number and time.monotonic() < until_s:
        time.sleep(0.01)
    return lines(caplog)


def test_a_line_says_what_is_done_and_left() -> None:
    line = rate_line(98_304, num_total=1_025_123, seconds=160, rate=612.0)
    assert line == "98,304/1,025,123 rows, 926,819 left  160 s  612 rows/s  ETA 1514 s"
    assert rate_line(7, num_total=None, seconds=7) == "7 rows  7 s  1 rows/s"
    assert rate_line(9, num_total=9, seconds=3, is_last=True) == "9/9 rows  3 s  3 rows/s"
    assert rate_line(0, num_total=9, seconds=3) == "0/9 rows, 9 left  3 s  0 rows/s"  # no ETA yet


def test_a_short_run_has_its_last_line_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    with heartbeat(lambda: "0.01 USD"):
        work = Progress("label", num_items=200, num_rows=2_000, unit="shards")
        for _ in range(200):
            work.add(rows=10, note="3 actors")
    (line,) = lines(caplog)
    assert line.startswith("label     200/200 shards  2,000/2,000 rows  ")
    assert line.endswith("rows/s  0.01 USD  3 actors") and "left" not in line


def test_work_that_finishes_nothing_has_lines_too(caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())
    with heartbeat(every_s=0.02, silent_s=0.1):
        work = Progress("label", num_items=4, num_rows=40, unit="shards")
        first = wait_for(caplog, 1)[0]
        work.add(rows=10, note="2 actors")
        second = wait_for(caplog, 2)[1]
    assert re.fullmatch(r"label     0/4 shards  0/40 rows, 40 left  \d s  0 rows/s", first)
    assert second.startswith("label     1/4 shards  10/40 rows, 30 left  ")
    assert second.endswith("  2 actors")
    assert set(threading.enumerate()) <= before
    number = len(caplog.records)
    time.sleep(0.3)
    assert len(caplog.records) == number


def test_the_newest_piece_of_work_is_the_one_that_is_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with heartbeat(every_s=0.02, silent_s=0.05):
        done = Progress("prepare", num_items=1, num_rows=None, unit="parts")
        done.add(rows=5)
        time.sleep(0.2)
        assert len(caplog.records) == 1  # it is over: no line storm
        Progress("prepare", num_items=2, num_rows=9, unit="ranges")
        assert "0/2 ranges" in wait_for(caplog, 2)[-1]


def test_lines_of_workers_have_the_cost_and_their_age(caplog: pytest.LogCaptureFixture) -> None:
    with heartbeat(lambda: "1.50 EUR", every_s=0.02, silent_s=0.1):
        relayed = RelayedLines("train     waiting for 2 workers")
        assert wait_for(caplog, 1)[0] == (
            "train     waiting for 2 workers  (no news for 0 s)  1.50 EUR"
        )
        relayed.add("train     student 5/9 rows")
        assert lines(caplog)[-1] == "train     student 5/9 rows  1.50 EUR"
        number = len(caplog.records)
        assert wait_for(caplog, number + 1)[-1] == (
            "train     student 5/9 rows  (no news for 0 s)  1.50 EUR"
        )
        relayed.end()
        number = len(caplog.records)
        time.sleep(0.3)
        assert len(caplog.records) <= number + 1  # one may have been under way


def test_an_error_in_the_work_ends_the_heartbeat() -> None:
    before = set(threading.enumerate())
    with pytest.raises(KeyError), heartbeat(every_s=0.01):
        Progress("label", num_items=4, num_rows=40, unit="shards")
        raise KeyError
    assert set(threading.enumerate()) <= before
    assert progress._beats.get() is None
