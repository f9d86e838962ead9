"""Whether the run folder can be listed, written, read and deleted; leaves nothing behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from raydistill.machine.check import Check, first_line, missing, ok, warning
from raydistill.machine.system import check_disk

if TYPE_CHECKING:
    from raydistill.files.folder import Folder

_NAME = "store"
_APART_S, _REFUSED_S = 60.0, 900.0  # leases go by clocks; S3 refuses requests 15 minutes apart
_MEND = "aws sts get-caller-identity; check AWS_* and the bucket's policy (list, get, put, delete)"


def check_run_dir(run_dir: str) -> Iterator[Check]:
    """The disk of a local run folder; list, put, get and delete at an object store."""
    from raydistill.files.folder import Folder

    folder = Folder(run_dir)
    if folder.is_local:
        yield check_disk(folder.uri, name="run_dir")
        return
    try:
        yield from _check_store(folder)
    except (OSError, ValueError) as error:  # of Arrow, or a UserError in our words
        yield missing(_NAME, f"{folder}: {first_line(error)}", mend=_MEND)


def _check_store(folder: Folder) -> Iterator[Check]:
    start_s = time.monotonic()
    absent = _absent(folder)
    num_files = len(folder.files())
    name, content = f"_doctor-{uuid.uuid4().hex}", uuid.uuid4().bytes
    before_s = time.time()
    folder.write_bytes(name, content)
    try:
        is_same = folder.read_bytes(name) == content
        (info,) = folder.tried(lambda: folder.filesystem.get_file_info([folder.path(name)]))
    finally:
        folder.tried(lambda: folder.filesystem.delete_file(folder.path(name)))
        _delete_markers(folder, absent)
    if not is_same:
        yield missing(_NAME, f"{folder}: reads back other bytes than were written")
        return
    seconds = time.monotonic() - start_s
    yield ok(_NAME, f"{folder}: list ({num_files:,} files), put, get and delete in {seconds:.1f} s")
    if info.mtime_ns:
        yield _check_clocks(info.mtime_ns / 1e9 - before_s)


def _absent(folder: Folder) -> list[str]:
    """The paths of the folder and of those above it, below the bucket, that do not exist."""
    path, found = folder.path(), []
    while "/" in path:
        with suppress(OSError, ValueError):  # credentials may cover one prefix alone
            (info,) = folder.filesystem.get_file_info([path])
            if info.type.name == "NotFound":
                found.append(path)
        path = path.rpartition("/")[0]
    return found


def _delete_markers(folder: Folder, absent: list[str]) -> None:
    """Delete the empty objects that Arrow writes in place of folders: none was there before."""
    from pyarrow import fs

    for path in absent:
        with suppress(OSError, ValueError):
            selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
            if not folder.filesystem.get_file_info(selector):
                folder.filesystem.delete_dir(path)


def _check_clocks(apart_s: float) -> Check:
    text = f"{abs(apart_s):.0f} s from the store's"
    if abs(apart_s) > _REFUSED_S:
        return missing("clock", text, mend="timedatectl set-ntp true")
    if abs(apart_s) > _APART_S:
        return warning("clock", text, mend="timedatectl set-ntp true")
    return ok("clock", text)
