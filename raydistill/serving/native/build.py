"""The native library of this machine: from the user's cache, or emitted in another process.

The cache's folder is named by a hash of all sources of the library and of the versions of numba
and llvmlite. Emitting takes about 40 s and needs numba, but no compiler and no linker: without one
the object file is kept, which llvmlite loads.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from raydistill.errors import UserError, WorkError
from raydistill.serving.machine_code.cache_folder import existing_folders, user_folder
from raydistill.serving.machine_code.sources import sources
from raydistill.serving.native.layout import LIBRARY, OBJECT

_ROOT = Path(__file__).parents[3]
HEADER = "raydistill.h"
# What the library is made from: these, and all that they import.
_SOURCES = tuple(
    f"serving/native/emit/{name}.py" for name in ("strings", "check", "memory", "emitter")
)
_CPU_INFO = Path("/proc/cpuinfo")
_EMITTER = "raydistill.serving.native.emit"
# What CPUs must have for a target, by the names of /proc/cpuinfo; the fastest target first.
_V3 = frozenset("avx avx2 bmi1 bmi2 f16c fma abm movbe".split())
_V4 = _V3 | frozenset("avx512f avx512bw avx512cd avx512dq avx512vl avx512_vnni".split())
_X86_64 = {"linux-x86_64-v4": _V4, "linux-x86_64-v3": _V3}
_AARCH64 = {"linux-aarch64-dot": frozenset({"asimddp"}), "linux-aarch64": frozenset[str]()}
TARGETS = (*_X86_64, *_AARCH64, "macos-arm64")
GIVEN = "RAYDISTILL_LIBRARY"  # the environment variable that names a library


def own_targets() -> list[str]:
    """The targets that this machine runs, the fastest first; none: its system or CPU has none."""
    system, machine = platform.system(), platform.machine().lower()
    if (system, machine) == ("Darwin", "arm64"):
        return ["macos-arm64"]
    flags = _cpu_flags() if system == "Linux" else set()
    wanted = _X86_64 if machine == "x86_64" else _AARCH64 if machine == "aarch64" else {}
    return [target for target, needed in wanted.items() if flags >= needed]


def own_target() -> str | None:
    """The first of `own_targets`, if there is one."""
    return next(iter(own_targets()), None)


def _cpu_flags() -> set[str]:
    """What this machine's CPU can do, by the names of /proc/cpuinfo."""
    if not _CPU_INFO.is_file():
        return set()
    found = re.search(r"^(flags|Features)\s*:(.*)$", _CPU_INFO.read_text(), flags=re.MULTILINE)
    return set(found[2].split()) if found else set()


def fingerprint() -> str:
    """16 hex digits: SHA-256 of the sources of the library and the versions of its compilers."""
    digest = hashlib.sha256()
    for package in ("numba", "llvmlite"):
        digest.update(f"{package} {_version(package)}\n".encode())
    for name, content in sorted(sources(_SOURCES).items()):
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
    targets = own_targets()
    if not targets:
        return None, f"no native library fits this CPU ({platform.system()} {platform.machine()})"
    if (there := next(filter(Path.is_file, map(_packaged, targets)), None)) is not None:
        return there, ""
    for target in targets:
        if (there := cached_library(target)) is not None:
            return there, ""
    return None, f"the native library is not built (`python -m {_EMITTER}` builds it)"


def _packaged(target: str) -> Path:
    """Where a wheel has the library for a target."""
    return Path(__file__).parent / "lib" / LIBRARY.format(target)


def copy_library(folder: Path, *, target: str | None = None) -> Path:
    """Copy a library and its header to a folder, for programs that link it; the library's copy.

    The library for `target`, by default the one that `Scorer` takes on this machine; it is emitted
    if need be. The copy has the name by which programs load it. Without a linker it is an object,
    which becomes part of a program.

    Raises:
        UserError: no library fits this CPU.
        WorkError: the library cannot be emitted.
    """
    found = _named(target) if target else found_library()[0]
    target = target or own_target()
    if found is None and target is None:
        raise UserError(found_library()[1])
    found = found or built_library(str(target))
    shutil.copy(Path(__file__).with_name(HEADER), folder)
    name = found.name if found.suffix == ".o" else f"libraydistill{found.suffix}"
    return Path(shutil.copy(found, folder / name))


def _named(target: str) -> Path | None:
    packaged = _packaged(target)
    return packaged if packaged.is_file() else cached_library(target)


def cached_library(target: str, *, checked: bool = False) -> Path | None:
    """The library or object in the cache, or None."""
    folders = existing_folders(_name(checked), base=_given_base())
    return next((file for folder in folders if (file := _file_in(folder, target))), None)


def _file_in(folder: Path, target: str) -> Path | None:
    files = (folder / LIBRARY.format(target), folder / OBJECT.format(target))
    return next((file for file in files if file.is_file()), None)


def built_library(target: str, *, checked: bool = False) -> Path:
    """The library for a target, as `built_libraries`."""
    return built_libraries([target], checked=checked)[target]


def built_libraries(targets: Sequence[str], *, checked: bool = False) -> dict[str, Path]:
    """Libraries by target, or objects where no linker was found; missing ones are emitted.

    Together: most of the time goes to what they share. `checked`: with a check of every index, for
    tests.

    Raises:
        WorkError: one cannot be emitted.
    """
    import fcntl  # imported here: Windows has none, and a wheel needs no lock

    folder = _folder(checked)
    with open(folder / ".lock", "w") as lock:  # closing it unlocks it
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be emitting the same
        missing = [target for target in targets if _file_in(folder, target) is None]
        if missing:
            _emit(missing, folder, checked=checked)
    found = {target: _file_in(folder, target) for target in targets}
    lost = [target for target, file in found.items() if file is None]
    if lost:
        raise WorkError(f"{_EMITTER} made no library for {', '.join(lost)}")
    return {target: file for target, file in found.items() if file is not None}


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


def _emit(targets: list[str], folder: Path, *, checked: bool) -> None:
    """Emit to a temporary folder and move the files: a file that exists is whole."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        command = [sys.executable, "-m", _EMITTER, "--output", temporary]
        command += [part for target in targets for part in ("--target", target)]
        command += ["--checked"] if checked else []
        paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]  # this raydistill, not another
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise WorkError(f"{' '.join(command)} failed: {done.stderr.strip()[-2_000:]}")
        files = (name.format(target) for target in targets for name in (LIBRARY, OBJECT))
        for file in files:  # of each target the library is preferred to its object
            if (Path(temporary) / file).is_file():
                os.replace(Path(temporary) / file, folder / file)
