"""What clients send on a connection beside plain requests."""

import re
import socket
from urllib.parse import urlsplit

import pytest

from raydistill.server.hosts.connection import MOST_HEAD_BYTES

BODY = b'{"query": "grey sofa", "titles": ["Sofa"]}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
# As Java's HttpClient sends it, and as a browser does that wants a WebSocket.
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAA\r\nUpgrade: h2c\r\n"
WEBSOCKET = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
PLAIN = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


def _post(*headers: bytes) -> bytes:
    return b"POST /score HTTP/1.1\r\nHost: a\r\n" + b"".join(headers) + b"\r\n"


def _answered(address: str, *pieces: bytes, num: int = 1) -> list[bytes]:
    """The statuses, and the body of the last answer, of what is sent in pieces."""
    with socket.create_connection(
        (urlsplit(address).hostname, urlsplit(address).port), timeout=20
    ) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        found = b""
        while len(re.findall(rb"}|closed|received|long", found)) < num:
            if not (part := connection.recv(1 << 16)):
                break
            found += part
    return [*re.findall(rb"HTTP/1.1 (\d+)", found), found.rpartition(b"\r\n\r\n")[2]]


@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
def test_an_upgrade_is_ignored(address: str, upgrade: bytes) -> None:
    head = _post(LENGTH, upgrade)
    chunked = _post(upgrade, b"Transfer-Encoding: chunked\r\n")
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    wanted = _answered(address, _post(LENGTH) + BODY)
    assert wanted[0] == b"200" and b"scores" in wanted[1]
    for pieces in (
        [head + BODY],
        [head, BODY],
        [head[:50], head[50:] + BODY[:9], BODY[9:]],
        [chunked, chunks],
    ):
        assert _answered(address, *pieces) == wanted
    several = (head + BODY) * 3 + PLAIN
    assert _answered(address, several, num=4) == [b"200"] * 4 + [b'{"status":"ok"}']


def test_a_tunnel_is_refused(address: str) -> None:
    assert _answered(address, b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n")[0] == b"400"


@pytest.mark.parametrize(
    "start", [b"GET /health?", b"GET /health HTTP/1.1\r\nx-a: "], ids=["target", "header"]
)
def test_a_head_has_a_limit(address: str, start: bytes) -> None:
    """Without one a client could fill the memory."""
    connection = socket.create_connection((urlsplit(address).hostname, urlsplit(address).port))
    with connection, pytest.raises(OSError):
        connection.sendall(start)
        for _ in range(100):
            connection.sendall(b"x" * MOST_HEAD_BYTES * 10)
    assert _answered(address, PLAIN)[0] == b"200"
