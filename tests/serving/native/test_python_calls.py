import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from raydistill.serving.native import python_calls
from raydistill.serving.native.layout import aligned
from raydistill.serving.native.library import Library, Model
from tests.serving.native.cases import EXTREME, default_model, odd_pairs

pytestmark = pytest.mark.timeout(900)  # where the library is not in the cache
ROOT = Path(__file__).parents[3]


class Text(str):
    __slots__ = ()


class Titles(list[str]):
    pass


@pytest.fixture
def fresh(library: Library) -> Model:
    return Model(aligned(default_model()), library)


def scored(found: np.ndarray | None) -> list[float]:
    assert found is not None and found.dtype == np.float32 and found.flags.writeable
    return [float(score) for score in found]


def test_strings_have_the_scores_of_their_bytes(model: Model) -> None:
    queries, titles = map(list, zip(*odd_pairs(300), *EXTREME, strict=True))
    for query in ("grey sofa", *queries[:30]):
        expected = model.score(query, titles).tolist()
        assert scored(model.score_strings(query, titles)) == expected
    expected = model.score_pairs(queries, titles).tolist()
    assert scored(model.score_string_pairs(queries, titles)) == expected
    assert scored(model.score_string_pairs(tuple(queries), tuple(titles))) == expected
    one = [scored(model.score_strings(*pair)) for pair in zip(queries, zip(titles), strict=True)]
    assert one == [[score] for score in expected]
    same = ["sofa", "sofa", "grey sofa", "grey sofa", "sofa"]
    expected = model.score_pairs(same, titles[:5]).tolist()
    assert scored(model.score_string_pairs(same, titles[:5])) == expected


def test_what_is_no_list_of_strings_is_not_read(model: Model) -> None:
    fine = ["grey sofa", "Sofa"]
    for titles in (
        *([], (), [None], ["a", None], ["a", 1], [b"a"], ["a", "\ud800"], [["a"]]),
        *("abc", b"abc", None, 3, {"a": 1}, {"a"}, iter(fine), Titles(fine), np.array(fine)),
    ):
        assert model.score_strings("sofa", titles) is None
        assert model.score_string_pairs(["sofa", "sofa"], titles) is None
        assert model.score_string_pairs(titles, fine) is None
    for query in (None, 3, b"sofa", ["sofa"], "a\udc80", fine):
        assert model.score_strings(query, fine) is None
    for queries in (["sofa"], ["sofa"] * 3, "ab", None):
        assert model.score_string_pairs(queries, fine) is None
    texts = [Text(text) for text in fine]
    expected = model.score("sofa", fine).tolist()
    assert scored(model.score_strings(Text("sofa"), texts)) == expected


def test_a_builtin_takes_two_arguments(model: Model) -> None:
    for function in (model._thread().score, model._thread().score_pairs):
        assert [function(), function("sofa"), function("sofa", ["a"], 1)] == [None] * 3
        with pytest.raises(TypeError, match="no keyword arguments"):
            function("sofa", titles=["a"])


def test_no_reference_is_lost_or_kept(model: Model) -> None:
    query, title = "".join(["grey ", "söfa"]), "".join(["sofa ", "größe"])
    queries, titles, bad = [query] * 9, [title] * 9, [title, None]
    values = (query, title, queries, titles, bad, list, tuple, str)

    def calls(num: int) -> None:
        for _ in range(num):
            model.score_strings(query, titles)
            model.score_strings(query, bad)
            model.score_strings(None, titles)
            model.score_string_pairs(queries, tuple(titles))
            model.score_string_pairs(queries, titles[:3])

    calls(10)
    counts, blocks = [sys.getrefcount(value) for value in values], sys.getallocatedblocks()
    before = sys.getrefcount(None)
    calls(1_000)
    assert [sys.getrefcount(value) for value in values] == counts
    assert abs(sys.getrefcount(None) - before) < 100
    assert abs(sys.getallocatedblocks() - blocks) < 100


def test_other_threads_run_meanwhile(model: Model) -> None:
    titles, interval = ["Sofa, grey, 3 seats"] * 200_000, sys.getswitchinterval()
    started, ended = threading.Event(), list[int]()

    def score() -> None:
        started.set()
        ended.append(len(scored(model.score_strings("grey sofa", titles))))

    sys.setswitchinterval(1_000)  # a thread runs until it releases the GIL by itself
    try:
        thread = threading.Thread(target=score)
        thread.start()
        started.wait()
        has_ended = bool(ended)
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not has_ended and ended == [200_000]


def test_a_list_may_change_while_it_is_scored(model: Model) -> None:
    titles = [f"sofa no {at}" for at in range(2_000)]
    texts, stop = list(titles), threading.Event()

    def change() -> None:
        while not stop.is_set():
            texts.clear()
            texts.extend(f"sofa no {at}" for at in range(2_000))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        expected = model.score("sofa", titles).tolist()
        for _ in range(100):
            found = model.score_strings("sofa", texts)
            assert found is None or expected[: len(found)] == found.tolist()
    finally:
        stop.set()
        thread.join()


def test_each_thread_has_functions_of_its_own(fresh: Model) -> None:
    queries, titles = map(list, zip(*odd_pairs(100), strict=True))
    expected = fresh.score_pairs(queries, titles).tolist()
    together = threading.Barrier(4)

    def score(_: int) -> list[int]:
        together.wait()
        assert all(scored(fresh.score_string_pairs(queries, titles)) == expected for _ in range(10))
        own = fresh._thread()
        return [id(own.score), id(own.score_pairs), own.scratch]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(score, range(4)))
    assert all(len({*values}) == 4 for values in zip(*found, strict=True))


_AT_EXIT = """
import sys, threading
from tests.serving.native.cases import default_model
from raydistill.serving.native.build import found_library
from raydistill.serving.native.layout import aligned
from raydistill.serving.native.library import Library, Model

model, titles = Model(aligned(default_model()), Library(found_library()[0])), ["grey sofa"] * 50_000
began = threading.Semaphore(0)

def score():
    while True:
        began.release()
        if sys.argv[1] == "strings":
            model.score_strings("sofa", titles)
        else:
            model.score("sofa", titles)

for _ in range(2):
    threading.Thread(target=score, daemon=True).start()
for _ in range(2):
    began.acquire()
"""


@pytest.mark.parametrize("how", ["strings", "bytes"])
def test_python_may_end_while_a_daemon_thread_scores(how: str) -> None:
    command = [sys.executable, "-c", _AT_EXIT, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_where_there_is_no_such_function_bytes_are_scored(
    fresh: Model, checked_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = Model(aligned(default_model()), checked_library)  # it has no function for strings
    assert checked.score_strings("sofa", ["sofa"]) is None
    monkeypatch.setattr("raydistill.serving.native.library.is_possible", lambda: False)
    assert fresh.score_strings("sofa", ["sofa"]) is None
    assert fresh.score_string_pairs(["sofa"], ["sofa"]) is None
    assert fresh.score("sofa", ["sofa"]).shape == (1,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sys.implementation.name", "pypy"),
        ("sysconfig.get_config_var", lambda _: 1),  # a Python without GIL
        ("sys.maxsize", 2**31 - 1),
        ("BYTES_AT", 24),  # where other builds have a bytes object's content
        ("_FUNCTIONS", ("PyObject_Type", "PyNo_SuchFunction")),
    ],
)
def test_another_python_has_no_function(
    name: str, value: str | Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert python_calls.is_possible.__wrapped__()
    monkeypatch.setattr(f"raydistill.serving.native.python_calls.{name}", value)
    assert not python_calls.is_possible.__wrapped__()


def test_another_table_takes_another_name() -> None:
    """A library that was built before would read the addresses in its own order."""
    table = hashlib.sha256(" ".join(python_calls.NAMES).encode()).hexdigest()
    assert (python_calls.NAME, table[:16]) == ("rd_python", "b39d638bb991bef4")
