"""The user's cache folder, for files that can be created again. Standard library only."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger("raydistill")


_WARNED: set[str] = set()  # caches for which this process logged the warning below


def user_folder(name: str, *, what: str, base: Path | None = None) -> Path | None:
    """The writable cache folder `name` of this user; None if no folder can be written.

    It is created in `base`, by default `raydistill` in XDG_CACHE_HOME or `~/.cache`. If that is not
    writable, it is created in a temporary folder, with a warning that names its content, `what`.
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


def existing_folders(name: str, *, base: Path | None = None) -> list[Path]:
    """The folders `name` of this user that exist, its cache first; writes nothing."""
    found = []
    with suppress(OSError):  # no home folder
        found.append((base or _base()) / name)
    with suppress(OSError):
        if _is_private(temporary := _temporary_base()):
            found.append(temporary / name)
    return [folder for folder in found if folder.is_dir()]


def _base() -> Path:
    """The cache folder of raydistill: in XDG_CACHE_HOME, by default `~/.cache`.

    Raises:
        OSError: there is no home folder.
    """
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(caches):  # the XDG specification ignores a relative path
        return Path(caches) / "raydistill"
    home = os.path.expanduser("~") if os.environ.get("HOME", "unset") else ""
    if not os.path.isabs(home):
        raise OSError("there is no home folder; name one in XDG_CACHE_HOME")
    return Path(home) / ".cache" / "raydistill"


def _made(folder: Path) -> Path:
    """Create the folder if need be and set its modification time; OSError if not writable."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    os.utime(folder)
    return folder


def _temporary(name: str) -> Path | None:
    """A temporary folder for this user, or else for this process only; None if neither works."""
    try:
        base = _temporary_base()
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


def _temporary_base() -> Path:
    return Path(tempfile.gettempdir()) / f"raydistill-{os.getuid()}"


def _is_private(folder: Path) -> bool:
    """Whether the folder is no link and only this user may access it.

    Otherwise machine code written by another user could run as this user.
    """
    info = folder.lstat()
    return (
        stat.S_ISDIR(info.st_mode)
        and info.st_uid == os.getuid()
        and not stat.S_IMODE(info.st_mode) & 0o077
    )
