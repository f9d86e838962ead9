"""Items of an iterator, made ahead of their use by a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


def prefetch(items: Iterable[_T], *, depth: int) -> Iterator[_T]:
    """The same items in the same order, at most `depth` of them made before they are asked for.

    What making an item raises is raised here, in its place.
    """
    source, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        ahead = deque(pool.submit(next, source, end) for _ in range(depth))
        try:
            while (item := ahead.popleft().result()) is not end:
                ahead.append(pool.submit(next, source, end))
                yield item  # type: ignore[misc]
        finally:
            for future in ahead:
                future.cancel()
