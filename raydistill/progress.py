"""Progress of a stage as log lines: rows done and left, seconds, rate, ETA, money so far.

A line appears when work is finished, at most every 5 s. Inside `heartbeat` a line also appears when
the last one is 10 s old, as nothing was finished since, and lines have what the machines cost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

logger = logging.getLogger("raydistill")
_EVERY_S = 5.0  # least interval between two lines; the last line is always logged
_SILENT_S = 10.0  # greatest interval, inside `heartbeat`


class Lines:
    """The lines of a piece of work; one that a heartbeat asks for a line when none came."""

    def __init__(self) -> None:
        """The newest object is the one that a heartbeat asks."""
        self._lock = threading.RLock()  # lines are logged by the work and by the heartbeat
        self._start_s = self._logged_s = time.monotonic()
        self._beats = _beats.get()
        if self._beats is not None:
            self._beats.of = self

    def beat(self) -> None:
        """Log a line if work is left and the last line is 10 s old."""
        with self._lock:
            now_s = time.monotonic()
            silent_s = self._beats.silent_s if self._beats else _SILENT_S
            if self._is_over() or now_s - self._logged_s < silent_s:
                return
            self._log(self._silent_line(now_s), now_s)

    def _log(self, line: str, now_s: float) -> None:
        self._logged_s = now_s
        logger.info(line)

    def _cost(self) -> str:
        return self._beats.cost() if self._beats else ""

    def _is_over(self) -> bool:
        raise NotImplementedError

    def _silent_line(self, now_s: float) -> str:
        raise NotImplementedError


class Progress(Lines):
    """Counts the finished rows and items of a stage; logs a line at most every 5 s."""

    def __init__(self, name: str, *, num_items: int, num_rows: int | None, unit: str) -> None:
        """`num_rows` is the total, None if unknown; without a total there is no ETA."""
        self.name, self.unit = name, unit
        self.num_items, self.num_rows = num_items, num_rows
        self.items = self.rows = 0
        self._note = ""
        self._first_rows: tuple[float, int, int] | None = None
        super().__init__()

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self._start_s

    def add(self, *, rows: int, items: int = 1, note: str = "") -> None:
        """Count finished work; log a line if the last is 5 s old or all items are done."""
        with self._lock:
            self.rows += rows
            self.items += items
            self._note = note
            now_s = time.monotonic()
            if self._first_rows is None:  # rates exclude the start-up of the workers
                self._first_rows = (now_s, self.rows, self.items)
            if now_s - self._logged_s >= _EVERY_S or self._is_over():
                self._log(self._line(now_s), now_s)

    def _is_over(self) -> bool:
        return self.items >= self.num_items

    def _silent_line(self, now_s: float) -> str:
        return self._line(now_s)

    def _line(self, now_s: float) -> str:
        done = rate_line(
            self.rows,
            num_total=self.num_rows,
            seconds=self.seconds,
            rate=self.rate(now_s),
            is_last=self._is_over(),
        )
        line = f"{self.name:<9} {self.items:,}/{self.num_items:,} {self.unit}  {done}"
        return "  ".join(filter(None, (line, self._cost(), self._note)))

    def rate(self, now_s: float | None = None) -> float:
        """Rows a second since the first finished item; since the start if only one is finished."""
        now_s = time.monotonic() if now_s is None else now_s
        if self._first_rows is not None and self.rows > self._first_rows[1]:
            since_s, before, _ = self._first_rows
            return (self.rows - before) / max(now_s - since_s, 1e-9)
        return self.rows / max(now_s - self._start_s, 1e-9)


class RelayedLines(Lines):
    """Lines that workers send; if none comes, the heartbeat repeats the last with its age."""

    def __init__(self, waiting: str) -> None:
        """`waiting`: the line before the first one arrives."""
        self._last, self._was_over = waiting, False
        super().__init__()
        self._since_s = self._start_s  # when the last line of a worker came

    def add(self, line: str) -> None:
        """Log a line of a worker."""
        with self._lock:
            self._last, self._since_s = line, time.monotonic()
            self._log("  ".join(filter(None, (line, self._cost()))), self._since_s)

    def add_own(self, line: str) -> None:
        """Log a line of this process on the workers' silence; they have said nothing since."""
        with self._lock:
            self._last = line
            self._log("  ".join(filter(None, (line, self._cost()))), time.monotonic())

    def end(self) -> None:
        """No further line comes."""
        self._was_over = True

    def _is_over(self) -> bool:
        return self._was_over

    def _silent_line(self, now_s: float) -> str:
        age = f"(no news for {now_s - self._since_s:.0f} s)"
        return "  ".join(filter(None, (self._last, age, self._cost())))


class _Beats:
    """A thread that asks the newest `Lines` for a line, and what the machines cost."""

    def __init__(self, cost: Callable[[], str], *, every_s: float, silent_s: float) -> None:
        self.cost, self.silent_s = cost, silent_s
        self.of: Lines | None = None
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, is_interrupted: bool) -> None:
        self._over.set()
        if not is_interrupted:  # `ray job stop` gives 3 s in all
            self._thread.join(timeout=self._every_s)  # it may wait for a cluster that is lost

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self.cost()
            if self.of is not None and not self._over.is_set():
                self.of.beat()


_beats: ContextVar[_Beats | None] = ContextVar("beats", default=None)


@contextmanager
def heartbeat(
    cost: Callable[[], str] = lambda: "", *, every_s: float = 1.0, silent_s: float = _SILENT_S
) -> Iterator[None]:
    """Lines of the work inside also appear when nothing is finished, and show `cost()`.

    `cost` is called every second, from two threads; "" if nothing is known of it.
    """
    beats = _Beats(cost, every_s=every_s, silent_s=silent_s)
    token = _beats.set(beats)
    beats.start()
    is_interrupted = False
    try:
        yield
    except KeyboardInterrupt:
        is_interrupted = True
        raise
    finally:
        _beats.reset(token)
        beats.stop(is_interrupted=is_interrupted)


def rate_line(
    num_rows: int,
    *,
    num_total: int | None,
    seconds: float,
    rate: float | None = None,
    is_last: bool = False,
) -> str:
    """`98,304/1,025,123 rows, 926,819 left  160 s  612 rows/s  ETA 1514 s`.

    Without a total neither rows left nor ETA.
    """
    rate = num_rows / max(seconds, 1e-9) if rate is None else rate
    rows, eta = f"{num_rows:,} rows", ""
    if num_total is not None:
        left = num_total - num_rows
        rows = f"{num_rows:,}/{num_total:,} rows"
        if left > 0 and not is_last:
            rows += f", {left:,} left"
            eta = f"  ETA {left / rate:.0f} s" if rate > 0 else ""
    return f"{rows}  {seconds:.0f} s  {rate:,.0f} rows/s{eta}"
