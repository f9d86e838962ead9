"""Local copies of remote folders in the user's cache folder.

A copy is written under a temporary name and renamed when it is complete. Each request sets its
modification time. If all copies together exceed the limit, the least recently used are removed,
except those used within the last hour, which a worker may be reading. Standard library only.
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
MAX_GIB = "RAYDISTILL_CACHE_GIB"  # environment variable: the limit of all copies, in GiB
_MAX_GIB = 20.0  # eight teachers of 10^9 parameters in bfloat16, or 290 bundles of 69 MB
_IN_USE_S = 3_600.0
_COPIES = "copies"


def copies_folder() -> Path:
    """The folder that holds the copies.

    Raises:
        UserError: no folder on this machine can be written.
    """
    folder = user_folder(_COPIES, what="a copy")
    if folder is None:
        raise UserError("no cache folder is writable; set XDG_CACHE_HOME to a writable folder")
    return folder


def max_cache_bytes() -> int:
    """The limit on all copies together, in bytes, from RAYDISTILL_CACHE_GIB.

    Raises:
        UserError: the variable is not a finite number.
    """
    given = os.environ.get(MAX_GIB, str(_MAX_GIB))
    try:
        return int(float(given) * 2**30)
    except (ValueError, OverflowError) as error:  # not a number, or not a finite one
        raise UserError(f"{MAX_GIB} = {given!r}: give a number of GiB, for example 20") from error


def cached_copy(key: str, copy: Callable[[Path], None]) -> Path:
    """The local folder of the copy `key`; if it does not exist, `copy` fills an empty folder."""
    target, max_bytes = copies_folder() / key, max_cache_bytes()
    _mark_used(target)  # before the check: another process does not remove a copy just used
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
    """Remove the least recently used copies until the rest takes at most `max_bytes`.

    `keep` and copies used within the last hour stay, even above the limit.
    """
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
            os.rename(entry, doomed)  # before deletion: a copy under its own name is complete
        except OSError:
            continue  # another process removed it first
        shutil.rmtree(doomed, ignore_errors=True)
        total -= sizes[entry]
        logger.info("cache     removed %s, %.1f GB", entry, sizes[entry] / 1e9)


def _move_folder(source: Path, target: Path) -> None:
    """Rename `source` to `target`; if another process created `target` first, keep that one."""
    try:
        os.rename(source, target)
    except OSError:
        if not target.exists():
            raise


def _mark_used(entry: Path) -> None:
    try:
        os.utime(entry)
    except OSError:
        pass  # a copy of another user: this process may read it, and only they may remove it


def _used_s(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:
        return time.time()  # removed by another process


def _size_bytes(entry: Path) -> int:
    size = 0
    for place, _, names in os.walk(entry):  # os.walk skips folders that another process removes
        for name in names:
            try:
                size += os.stat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return size
