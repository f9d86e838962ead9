"""A client's connection: uvicorn's, with a limit for heads, and deaf to `Upgrade`."""

from __future__ import annotations

from array import array
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 << 10  # of a request's line and headers, and the last piece that was received
_UPGRADE = {b"upgrade", b"http2-settings"}  # names of headers, and options of Connection


class Connection(HttpToolsProtocol):
    """Requests of one client."""

    def __init__(self, *args: Any, **more: Any) -> None:  # noqa: ANN401 - as uvicorn gives them
        """A connection that has sent nothing."""
        super().__init__(*args, **more)
        self.parser = _Parser(self)
        self._is_in_head, self._head_bytes = False, 0

    def data_received(self, data: bytes) -> None:
        """Read a piece, unless the head before it is too long: the parser keeps all of a head."""
        if self._head_bytes > MOST_HEAD_BYTES:
            self.send_400_response("The head of the request is too long.")
            return
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._is_in_head else 0

    def on_message_begin(self) -> None:
        """A head begins."""
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head ends; one with `Upgrade` is read again without it."""
        self._is_in_head = False
        super().on_headers_complete()

    def _should_upgrade(self) -> bool:
        return True  # uvicorn then leaves a request with `Upgrade` to the parser

    def plain_head(self) -> bytes:
        """The head that was read last, without `Upgrade`."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                kept = [one for one in value.split(b",") if one.strip().lower() not in _UPGRADE]
                lines.append(b"%s:%s" % (name, b",".join(kept)))
            elif name not in _UPGRADE:
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"", b""])


class _Parser(httptools.HttpRequestParser):
    """Reads a request with `Upgrade` as one without it, which RFC 9110 (7.8) allows.

    httptools takes what follows such a head for another protocol. Java's HttpClient sends
    `Upgrade: h2c` with its first requests, and their bodies in HTTP/1.1.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._connection = connection
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def feed_data(self, data: bytes | bytearray | memoryview[int] | array[int]) -> None:
        """Read a piece of the stream.

        Raises:
            HttpParserError: it is not HTTP/1, or asks for a tunnel.
        """
        while data:
            try:
                super().feed_data(data)
                return
            except httptools.HttpParserUpgrade as end:
                if self.get_method() == b"CONNECT":
                    raise httptools.HttpParserError("CONNECT") from end
                data = self._connection.plain_head() + bytes(data[end.args[0] :])
