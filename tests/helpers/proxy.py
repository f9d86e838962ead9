"""A proxy in front of an S3 server that fails some requests, as a busy or faulty store does."""

from __future__ import annotations

import http.client
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Answer = tuple[int, str]
SLOW_DOWN: Answer = (503, "SlowDown")
TOO_MANY: Answer = (429, "TooManyRequests")
INTERNAL: Answer = (500, "InternalError")
DENIED: Answer = (403, "AccessDenied")
EXPIRED: Answer = (400, "ExpiredToken")
CLOSED: Answer = (0, "")  # the connection is closed without a response
CUT_OFF: Answer = (200, "")  # it is closed in the middle of the content
LOST: Answer = (0, "lost")  # the server does it, and the connection is closed without a response
DELAY: Answer = (200, "delay")  # the response comes late
PASSING = (SLOW_DOWN, INTERNAL, CLOSED, CUT_OFF, LOST, DELAY)
_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message>'
    "<RequestId>1</RequestId></Error>"
)
_OF_A_CONNECTION = {"connection", "transfer-encoding", "keep-alive"}
_DELAY_S = 0.05
_SIGNED = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/")


@dataclass
class Proxy:
    """The requests that fail, and the methods of all requests since the last `fail`."""

    host: str  # of the S3 server
    uri: str = ""  # of the bucket, through the proxy
    endpoint: str = ""  # of the proxy
    answer: Answer = SLOW_DOWN
    methods: frozenset[str] = frozenset()
    first: int = 0  # index of the first failing request of these methods
    num: int = 0
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    draws: random.Random | None = None
    share: float = 0.0
    given: Counter[Answer] = field(default_factory=Counter)  # faults at random, by kind
    keys: set[str] = field(default_factory=set)  # access keys of all requests
    regions: set[str] = field(default_factory=set)
    ignored: frozenset[str] = frozenset()  # conditions, as of a server that does not know them

    def fail(self, num: int, answer: Answer, *, methods: str = "", first: int = 0) -> None:
        """Give `answer` to `num` requests of `methods` (default: all), from request `first` on."""
        with self.lock:
            self.requests.clear()
            self.answer, self.num, self.first = answer, num, first
            self.methods = frozenset(methods.split() or ["GET", "HEAD", "PUT", "POST", "DELETE"])

    def fail_at_random(self, share: float, *, seed: int) -> None:
        """Give one of the faults that pass to a share of all requests; 0.0: to none."""
        with self.lock:
            self.draws, self.share = random.Random(seed), share
            self.given.clear()

    def next_answer(self, method: str) -> Answer | None:
        """The response to a new request; None: forward it to the server."""
        with self.lock:
            self.requests.append(method)
            at = sum(one in self.methods for one in self.requests) - 1
            if method in self.methods and self.first <= at < self.first + self.num:
                return self.answer
            if self.draws is None or self.draws.random() >= self.share:
                return None
            answer = self.draws.choice(PASSING)
            self.given[answer] += 1
            return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *_: object) -> None:
        """Do not log requests."""

    def answer(self) -> None:
        body = self._body()
        if body is None:  # the client has gone
            self.close_connection = True
            return
        if signed := _SIGNED.search(self.headers.get("Authorization", "")):
            self.proxy.keys.add(signed[1])
            self.proxy.regions.add(signed[2])
        failure = self.proxy.next_answer(self.command)
        if failure == DELAY:
            time.sleep(_DELAY_S)
        if failure == CLOSED:
            self.close_connection = True
        elif failure in (None, CUT_OFF, LOST, DELAY):
            self._forward(body, failure=failure)
        else:
            self._send(failure[0], {}, _ERROR.format(code=failure[1]).encode())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def _forward(self, body: bytes, *, failure: Answer | None) -> None:
        server = http.client.HTTPConnection(self.proxy.host)
        headers = {k: v for k, v in self.headers.items() if self._is_passed_on(k)}
        server.request(self.command, self.path, body, headers)
        found = server.getresponse()
        headers = {k: v for k, v in found.getheaders() if k.lower() not in _OF_A_CONNECTION}
        content = found.read()
        server.close()
        if failure == LOST:
            self.close_connection = True
            return
        self._send(found.status, headers, content, is_cut_off=failure == CUT_OFF)

    def _is_passed_on(self, header: str) -> bool:
        return header.lower() not in self.proxy.ignored

    def _body(self) -> bytes | None:
        """The content of the request; None if it ends early."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            size = int(self.headers.get("Content-Length", 0))
            content = self.rfile.read(size)
            return content if len(content) == size else None
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        del self.headers["Transfer-Encoding"]
        return b"".join(parts)

    def _send(
        self, status: int, headers: dict[str, str], content: bytes, *, is_cut_off: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if is_cut_off else content)
        self.close_connection |= is_cut_off


class _Server(ThreadingHTTPServer):
    """Ends its connections when it ends: clients keep them open, and each has a thread."""

    daemon_threads = True

    def __init__(self, handler: type[_Handler]) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), handler)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def end(self) -> None:
        self.shutdown()
        for request in list(self.open):
            with suppress(OSError):  # its thread is closing it
                request.shutdown(socket.SHUT_RDWR)
        self.server_close()


@contextmanager
def proxy_of(endpoint: str, *, bucket: str) -> Iterator[Proxy]:
    """A proxy for the server at `endpoint`, for the duration of the block."""
    found = Proxy(urlsplit(endpoint).netloc)
    handler = type("Handler", (_Handler,), {"proxy": found})
    server = _Server(handler)
    work = {"poll_interval": 0.01}
    threading.Thread(target=server.serve_forever, kwargs=work, daemon=True).start()
    port = server.server_address[1]
    found.endpoint = f"http://127.0.0.1:{port}"
    found.uri = f"s3://{bucket}?endpoint_override=127.0.0.1%3A{port}&scheme=http"
    try:
        yield found
    finally:
        server.end()
