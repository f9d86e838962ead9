"""The source files that compiled code is made from. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).parents[2]
_IMPORTED = re.compile(rb"^[ \t]*(?:from|import) raydistill((?:\.[a-z_0-9]+)+)", re.MULTILINE)


def sources(starts: Iterable[str]) -> dict[str, bytes]:
    """Path in the package and content of some files, of all files that they import, and so on."""
    left, found = list(starts), dict[str, bytes]()
    while left:
        name = left.pop()
        if name in found:
            continue
        found[name] = (PACKAGE / name).read_bytes()
        for match in _IMPORTED.finditer(found[name]):
            module = match[1].decode()[1:].replace(".", "/")
            files = (f"{module}.py", f"{module}/__init__.py")
            left += [file for file in files if (PACKAGE / file).is_file()]
    return found
