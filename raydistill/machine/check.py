"""A line of `doctor`: what was looked at, whether it is right, and the command that mends it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "missing"]
GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """`mend`: a command, or a sentence where no command does it; "" where nothing is to do."""

    name: str
    status: Status
    text: str
    mend: str = ""


def ok(name: str, text: str) -> Check:
    """A line of something that is right."""
    return Check(name, "ok", text)


def warning(name: str, text: str, *, mend: str = "") -> Check:
    """A line of something that costs time, or will be missing later."""
    return Check(name, "warning", text, mend)


def missing(name: str, text: str, *, mend: str = "") -> Check:
    """A line of something without which a run, or this configuration, does not work."""
    return Check(name, "missing", text, mend)


def first_line(error: BaseException) -> str:
    """The first line of an error, or its kind."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def in_other_process(
    code: str, *, timeout_s: float, environment: Mapping[str, str]
) -> dict[str, Any]:
    """The JSON object that `code` prints last, run in another Python; {"error": ...} without one.

    What crashes or hangs there does neither here.
    """
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, env=dict(environment)
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout_s:.0f} s"}
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return {"error": lines[-1] if lines else f"exit code {done.returncode}"}
    return found
