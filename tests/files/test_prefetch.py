import threading
from collections.abc import Iterator

import pytest

from raydistill.files.prefetch import prefetch


def test_the_same_items_in_the_same_order() -> None:
    assert list(prefetch(iter(range(20)), depth=3)) == list(range(20))
    assert list(prefetch([], depth=3)) == []


def test_no_more_than_depth_are_made_ahead() -> None:
    made: list[int] = []
    third = threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    found = prefetch(items(), depth=2)
    assert next(found) == 0
    assert third.wait(5)  # the first was asked for, two are ahead
    found.close()  # type: ignore[attr-defined]
    assert made == [0, 1, 2]


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("shard 7 is gone")

    found = prefetch(items(), depth=2)
    assert next(found) == 1
    with pytest.raises(ValueError, match="shard 7"):
        next(found)
