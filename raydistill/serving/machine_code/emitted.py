"""Functions that are compiled only where the native library is emitted, and numba's options there.

A process that emits calls `start_emitting` before it imports the functions. Then `compiled` and
`emitted` compile without a cache, without reference counts and without Python: an allocation is an
error of the compiler. In any other process `emitted` returns the Python function itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, overload

_Function = TypeVar("_Function", bound=Callable[..., Any])
# Options of all functions. `_nrt` must be off in all of them: views are counted otherwise.
_OPTIONS: dict[str, Any] = {
    "_nrt": False,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
_STATE: dict[str, Any] = {}  # the options, once this process emits


def start_emitting(*, checked: bool = False) -> None:
    """Compile for the library from now on; `checked`: with a check of every index.

    An index below 0 does not count from the end: the code for that takes 10 % of a pair's time. The
    check of every index finds one.
    """
    from numba.cpython import slicing  # imported here: numba reads its settings then

    slicing.fix_index = _as_given
    _STATE.update(_OPTIONS, **({"boundscheck": True} if checked else {}))


def _as_given(builder: Any, index: Any, size: Any) -> Any:  # noqa: ANN401 - numba's
    """The code of an index, in place of numba's, which adds `size` to one below 0."""
    return index


def emit_options() -> dict[str, Any]:
    """Options of numba for the library; empty in a process that does not emit."""
    return dict(_STATE)


@overload
def emitted(function: _Function) -> _Function: ...


@overload
def emitted(
    *, fastmath: bool | set[str] = ..., forceinline: bool = ...
) -> Callable[[_Function], _Function]: ...


def emitted(
    function: Callable[..., Any] | None = None,
    *,
    fastmath: bool | set[str] = False,
    forceinline: bool = False,
) -> Any:
    """Compile a function where the library is emitted; elsewhere return it as it is."""
    if function is None:
        return partial(emitted, fastmath=fastmath, forceinline=forceinline)
    if not _STATE:
        return function
    from numba import njit  # imported here: writing a model does not need it

    return njit(fastmath=fastmath, forceinline=forceinline, **_STATE)(function)
