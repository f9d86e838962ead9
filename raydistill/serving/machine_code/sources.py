"""The source files that compiled code is made from. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

_PACKAGE = Path(__file__).parents[2]
_IMPORTED = re.compile(rb"^[ \t]*(?:from|import) raydistill((?:\.[a-z_0-9]+)+)", re.MULTILINE)


def sources(is_start: Callable[[str, bytes], bool]) -> dict[str, bytes]:
    """Path in the package and content of some files, of all files that they import, and so on.

    `is_start` tells by path and content whether a file is one of those to begin with.
    """
    files = {
        path.relative_to(_PACKAGE).as_posix(): path.read_bytes() for path in _PACKAGE.rglob("*.py")
    }
    left = [name for name, content in files.items() if is_start(name, content)]
    found: dict[str, bytes] = {}
    while left:
        name = left.pop()
        if name in found:
            continue
        found[name] = files[name]
        for match in _IMPORTED.finditer(files[name]):
            module = match[1].decode()[1:].replace(".", "/") or "__init__"
            left += [path for path in (f"{module}.py", f"{module}/__init__.py") if path in files]
    return found
