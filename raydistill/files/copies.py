"""What can be made again: the user's folder of caches, and copies of remote folders in it.

A copy is complete when it has its name. It is marked as used each time that it is asked for; the
least used ones are removed when all have too many bytes, but none that was used within the last
hour: a worker may be reading it. Needs the standard library alone.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from raydistill.errors import UserError
from raydistill.files.durable import sync_folder, sync_tree

logger = logging.getLogger("raydistill")
MAX_GIB = "RAYDISTILL_CACHE_GIB"  # the variable that says how much may lie there
_MAX_GIB = 20.0  # eight teachers of a billion parameters in bfloat16, or 290 bundles of 69 MB
_IN_USE_S = 3_600.0
_COPIES = "copies"
_WARNED: set[str] = set()  # of what this process has said that it lies elsewhere


def user_folder(name: str, *, what: str, base: Path | None = None) -> Path | None:
    """A folder of this user's caches, made and writable; None where nothing can be written at all.

    It lies in `base`, else in `raydistill` below XDG_CACHE_HOME or `~/.cache`. Where that cannot be
    written it is in a temporary folder, and a warning says so; `what` is what it will hold.
    """
    try:
        return _made((base or _base()) / name)
    except OSError as error:
        temporary = _temporary(name)
        place = temporary or "memory alone, and made anew by every process"
        if what not in _WARNED:
            _WARNED.add(what)
            logger.warning("%s is kept in %s: %s", what, place, error)
        return temporary


def _base() -> Path:
    """The folder that the user, or the system, means for what can be made again.

    Raises:
        OSError: there is no home folder.
    """
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(caches):  # a relative one is to be ignored, by its specification
        return Path(caches) / "raydistill"
    home = os.path.expanduser("~") if os.environ.get("HOME", "unset") else ""
    if not os.path.isabs(home):
        raise OSError("there is no home folder; name one in XDG_CACHE_HOME")
    return Path(home) / ".cache" / "raydistill"


def _made(folder: Path) -> Path:
    """The folder, made if need be, marked as used now; OSError where it cannot be written."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    os.utime(folder)
    return folder


def _temporary(name: str) -> Path | None:
    """A folder for this user's processes alone, or for this process alone; None: there is none."""
    try:
        base = Path(tempfile.gettempdir()) / f"raydistill-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        if _is_private(base):
            return _made(base / name)
    except OSError:
        pass
    try:
        own = Path(tempfile.mkdtemp(prefix="raydistill-"))
    except OSError:
        return None
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def _is_private(folder: Path) -> bool:
    """Whether it is ours and no link: machine code that another user wrote would run as us."""
    info = folder.lstat()
    return (
        stat.S_ISDIR(info.st_mode)
        and info.st_uid == os.getuid()
        and not stat.S_IMODE(info.st_mode) & 0o077
    )


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
