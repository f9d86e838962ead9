"""Disk space, open files, shared memory, clock, caches and the native library."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from raydistill.errors import UserError, WorkError
from raydistill.machine.check import GIB, Check, first_line, missing, ok, warning
from raydistill.machine.devices import memory_bytes
from raydistill.machine.versions import installed

_LEAST_FREE_BYTES, _MOST_FULL = 10 * GIB, 0.95  # Ray spills nothing to a disk that is 95 % full
_FEW_FILES = 4_096  # Ray opens some 10 a worker and its logs; a run at most 64 shards a reader
_STORE_SHARE = 0.3  # of the memory: the object store of a local Ray at most (cluster/connection.py)
_FIRST_DAY_S = 1_735_689_600  # 2025-01-01: a clock before it was never set


def check_disk(folder: str, *, name: str) -> Check:
    """Free space where a folder is, or would be made."""
    path = Path(folder).absolute()
    while not path.exists():
        path = path.parent
    usage = shutil.disk_usage(path)
    text = f"{folder}: {usage.free / GIB:.0f} of {usage.total / GIB:.0f} GiB free"
    if not os.access(path, os.W_OK):
        return missing(name, f"{text}, and {path} is not writable", mend=f"ls -ld {path}")
    if usage.free < _LEAST_FREE_BYTES or usage.used > _MOST_FULL * usage.total:
        return warning(name, text, mend=f"du -xh -d 2 {path} | sort -h | tail")
    return ok(name, text)


def check_files() -> Check:
    """How many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _FEW_FILES:
        wanted = hard if 0 <= hard < 65_536 else 65_536
        return warning("open files", f"ulimit -n is {soft:,}", mend=f"ulimit -n {wanted}")
    return ok("open files", f"ulimit -n is {soft:,}")


def check_shared_memory() -> Check:
    """Whether /dev/shm holds the object store of a local Ray."""
    place = Path("/dev/shm")
    if not place.exists():
        return ok("shared memory", "no /dev/shm: Ray uses files in its temporary folder")
    usage = shutil.disk_usage(place)
    wanted = _STORE_SHARE * memory_bytes()
    text = f"/dev/shm: {usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free"
    if usage.free < wanted:
        need = f"{text}, a local Ray may take {wanted / GIB:.1f} GiB; with less it uses a disk"
        size = f"{max(1, round(wanted / GIB))}g"
        mend = f"mount -o remount,size={size} /dev/shm, or docker run --shm-size={size}"
        return warning("shared memory", need, mend=mend)
    return ok("shared memory", text)


def check_clock() -> Check:
    """Whether the clock was ever set; a store's clock is compared in `store.py`."""
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < _FIRST_DAY_S:
        return missing("clock", f"{now}: it is not set", mend="timedatectl set-ntp true")
    return ok("clock", now)


def check_temporary() -> Check:
    """Ray's temporary folder, which gets logs and spilled objects."""
    return check_disk(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), name="disk of Ray")


def check_numba() -> Iterator[Check]:
    """Whether compiled code can be kept between processes."""
    try:
        from raydistill.serving.machine_code.compiled import cache_folder
    except ImportError:
        yield ok("numba", "not installed: bundles are scored with the native library alone")
        return
    folder = cache_folder()
    if folder is None or Path(tempfile.gettempdir()) in folder.parents:
        where = "memory alone" if folder is None else str(folder)
        text = f"compiled code is kept in {where}; each machine or process compiles for minutes"
        yield warning("numba", text, mend='export NUMBA_CACHE_DIR="$HOME/.cache/numba"')
        return
    yield ok("numba", f"compiled code is kept in {folder}")


def check_library() -> Check:
    """Whether the native library is there, loads, and has the format of this version."""
    from raydistill.serving.native.build import found_library
    from raydistill.serving.native.layout import MODEL_FORMAT
    from raydistill.serving.native.library import Library

    mend = "python -m raydistill.serving.native.emit"
    try:
        file, reason = found_library()
        if file is None and installed("numba") is None:
            lacking = f"{reason}, and numba is not installed: nothing can score a bundle"
            return missing("native library", lacking, mend="pip install 'raydistill[numba]'")
        if file is None:
            return warning("native library", f"{reason}; numba scores instead", mend=mend)
        found = int(Library(file)["rd_format"]())
    except (OSError, UserError, WorkError, ImportError) as error:
        return missing("native library", f"does not load: {first_line(error)}", mend=mend)
    if found != MODEL_FORMAT:
        text = f"{file} reads model format {found}, this version writes {MODEL_FORMAT}"
        return missing("native library", text, mend=mend)
    return ok("native library", str(file))
