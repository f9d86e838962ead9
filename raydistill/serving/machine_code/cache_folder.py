"""The user's folder of caches: what can be made again. Needs the standard library alone."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path

logger = logging.getLogger("raydistill")


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
