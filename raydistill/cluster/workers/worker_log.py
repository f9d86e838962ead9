"""Lines that the workers of a fit send to the driver's log, and a line where they are silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import ray
from ray.exceptions import RayError
from ray.util.queue import Empty, Full, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raydistill.progress import RelayedLines

_SILENCE_S = 60.0  # until a line says what a fit without workers waits for
_WORKING_SILENCE_S = 600.0  # the same while workers are there: they log every 10 s of steps
_LAST_LINES_S = 10.0  # at most, for the lines that are on their way at the end


class Log:
    """Sends lines to the driver's log; made on the driver, called on the workers."""

    def __init__(self, queue: Queue) -> None:
        """`queue` is the driver's queue of lines."""
        self._queue = queue

    def __call__(self, line: str) -> None:
        """Send a line; the line is dropped if the queue is full or its actor has ended."""
        self._put(line)

    def workers_are_there(self, there: bool) -> None:
        """Tell the driver's thread whether the fit has workers: it is patient if so."""
        self._put(there)

    def _put(self, item: str | bool) -> None:
        with suppress(RayError, Full):
            self._queue.put_nowait(item)


@contextmanager
def relay(waiting: str, *, on_silence: Callable[[float], str]) -> Iterator[Log]:
    """A Log whose lines a thread of this process logs when they arrive; before that `waiting`.

    Where none arrives for long, it logs the line of `on_silence`. The queue is on this machine: a
    spot machine that leaves would take it along.
    """
    lines = RelayedLines(waiting)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    over = threading.Event()

    def forward() -> None:
        heard_s = logged_s = time.monotonic()
        most_s = _SILENCE_S
        with suppress(RayError):  # Ray has ended
            while True:
                try:
                    item = queue.get(timeout=1.0)
                except Empty:
                    if over.is_set():
                        return
                    now_s = time.monotonic()
                    if now_s - logged_s >= most_s:
                        lines.add_own(on_silence(now_s - heard_s))
                        logged_s = now_s
                    continue
                if isinstance(item, bool):
                    most_s = _WORKING_SILENCE_S if item else _SILENCE_S
                else:
                    lines.add(item)
                heard_s = logged_s = time.monotonic()

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    last_lines_s = _LAST_LINES_S
    try:
        yield Log(queue)
    except KeyboardInterrupt:
        last_lines_s = 0.0
        raise
    finally:
        lines.end()
        over.set()
        thread.join(timeout=last_lines_s)
        queue.shutdown(force=True)  # else Ray waits up to 5 s for its actor
