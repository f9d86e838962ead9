"""Local files that are whole or not there, after a loss of power too."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

# What a file system says that cannot sync a folder (some network mounts): nothing more can be done.
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EISDIR}


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file under another name, sync it, rename it, and sync its folder.

    Without the first sync a rename may survive a loss of power that the content does not; without
    the last one the name may be lost. Folders that are missing are made, and synced as well.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        move_whole(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move_whole(source: Path, target: Path) -> None:
    """Give a written file its name in the same folder: sync it, rename it, sync the folder."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(source, target)
    sync_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each with its name on the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_tree(folder: Path) -> None:
    """Bring all files below a folder, and their names, to the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in _CANNOT_SYNC:
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(handle)
