"""Ports of this machine that nothing listens on."""

from __future__ import annotations

import os
import socket

_FIRST, _LAST, _APART = 20_000, 55_000, 10_000


def free_port() -> int:
    """A port that nothing listens on."""
    return free_ports(1)[0]


def free_ports(num: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(num)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return found


def free_pairs(num: int) -> list[int]:
    """Ports below 55,000 that are free with the one 10,000 above: SeaweedFS takes both."""
    found: list[int] = []
    for port in range(_FIRST + os.getpid() % _APART, _LAST, 7):
        if len(found) == num:
            break
        if _is_free(port) and _is_free(port + _APART):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
