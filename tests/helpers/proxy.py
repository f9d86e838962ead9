"""A proxy in front of an S3 server that fails some requests, as a busy or faulty store does."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Answer = tuple[int, str]
SLOW_DOWN: Answer = (503, "SlowDown")
TOO_MANY: Answer = (429, "TooManyRequests")
DENIED: Answer = (403, "AccessDenied")
CLOSED: Answer = (0, "")  # the connection is closed without a response
CUT_OFF: Answer = (200, "")  # it is closed in the middle of the content
_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message>'
    "<RequestId>1</RequestId></Error>"
)
_OF_A_CONNECTION = {"connection", "transfer-encoding", "keep-alive"}


@dataclass
class Proxy:
    """The requests that fail, and the methods of all requests since the last `fail`."""

    host: str  # of the S3 server
    uri: str = ""  # of the bucket, through the proxy
    answer: Answer = SLOW_DOWN
    methods: frozenset[str] = frozenset()
    first: int = 0  # index of the first failing request of these methods
    num: int = 0
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, num: int, answer: Answer, *, methods: str = "", first: int = 0) -> None:
        """Give `answer` to `num` requests of `methods` (default: all), from request `first` on."""
        with self.lock:
            self.requests.clear()
            self.answer, self.num, self.first = answer, num, first
            self.methods = frozenset(methods.split() or ["GET", "HEAD", "PUT", "POST", "DELETE"])

    def next_answer(self, method: str) -> Answer | None:
        """The response to a new request; None: forward it to the server."""
        with self.lock:
            self.requests.append(method)
            at = sum(one in self.methods for one in self.requests) - 1
            is_bad = method in self.methods and self.first <= at < self.first + self.num
            return self.answer if is_bad else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *_: object) -> None:
        """Do not log requests."""

    def answer(self) -> None:
        body = self._body()
        failure = self.proxy.next_answer(self.command)
        if failure == CLOSED:
            self.close_connection = True
        elif failure and failure != CUT_OFF:
            self._send(failure[0], {}, _ERROR.format(code=failure[1]).encode())
        else:
            self._forward(body, is_cut_off=failure == CUT_OFF)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def _forward(self, body: bytes, *, is_cut_off: bool) -> None:
        server = http.client.HTTPConnection(self.proxy.host)
        server.request(self.command, self.path, body, dict(self.headers))
        found = server.getresponse()
        headers = {k: v for k, v in found.getheaders() if k.lower() not in _OF_A_CONNECTION}
        self._send(found.status, headers, found.read(), is_cut_off=is_cut_off)
        server.close()

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
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


@contextmanager
def proxy_of(endpoint: str, *, bucket: str) -> Iterator[Proxy]:
    """A proxy for the server at `endpoint`, for the duration of the block."""
    found = Proxy(urlsplit(endpoint).netloc)
    handler = type("Handler", (_Handler,), {"proxy": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    work = {"poll_interval": 0.01}
    threading.Thread(target=server.serve_forever, kwargs=work, daemon=True).start()
    port = server.server_address[1]
    found.uri = f"s3://{bucket}?endpoint_override=127.0.0.1%3A{port}&scheme=http"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
