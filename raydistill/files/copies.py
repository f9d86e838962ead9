"""Copies of remote folders in the user's folder of caches.

A copy is complete when it has its name. It is marked as used each time that it is asked for; the
least used ones are removed when all have too many bytes, but none that was used within the last
hour: a worker may be reading it. Needs the standard library alone.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from raydistill.errors import UserError
from raydistill.files.durable import sync_folder, sync_tree
from raydistill.serving.machine_code.cache_folder import user_folder

logger = logging.getLogger("raydistill")
MAX_GIB = "RAYDISTILL_CACHE_GIB"  # the variable that says how much may lie there
_MAX_GIB = 20.0  # eight teachers of a billion parameters in bfloat16, or 290 bundles of 69 MB
_IN_USE_S = 3_600.0
_COPIES = "copies"


def copies_folder() -> Path:
    """Where copies lie.

    Raises:
        UserError: nothing can be written on this machine.
    """
    folder = user_folder(_COPIES, what="a copy")
    if folder is None:
        raise UserError("no folder for copies can be written; name one in XDG_CACHE_HOME")
    return folder


def max_cache_bytes() -> int:
    """How many bytes of copies are kept.

    Raises:
        UserError: the variable holds no number.
    """
    given = os.environ.get(MAX_GIB, str(_MAX_GIB))
    try:
        return int(float(given) * 2**30)
    except (ValueError, OverflowError) as error:  # no number, or no finite one
        raise UserError(f"{MAX_GIB} = {given!r}: give a number of GiB, 20 say") from error


def cached_copy(key: str, copy: Callable[[Path], None]) -> Path:
    """The local folder of that key; where there is none, `copy` fills an empty one first."""
    target, max_bytes = copies_folder() / key, max_cache_bytes()
    _mark_used(target)  # first: what was just used is not removed
    if not target.exists():
        partial = target.with_name(f"{key}.{uuid.uuid4().hex}")
        partial.mkdir(parents=True)
        try:
            copy(partial)
            sync_tree(partial)
            _move_folder(partial, target)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        trim(target.parent, max_bytes=max_bytes, keep=target)
    return target


def trim(folder: Path, *, max_bytes: int, keep: Path) -> None:
    """Remove the copies that were not used for the longest time, until the rest is small enough."""
    now_s = time.time()
    entries = sorted((_used_s(entry), entry) for entry in folder.iterdir() if entry.is_dir())
    sizes = {entry: _size_bytes(entry) for _, entry in entries}
    total = sum(sizes.values())
    for used_s, entry in entries:
        if total <= max_bytes:
            return
        if entry == keep or now_s - used_s < _IN_USE_S:
            continue
        doomed = entry.with_name(f"{entry.name}.{uuid.uuid4().hex}")
        try:
            os.rename(entry, doomed)  # first: a copy that has its name is complete
        except OSError:
            continue  # another process was faster
        shutil.rmtree(doomed, ignore_errors=True)
        total -= sizes[entry]
        logger.info("cache     removed %s, %.1f GB", entry, sizes[entry] / 1e9)


def _move_folder(source: Path, target: Path) -> None:
    """Put `source` at `target`; another process that was faster has made the same."""
    try:
        os.rename(source, target)
    except OSError:
        if not target.exists():
            raise


def _mark_used(entry: Path) -> None:
    try:
        os.utime(entry)
    except OSError:
        pass  # of another user: it may be read, and is theirs to remove


def _used_s(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:
        return time.time()  # gone meanwhile


def _size_bytes(entry: Path) -> int:
    size = 0
    for place, _, names in os.walk(entry):  # which passes over what another process removes
        for name in names:
            try:
                size += os.stat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return size
