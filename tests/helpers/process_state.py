"""What tests of one process share: the environment, the working directory, signals, Ray."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

_ACCOUNTS = ("AWS_", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_")
# Variables that a test may not even add; libraries add others when they are imported.
_OURS = (*_ACCOUNTS, "XDG_", "NUMBA_", "RAYDISTILL_", "HOME", "PYTHONPATH")

_shared: dict[str, object] = {}  # what a fixture of the session sets for all tests that follow


def share(**settings: str) -> None:
    """Set variables for the rest of the session, by a fixture of the session."""
    os.environ.update(settings)
    _shared.update(settings)


def share_ray() -> None:
    """A fixture of the session has started Ray."""
    _shared["Ray"] = True


def forget_accounts() -> None:
    """Take the user's buckets and clusters out of the environment: no test may use them."""
    for name in [name for name in os.environ if name.startswith(_ACCOUNTS)]:
        del os.environ[name]
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        os.environ[name] = os.devnull


def process_state() -> dict[str, object]:
    """What a test may not leave changed: the next one of its process would depend on it."""
    signals = {f"signal {n}": signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    return {**os.environ, **signals, "cwd": Path.cwd(), "Ray": _is_ray_started()}


def _is_ray_started() -> bool:
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def left_changed(before: dict[str, object], after: dict[str, object]) -> dict[str, object]:
    """What a test left otherwise than it was, with the value that it left; None: it is gone."""
    names = {name for name in before if before[name] != after.get(name)}
    names |= {name for name in after.keys() - before.keys() if name.startswith(_OURS)}
    found = {name: after.get(name) for name in names - {"PYTEST_CURRENT_TEST"}}
    return {name: found[name] for name in found if not _is_shared(name, found[name])}


def _is_shared(name: str, value: object) -> bool:
    return name in _shared and _shared[name] == value
