"""Compiled functions: numba's `njit` with a cache that depends on all of their source files.

numba's own cache checks only the file of the function, and would run old code after a change in
another file. This cache is in a folder named by a hash of every file that compiled code is made
from. Imports only NumPy and numba; does not change numba's settings for other code.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numba
from numba import njit

from raydistill.serving.machine_code.cache_folder import user_folder
from raydistill.serving.machine_code.emitted import emit_options
from raydistill.serving.machine_code.sources import PACKAGE
from raydistill.serving.machine_code.sources import sources as imported_sources

if TYPE_CHECKING:
    from numba.core.dispatcher import Dispatcher

_Function = TypeVar("_Function", bound=Callable[..., Any])
_MARK = b"raydistill.serving.machine_code.compiled import"
_FOLDER = re.compile(r"compiled-[0-9a-f]{16}")
_NUM_KEPT, _UNUSED_S = 4, 24 * 3600  # other versions: the 4 newest and any used within a day stay
_LOCK = threading.RLock()


@overload
def compiled(function: _Function) -> Dispatcher[_Function]: ...


@overload
def compiled(
    *, fastmath: bool | set[str] = ..., inline: str = ..., forceinline: bool = ...
) -> Callable[[_Function], Dispatcher[_Function]]: ...


def compiled(
    function: Callable[..., Any] | None = None,
    *,
    fastmath: bool | set[str] = False,
    inline: str = "never",
    forceinline: bool = False,
) -> Any:
    """`numba.njit` that releases the GIL and caches its machine code between processes.

    The file of the function must import this module by `from ... import`: `sources` searches for
    that text.
    """
    options = {"fastmath": fastmath, "inline": inline, "forceinline": forceinline}
    return partial(_compiled, options) if function is None else _compiled(options, function)


@overload
def borrowing(function: _Function) -> Dispatcher[_Function]: ...


@overload
def borrowing(
    *, fastmath: bool | set[str] = ..., forceinline: bool = ...
) -> Callable[[_Function], Dispatcher[_Function]]: ...


def borrowing(
    function: Callable[..., Any] | None = None,
    *,
    fastmath: bool | set[str] = False,
    forceinline: bool = False,
) -> Any:
    """`compiled` for a function that borrows its arrays: it makes none and returns none.

    It counts no references to them, as its caller holds them: that takes a quarter of the time of a
    pair's features. numba refuses a function that makes an array.
    """
    options = {"fastmath": fastmath, "forceinline": forceinline, "_nrt": False}
    return partial(_compiled, options) if function is None else _compiled(options, function)


def _compiled(options: dict[str, Any], function: Callable[..., Any]) -> Any:  # noqa: ANN401
    options = {"nogil": True, **options}
    if library := emit_options():
        return njit(**{**options, **library})(function)
    with _LOCK:
        folder = cache_folder()
        # Without source files (a zip, .pyc files) there is nothing to hash, so no cache.
        if folder is not None and os.path.isfile(inspect.getfile(function)):
            with _numba_cache_in(folder):
                found = njit(cache=True, **options)(function)
            if _is_kept_in(found, folder):
                return found
    return njit(**options)(function)


@contextmanager
def _numba_cache_in(folder: Path) -> Iterator[None]:
    """Set numba's cache folder: numba reads these two settings when a function is decorated."""
    wanted = {"CACHE_DIR": str(folder), "CACHE_LOCATOR_CLASSES": ""}
    before = {name: getattr(numba.config, name) for name in wanted if hasattr(numba.config, name)}
    for name in before:
        setattr(numba.config, name, wanted[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(numba.config, name, value)


def _is_kept_in(function: Any, folder: Path) -> bool:  # noqa: ANN401 - numba's dispatcher
    stats = getattr(function, "stats", None)  # absent with NUMBA_DISABLE_JIT
    return stats is None or Path(stats.cache_path).is_relative_to(folder)


@cache
def cache_folder() -> Path | None:
    """The folder of this version's machine code; None if no folder can be written.

    It is `compiled-<hash>` in NUMBA_CACHE_DIR, or else in the user's cache folder.
    """
    given = os.environ.get("NUMBA_CACHE_DIR") or getattr(numba.config, "CACHE_DIR", "")
    base = Path(given).absolute() if given else None
    folder = user_folder(f"compiled-{fingerprint()}", what="compiled code", base=base)
    if folder is not None:
        _trim(folder)
    return folder


def fingerprint() -> str:
    """16 hex digits: SHA-256 of the versions of Python and numba and of all `sources`."""
    digest = hashlib.sha256(f"{sys.version} {numba.__version__}".encode())
    for name, content in sorted(sources().items()):
        digest.update(f"\n{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def sources() -> dict[str, bytes]:
    """Path in the package and content of each file that compiled code depends on.

    Compiled code contains constants and functions of other files, so these are the files with
    compiled functions, all files that they import, and so on.
    """
    marked = (path for path in PACKAGE.rglob("*.py") if _MARK in path.read_bytes())
    return imported_sources(path.relative_to(PACKAGE).as_posix() for path in marked)


def _trim(folder: Path) -> None:
    """Remove the folders of other versions, except the 4 newest and those used within a day."""
    try:
        others = [
            (entry.stat(follow_symlinks=False).st_mtime, entry.path)
            for entry in os.scandir(folder.parent)
            if _FOLDER.fullmatch(entry.name)
            and entry.name != folder.name
            and entry.is_dir(follow_symlinks=False)
        ]
    except OSError:  # another process is removing them
        return
    for used_s, path in sorted(others, reverse=True)[_NUM_KEPT:]:
        if time.time() - used_s > _UNUSED_S:
            shutil.rmtree(path, ignore_errors=True)
