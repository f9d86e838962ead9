"""What a server accepts: its settings, the refusal of a request, the body, the number that wait."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect, Request

from raydistill.errors import UserError

TOKEN = "RAYDISTILL_TOKEN"  # of the environment
_BODY_S = 30.0  # for the whole body of a request; a client that is slower holds a connection only
# A body up to this many times too large is read and dropped: a client that still sends when the
# connection is closed does not see the answer.
_READ_OUT = 8
_RETRY_AFTER = {"retry-after": "1"}


@dataclass(frozen=True)
class Settings:
    """The limits of a server, and how it looks for new bundles; can be pickled.

    `max_waiting`: requests that are read or scored at once. `reload_s`: seconds between two looks
    for a newer bundle. `token`: what clients send as `Authorization: Bearer`, or None; spaces and
    the line's end around it do not count.
    """

    max_titles: int = 10_000
    max_body_bytes: int = 8 << 20
    max_waiting: int = 256
    reload_s: float = 3.0
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: one is out of range.
        """
        for name in ("max_titles", "max_body_bytes", "max_waiting"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"{name} is {value}; give at least 1")
        if not 0 < self.reload_s < float("inf"):
            raise UserError(f"reload_s is {self.reload_s}; give seconds above 0")
        if self.token is not None and not (self.token.isascii() and self.token.strip()):
            raise UserError("the token is empty or not ASCII; give one, or none")


class Refused(Exception):
    """A request that is answered with an error: its status, and what the client can do."""

    def __init__(
        self, status: int, error: str, *, hint: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """`error`: what was wrong, with the value; `hint`: what to do."""
        super().__init__(error)
        self.status, self.error, self.hint, self.headers = status, error, hint, headers


class Turns:
    """Admits requests to be read and to be scored, as long as not too many wait."""

    def __init__(self, max_waiting: int) -> None:
        """No request waits yet."""
        self._max_waiting, self.num_waiting = max_waiting, 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The time that a body is read or titles are scored.

        Raises:
            Refused: too many wait, 429.
        """
        if self.num_waiting >= self._max_waiting:
            raise Refused(
                429,
                f"{self.num_waiting} requests wait, which is the limit",
                hint="send it again later, or give the server more processes",
                headers=_RETRY_AFTER,
            )
        self.num_waiting += 1
        try:
            yield
        finally:
            self.num_waiting -= 1


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """The body of a request.

    Raises:
        Refused: it is too large (413), too slow (408), or the client has gone.
    """
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > _READ_OUT * max_bytes:
        raise _too_large(max_bytes, is_read=False)
    try:
        async with asyncio.timeout(_BODY_S):
            return await _joined(request, max_bytes=max_bytes)
    except TimeoutError as error:
        hint = "send the whole body at once"
        raise Refused(408, f"no whole body within {_BODY_S:.0f} s", hint=hint) from error
    except ClientDisconnect as error:
        raise Refused(400, "the connection ended before the body") from error


async def _joined(request: Request, *, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    num_bytes = 0
    async for part in request.stream():
        num_bytes += len(part)
        parts.append(part)
        if num_bytes > max_bytes:
            parts.clear()
        if num_bytes > _READ_OUT * max_bytes:  # of a body without Content-Length
            raise _too_large(max_bytes, is_read=False)
    if num_bytes > max_bytes:
        raise _too_large(max_bytes, is_read=True)
    return b"".join(parts)


def _too_large(max_bytes: int, *, is_read: bool) -> Refused:
    return Refused(
        413,
        f"the body has more than {max_bytes:,} bytes",
        hint="send fewer titles a request, or start the server with --max-body-bytes",
        headers=None if is_read else {"connection": "close"},
    )


def check_token(sent: str | None, *, token: str) -> None:
    """Compare the header `Authorization` with the server's token.

    Raises:
        Refused: it is missing or another one, 401.
    """
    scheme, _, value = (sent or "").partition(" ")
    is_right = hmac.compare_digest(value.strip().encode(), token.strip().encode())
    if scheme.lower() != "bearer" or not is_right:
        what = "another token" if sent else "no token"
        raise Refused(
            401,
            f"the request has {what}",
            hint="send the header Authorization: Bearer TOKEN",
            headers={"www-authenticate": "Bearer"},
        )
