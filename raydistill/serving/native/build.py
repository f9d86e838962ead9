"""The native library of this machine: from the user's cache, or emitted in another process.

The cache's folder is named by a hash of all sources of the library and of the versions of numba
and llvmlite. Emitting takes about 40 s and needs numba, but no compiler and no linker: without one
the object file is kept, which llvmlite loads.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from raydistill.errors import WorkError
from raydistill.serving.machine_code.cache_folder import existing_folders, user_folder
from raydistill.serving.machine_code.sources import sources
from raydistill.serving.native.layout import LIBRARY, OBJECT

_ROOT = Path(__file__).parents[3]
# What the library is made from: these, and all that they import.
_SOURCES = tuple(
    f"serving/native/emit/{name}.py" for name in ("entry", "check", "memory", "emitter")
)
_CPU_INFO = Path("/proc/cpuinfo")
_EMITTER = "raydistill.serving.native.emit"
# What x86-64-v3 has and older CPUs have not, by the names of /proc/cpuinfo.
_X86_64_V3 = frozenset("avx avx2 bmi1 bmi2 f16c fma abm movbe".split())
GIVEN = "RAYDISTILL_LIBRARY"  # the environment variable that names a library


def own_target() -> str | None:
    """The target of this machine, or None: no library fits its system or its CPU."""
    system, machine = platform.system(), platform.machine().lower()
    if (system, machine) == ("Linux", "x86_64"):
        if not _CPU_INFO.is_file():
            return None
        flags = _CPU_INFO.read_text().partition("flags")[2].split("\n")[0].split()
        return "linux-x86_64-v3" if set(flags) >= _X86_64_V3 else None
    if (system, machine) == ("Linux", "aarch64"):
        return "linux-aarch64"
    return "macos-arm64" if (system, machine) == ("Darwin", "arm64") else None


def fingerprint() -> str:
    """16 hex digits: SHA-256 of the sources of the library and the versions of its compilers."""
    digest = hashlib.sha256()
    for package in ("numba", "llvmlite"):
        digest.update(f"{package} {_version(package)}\n".encode())
    for name, content in sorted(sources(lambda name, _: name in _SOURCES).items()):
        digest.update(f"\n{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def found_library() -> tuple[Path | None, str]:
    """The library for this machine, or None and the reason.

    The first of: the file that RAYDISTILL_LIBRARY names; the one in the package, as in a wheel; the
    one in the user's cache.
    """
    if given := os.environ.get(GIVEN):
        return Path(given), ""
    target = own_target()
    if target is None:
        return None, f"no native library fits this CPU ({platform.system()} {platform.machine()})"
    packaged = Path(__file__).parent / "lib" / LIBRARY.format(target)
    if packaged.is_file():
        return packaged, ""
    found = cached_library(target)
    reason = f"the native library is not built (`python -m {_EMITTER}` builds it)"
    return found, "" if found else reason


def cached_library(target: str, *, checked: bool = False) -> Path | None:
    """The library or object in the cache, or None."""
    folders = existing_folders(_name(checked), base=_given_base())
    return next((file for folder in folders if (file := _file_in(folder, target))), None)


def _file_in(folder: Path, target: str) -> Path | None:
    files = (folder / LIBRARY.format(target), folder / OBJECT.format(target))
    return next((file for file in files if file.is_file()), None)


def built_library(target: str, *, checked: bool = False) -> Path:
    """The library for a target, or its object where no linker was found; emitted if need be.

    `checked`: with a check of every index, for tests.

    Raises:
        WorkError: it cannot be emitted.
    """
    import fcntl  # imported here: Windows has none, and a wheel needs no lock

    folder = _folder(checked)
    with open(folder / ".lock", "w") as lock:  # closing it unlocks it
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be emitting the same
        if _file_in(folder, target) is None:
            _emit(target, folder, checked=checked)
    found = _file_in(folder, target)
    if found is None:
        raise WorkError(f"{_EMITTER} made no library for {target}")
    return found


def _folder(checked: bool) -> Path:
    folder = user_folder(_name(checked), what="the native library", base=_given_base())
    if folder is None:
        raise WorkError("no folder can be written for the native library; set NUMBA_CACHE_DIR")
    return folder


def _name(checked: bool) -> str:
    return f"native-{fingerprint()}{'-checked' if checked else ''}"


def _given_base() -> Path | None:
    given = os.environ.get("NUMBA_CACHE_DIR")  # as for other compiled code
    return Path(given).absolute() if given else None


def _emit(target: str, folder: Path, *, checked: bool) -> None:
    """Emit to a temporary folder and move the files: a file that exists is whole."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        command = [sys.executable, "-m", _EMITTER, "--target", target, "--output", temporary]
        command += ["--checked"] if checked else []
        paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]  # this raydistill, not another
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise WorkError(f"{' '.join(command)} failed: {done.stderr.strip()[-2_000:]}")
        for name in (LIBRARY.format(target), OBJECT.format(target)):  # the first is preferred
            if (Path(temporary) / name).is_file():
                os.replace(Path(temporary) / name, folder / name)
