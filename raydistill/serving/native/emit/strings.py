"""The builtin of Python that scores strings where they lie, by functions of CPython's C API.

`python_calls.py` makes it and says what its table of addresses has. Addresses and objects are
int64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.emitted import emitted
from raydistill.serving.native.emit import memory
from raydistill.serving.native.emit.entry import NO, SPANS, score_texts
from raydistill.serving.native.layout import OK
from raydistill.serving.native.python_calls import BYTES_AT, NAMES

_TABLE_AT = {name: at for at, name in enumerate(NAMES)}
_MODEL, _SCRATCH, _IS_PAIRS = (_TABLE_AT[name] for name in ("model", "scratch", "is_pairs"))
_NONE, _LIST, _TUPLE = (_TABLE_AT[name] for name in ("none", "list", "tuple"))
_TYPE, _AS_TUPLE, _SIZE, _ITEM, _UTF8, _BYTEARRAY, _CONTENT, _MALLOC, _FREE = (
    *(_TABLE_AT[f"Py{name}"] for name in ("Object_Type", "List_AsTuple", "Tuple_Size")),
    *(_TABLE_AT[f"Py{name}"] for name in ("Tuple_GetItem", "Unicode_AsUTF8AndSize")),
    *(_TABLE_AT[f"PyByteArray_{name}"] for name in ("FromStringAndSize", "AsString")),
    *(_TABLE_AT[f"PyMem_{name}"] for name in ("Malloc", "Free")),
)
_CLEAR, _INCREF, _DECREF, _RELEASE, _ACQUIRE = (
    *(_TABLE_AT[name] for name in ("PyErr_Clear", "Py_IncRef", "Py_DecRef")),
    *(_TABLE_AT[f"PyEval_{name}"] for name in ("SaveThread", "RestoreThread")),
)


@emitted
def score_strings(own: int, args: int, num_args: int) -> int:
    """A builtin of Python (`python_calls.py`): a query, or a list of them, and a list of titles.

    Returns a bytearray of scores; None for what is no list or tuple of strings that have UTF-8. It
    scores without the GIL; a tuple of its own keeps the strings meanwhile.
    """
    table = memory.i8(memory.i8(own + BYTES_AT, 1)[0], len(NAMES))
    given, found = memory.i8(args, num_args), 0
    if num_args == 2:
        titles = _to_tuple(given[1], table)
        queries = _to_tuple(given[0], table) if table[_IS_PAIRS] else 0
        if titles != 0 and (queries != 0) == (table[_IS_PAIRS] != 0):
            found = _score_tuple(given[0], queries, titles, table)
        memory.call(table[_DECREF], (titles,))
        memory.call(table[_DECREF], (queries,))
    if found == 0:
        memory.call(table[_CLEAR], (0,))  # the caller finds the error, with words
        memory.call(table[_INCREF], (table[_NONE],))
    return found if found != 0 else table[_NONE]


@emitted
def _to_tuple(strings: int, table: NDArray[np.int64]) -> int:
    """A new reference to a tuple of what a list or tuple has; 0 for any other object."""
    kind = memory.call(table[_TYPE], (strings,))
    memory.call(table[_DECREF], (kind,))
    if kind == table[_LIST]:
        return int(memory.call(table[_AS_TUPLE], (strings,)))
    if kind != table[_TUPLE]:
        return 0
    memory.call(table[_INCREF], (strings,))
    return strings


@emitted
def _score_tuple(query: int, queries: int, titles: int, table: NDArray[np.int64]) -> int:
    """A bytearray of scores, or 0; `queries` is 0 if all titles have one query."""
    num = memory.call(table[_SIZE], (titles,))
    if num == 0 or (queries != 0 and memory.call(table[_SIZE], (queries,)) != num):
        return 0
    num_own = num if queries != 0 else 1
    places = memory.call(table[_MALLOC], (16 * (num + num_own),))
    if places == 0:
        return 0
    starts, found = memory.i8(places, 2 * (num + num_own)), 0
    if queries != 0:
        is_read = _read_tuple(queries, table, starts, 2 * num, num)
    else:
        is_read = _read_string(query, table, starts, 2 * num)
    if is_read and _read_tuple(titles, table, starts, 0, num):
        found = memory.call(table[_BYTEARRAY], (0, 4 * num))
    if found != 0:
        scores = memory.call(table[_CONTENT], (found,))
        first, size, own = starts[2 * num], starts[2 * num + 1] - starts[2 * num], NO
        if queries != 0:
            first, own = NO, places + 16 * num
        state = memory.call(table[_RELEASE], (0,))
        code = score_texts(
            *(table[_MODEL], table[_SCRATCH], first, own, size, NO, places, SPANS, num, scores),
        )
        memory.call(table[_ACQUIRE], (state,))
        if code != OK:
            memory.call(table[_DECREF], (found,))
            found = 0
    memory.call(table[_FREE], (places,))
    return found


@emitted
def _read_tuple(
    strings: int, table: NDArray[np.int64], starts: NDArray[np.int64], at: int, num: int
) -> bool:
    for place in range(num):
        text = memory.call(table[_ITEM], (strings, place))
        if not _read_string(text, table, starts, at + 2 * place):
            return False
    return True


@emitted
def _read_string(text: int, table: NDArray[np.int64], starts: NDArray[np.int64], at: int) -> bool:
    """Write the addresses where a string's UTF-8 begins and ends from `at` on, if it has any."""
    place = memory.address(starts) + 8 * at
    starts[at] = memory.call(table[_UTF8], (text, place + 8))
    starts[at + 1] += starts[at]
    return bool(starts[at] != 0)
