"""A builtin of Python that calls the native library with strings, made without a compiler.

The library's `rd_python` reads strings and makes its result by functions of CPython's C API, whose
addresses it finds in a table: so it needs no symbol of Python, and one file serves every version of
Python and every other language. All of these functions are in the stable ABI. Where Python is not
CPython, or has no GIL, there is no builtin. Standard library only.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from array import array
from collections.abc import Callable
from functools import cache

# The numbers of a table, of 8 bytes each: what to score with, then addresses of objects, then of
# functions.
_OWN = ("model", "scratch", "is_pairs")  # is_pairs: a list of queries, not one for all titles
_OBJECTS = {"none": None, "list": list, "tuple": tuple}
_FUNCTIONS = (
    *("PyObject_Type", "PyList_AsTuple", "PyTuple_Size", "PyTuple_GetItem"),
    *("PyUnicode_AsUTF8AndSize", "PyByteArray_FromStringAndSize", "PyByteArray_AsString"),
    *("PyMem_Malloc", "PyMem_Free", "PyErr_Clear", "Py_IncRef", "Py_DecRef"),
    *("PyEval_SaveThread", "PyEval_RestoreThread"),
)
NAMES = (*_OWN, *_OBJECTS, *_FUNCTIONS)
BYTES_AT = 32  # in a bytes object: where its content begins
NAME = "rd_python"  # the library's function; another order of the table takes another name
_FASTCALL = 0x80  # METH_FASTCALL: its arguments are an array

# Scores as float32 in a bytearray; None: texts that it cannot read, or that are none.
StringScorer = Callable[[object, object], bytearray | None]


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef; it must live as long as the builtin."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class StringScorers:
    """The builtins of one thread: `score` for one query's titles, `score_pairs` for pairs."""

    def __init__(self, function: int, *, model: int, scratch: int) -> None:
        """`function`: the address of `rd_python`; the others are addresses as in raydistill.h.

        Only where `is_possible`. The builtins must not outlive this object.
        """
        self._tables = [_table(model, scratch, is_pairs) for is_pairs in (0, 1)]
        self.score, self.score_pairs = (_builtin(function, table) for table in self._tables)


@cache
def is_possible() -> bool:
    """Whether this Python has what `rd_python` needs."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    if sys.maxsize <= 2**32 or not all(hasattr(ctypes.pythonapi, name) for name in _FUNCTIONS):
        return False
    content = bytes(range(BYTES_AT, 2 * BYTES_AT))
    found = ctypes.string_at(id(content), bytes.__basicsize__ - 1 + len(content))
    return found[BYTES_AT:] == content


@cache
def _method(function: int) -> _MethodDef:
    """The definition of the builtin, kept for ever."""
    return _MethodDef(b"score", function, _FASTCALL, None)


def _table(model: int, scratch: int, is_pairs: int) -> array[int]:
    objects = (id(each) for each in _OBJECTS.values())  # of CPython: their addresses
    functions = (_address(name) for name in _FUNCTIONS)
    return array("q", [model, scratch, is_pairs, *objects, *functions])


def _address(name: str) -> int:
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


def _builtin(function: int, table: array[int]) -> StringScorer:
    """The builtin; its `self` is the address of the table, in a bytes object."""
    kind = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    new = kind(("PyCFunction_NewEx", ctypes.pythonapi))
    place = table.buffer_info()[0].to_bytes(8, sys.byteorder)
    made: StringScorer = new(ctypes.addressof(_method(function)), place, None)
    return made


def no_scores(queries: object, titles: object) -> bytearray | None:
    """Takes the place of a builtin where there is none."""
    return None
