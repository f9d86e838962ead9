"""The installed libraries beside the ranges of raydistill's own metadata, and constraints.txt.

The installed distribution has the ranges of pyproject.toml in its metadata. A checkout also has
constraints.txt, the versions that it was tested with.
"""

from __future__ import annotations

import platform
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from raydistill.machine.check import Check, missing, ok, warning

_ROOT = Path(__file__).parents[2]  # of a checkout
_NEED = re.compile(r"([A-Za-z0-9._-]+)\s*(\[[^]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?$")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_RULE = re.compile(r"(~=|==|!=|<=|>=|<|>)\s*([0-9][^,\s]*)")
_LEAST_PYTHON = (3, 11)  # requires-python of pyproject.toml
_EVERYTHING = "pip install 'raydistill[distill]'"


@dataclass(frozen=True)
class Need:
    """A library with the range that raydistill needs, and the extra that needs it ("" always)."""

    name: str
    range: str
    extra: str
    parts: str = ""  # its own extras, as `[data,train]`

    def allows(self, found: str) -> bool:
        """Whether a version is in the range."""
        return all(_holds(found, sign, bound) for sign, bound in _RULE.findall(self.range))


def parse_need(text: str) -> Need:
    """A line of `Requires-Dist`, such as `torch>=2.7; extra == "distill"`."""
    match = _NEED.match(text.strip())
    if match is None:
        return Need(text.strip(), "", "")
    extra = _EXTRA.search(match[4] or "")
    return Need(match[1], match[3].strip(), extra[1] if extra else "", match[2] or "")


def _release(text: str) -> tuple[int, ...]:
    """The numbers of a version: 2.13.0+cpu is (2, 13, 0)."""
    found = re.match(r"[0-9]+(\.[0-9]+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def _holds(found: str, sign: str, bound: str) -> bool:
    one, other = _release(found), _release(bound)
    length = max(len(one), len(other))
    one, other = (numbers + (0,) * (length - len(numbers)) for numbers in (one, other))
    if sign == "~=":
        return one >= other and one[: len(_release(bound)) - 1] == other[: len(_release(bound)) - 1]
    if sign == "==" and bound.endswith(".*"):
        return one[: len(_release(bound))] == _release(bound)
    rules = {
        **{"==": one == other, "!=": one != other},
        **{"<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other},
    }
    return rules[sign]


def needs() -> list[Need]:
    """What raydistill needs, from its metadata; from pyproject.toml if it is not installed."""
    try:
        return [parse_need(line) for line in requires("raydistill") or ()]
    except PackageNotFoundError:
        file = _ROOT / "pyproject.toml"
        if not file.is_file():
            return []
    project: dict[str, Any] = tomllib.loads(file.read_text())["project"]
    found = [parse_need(line) for line in project["dependencies"]]
    for extra, lines in project["optional-dependencies"].items():
        found += [replace(one, extra=extra) for one in map(parse_need, lines)]
    return found


def installed(name: str) -> str | None:
    """The installed version of a library; None: it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_python() -> Check:
    """Python's version."""
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if tuple(map(int, platform.python_version_tuple()[:2])) < _LEAST_PYTHON:
        return missing("Python", text, mend="install Python 3.11 or newer")
    return ok("Python", text)


def has_distill() -> bool:
    """Whether anything of [distill] is installed: a machine that only serves has nothing of it."""
    return any(installed(name) for name in ("ray", "torch", "pyarrow"))


def check_versions(*, needs_distill: bool) -> Iterator[Check]:
    """Libraries outside their ranges or not installed, else a line on all of them.

    `needs_distill`: a machine without [distill] lacks it; otherwise it only serves.
    """
    everything = needs()
    if not everything:
        yield warning("libraries", "raydistill is not installed", mend=_EVERYTHING)
        return
    yield from _check_extra("libraries", [one for one in everything if not one.extra], "")
    if not (needs_distill or has_distill()):
        text = "[distill] is not installed: this machine serves bundles, and makes none"
        yield ok("libraries", f"{text} ({_EVERYTHING})")
        return
    names = {"distill", "numba"}
    of_distill = [one for one in everything if one.extra in names and one.name != "raydistill"]
    yield from _check_extra("libraries", of_distill, "distill")
    yield from _check_constraints()


def _check_extra(name: str, wanted: list[Need], extra: str) -> Iterator[Check]:
    num_right = 0
    for need in wanted:
        found, exact = installed(need.name), f"{need.name}{need.parts}{need.range}"
        if found is None:
            yield missing(name, f"{need.name} is not installed", mend=f"pip install '{exact}'")
        elif not need.allows(found):
            text = f"{need.name} {found} is outside {need.range}"
            yield missing(name, text, mend=f"pip install '{exact}'")
        else:
            num_right += 1
    if num_right:
        of = f" of [{extra}]" if extra else ""
        yield ok(name, f"{num_right} of {len(wanted)} libraries{of} are within their ranges")


def _check_constraints() -> Iterator[Check]:
    """Versions other than those that a checkout's constraints.txt names."""
    file = _ROOT / "constraints.txt"
    if not file.is_file():
        return
    lines = [line.partition("#")[0].strip() for line in file.read_text().splitlines()]
    pins = dict(line.split("==", 1) for line in lines if "==" in line)
    found = {name: installed(name) for name in pins}
    others = [
        f"{name} {have} (tested with {pins[name]})"
        for name, have in found.items()
        if have is not None and have.partition("+")[0] != pins[name].partition("+")[0]
    ]
    if others:
        text = f"{len(others)} of {len(pins)} differ: {', '.join(others[:4])}"
        more = ", ..." if len(others) > 4 else ""
        mend = f"pip install -c {file} '{_ROOT}[distill]'"
        yield warning("constraints.txt", text + more, mend=mend)
    else:
        yield ok("constraints.txt", f"the installed ones of {len(pins)} libraries are as tested")
