"""Progress of a stage as log lines: rows, seconds, rate, ETA."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger("raydistill")
_EVERY_S = 5.0  # least interval between two lines; the last line is always logged


class Progress:
    """Counts the finished rows and items of a stage; logs a line at most every 5 s."""

    def __init__(self, name: str, *, num_items: int, num_rows: int | None, unit: str) -> None:
        """`num_rows` is the total, None if unknown; without a total there is no ETA."""
        self.name, self.unit = name, unit
        self.num_items, self.num_rows = num_items, num_rows
        self.items = self.rows = 0
        self._start_s = time.monotonic()
        self._first_rows: tuple[float, int, int] | None = None
        self._logged_s = self._start_s

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self._start_s

    def add(self, *, rows: int, items: int = 1, note: str = "") -> None:
        """Count finished work; log a line if the last is 5 s old or all items are done."""
        self.rows += rows
        self.items += items
        now_s = time.monotonic()
        if self._first_rows is None:  # rates exclude the start-up of the workers
            self._first_rows = (now_s, self.rows, self.items)
        if now_s - self._logged_s >= _EVERY_S or self.items >= self.num_items:
            self._logged_s = now_s
            logger.info(self._line(now_s, note))

    def _line(self, now_s: float, note: str) -> str:
        done = rate_line(
            self.rows,
            num_total=self.num_rows,
            seconds=self.seconds,
            rate=self.rate(now_s),
            is_last=self.items >= self.num_items,
        )
        line = f"{self.name:<9} {self.items:,}/{self.num_items:,} {self.unit}  {done}"
        return f"{line}  {note}" if note else line

    def rate(self, now_s: float | None = None) -> float:
        """Rows a second since the first finished item; since the start if only one is finished."""
        now_s = time.monotonic() if now_s is None else now_s
        if self._first_rows is not None and self.rows > self._first_rows[1]:
            since_s, before, _ = self._first_rows
            return (self.rows - before) / max(now_s - since_s, 1e-9)
        return self.rows / max(now_s - self._start_s, 1e-9)


def rate_line(
    num_rows: int,
    *,
    num_total: int | None,
    seconds: float,
    rate: float | None = None,
    is_last: bool = False,
) -> str:
    """`98,304/1,025,123 rows  160 s  612 rows/s  ETA 1514 s`; no ETA without a total."""
    rate = num_rows / max(seconds, 1e-9) if rate is None else rate
    total = f"/{num_total:,}" if num_total is not None else ""
    line = f"{num_rows:,}{total} rows  {seconds:.0f} s  {rate:,.0f} rows/s"
    if num_total is not None and not is_last and num_rows < num_total:
        line += f"  ETA {(num_total - num_rows) / max(rate, 1e-9):.0f} s"
    return line
