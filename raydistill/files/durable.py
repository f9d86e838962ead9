"""Atomic writes of local files: also after a power loss, a file is either complete or absent."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

# Errors of file systems that cannot sync a folder (some network mounts): there is no alternative.
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EISDIR}


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file under a temporary name, sync it, rename it, and sync its folder.

    Without the first sync, a power loss may keep the new name and lose the content; without the
    last one, it may lose the name. Missing folders are created and synced.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        move_whole(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move_whole(source: Path, target: Path) -> None:
    """Sync `source`, rename it to `target` in the same folder, and sync the folder."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(source, target)
    sync_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents; sync the parent of each new folder."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_tree(folder: Path) -> None:
    """Sync all files and folders below a folder, and the folder itself, to the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk; no error where the file system cannot."""
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
