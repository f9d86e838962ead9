"""Requests to an object store that are tried again: which, how often, after what wait; and counts.

Arrow's S3 client tries a busy store again by itself, every 0.2 s for 6 s, and all clients in step:
some of its errors at once it does not (429, 403). What it gives up is tried again here.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from raydistill.errors import UserError

logger = logging.getLogger("raydistill")
_T = TypeVar("_T")
# Four waits of at most 1 + 2 + 4 + 8 = 15 s, half of it on average, beside Arrow's 5 x 6 s.
TRIES = 5
FIRST_WAIT_S = 1.0
# Of an item of work whose requests failed so, or whose stream broke: a stream cannot go on where it
# was, and an item done again ends with the same bytes.
ITEM_TRIES = 3
_DENIED = "ACCESS_DENIED"
_DENIED_TRIES = 2  # under load it can stand for "slow down" (ray#55065); mostly it is what it says
_TRANSIENT = {
    "SLOW_DOWN",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "REQUEST_TIMEOUT",
    "NETWORK_CONNECTION",
    "THROTTLING",
    _DENIED,
}
_TRANSIENT_STATUS = {"429", "500", "502", "503", "504", "509"}
_AWS_ERROR = re.compile(r"AWS Error ([A-Z_]+)(?: \(HTTP status (\d+)\))?")


class StoreError(UserError):
    """An object store that gives an error still, or a stream of its that broke; one line."""

    def __init__(self, message: str, *, code: str = "", is_final: bool = True) -> None:
        """`is_final`: it is no use to try again what failed so."""
        super().__init__(message)
        self.code, self.is_final = code, is_final


def transient_code(error: Exception) -> str | None:
    """The name of an error that may pass by; None: another try would end the same way."""
    if isinstance(error, StoreError):
        return None if error.is_final else error.code
    if isinstance(error, ConnectionError | TimeoutError):
        return type(error).__name__
    found = _AWS_ERROR.search(str(error))
    if found is None:
        return None
    code, status = found.groups()
    if code in _TRANSIENT:
        return code
    return f"HTTP {status}" if status in _TRANSIENT_STATUS else None


def store_error(error: Exception, *, num_tries: int = 1) -> StoreError | None:
    """What to raise in place of an error of the object store; None: it is of something else.

    After one try only an error that does not pass by is final; after more "denied" is too.
    """
    code = transient_code(error)
    if code is None and not _AWS_ERROR.search(str(error)):
        return None
    is_refused = code is None or code == _DENIED
    way_out = (
        "check the credentials (AWS_* variables, on the workers too) and the bucket's policy"
        if is_refused
        else "submit the job again when it answers"
    )
    times = f" {num_tries} times" if num_tries > 1 else ""
    return StoreError(
        f"the object store failed{times}: {_line(error)}; {way_out}",
        code=code or "",
        is_final=code is None or (is_refused and num_tries > 1),
    )


def tried_at(uri: str, call: Callable[[], _T]) -> _T:
    """`call()`, which needs what lies at `uri`: made again if that is no path on a disk.

    Raises:
        StoreError: as `tried`.
    """
    return tried(call) if "://" in uri else call()


def tried(call: Callable[[], _T], *, tries: int = TRIES) -> _T:
    """`call()`; where it ends in an error that may pass by, again after a random wait.

    `call` must be one that can be made twice. The wait is between 0 and twice as long each time
    ("full jitter", M. Brooker, AWS Architecture Blog 2015): clients that failed together come back
    one after the other. A file that is not there is no such error.

    Raises:
        StoreError: the store gave an error every time, or one that does not pass by.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return call()
        except StoreError as error:
            if error.is_final or attempt >= _most(error.code, tries):
                raise
            _note(error.code, error)
        except OSError as error:
            code = transient_code(error)
            if code is None or attempt >= _most(code, tries):
                found = store_error(error, num_tries=attempt)
                if found is None:
                    raise
                raise found from error
            _note(code, error)
        time.sleep(random.uniform(0, FIRST_WAIT_S * 2 ** (attempt - 1)))


def _most(code: str, tries: int) -> int:
    return min(tries, _DENIED_TRIES) if code == _DENIED else tries


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# --- counts: of this process, and on the driver of what its workers sent

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def take() -> dict[str, int]:
    """How often each error was followed by another try since the last call."""
    with _lock:
        found = dict(_counts)
        _counts.clear()
    return found


def add(counts: Mapping[str, int]) -> None:
    """Count what another process took; warn now and then."""
    with _lock:
        before = _counts.total()
        _counts.update(counts)
        after = _counts.total()
    if after.bit_length() > before.bit_length():  # at 1, 2, 4, 8, ...: a busy store fails often
        logger.warning("%s so far", _describe(_counts))


def for_success() -> dict[str, dict[str, int]]:
    """What a stage writes of it in _SUCCESS.json: nothing where nothing was tried again."""
    with _lock:
        return {"tried_again": dict(sorted(_counts.items()))} if _counts else {}


def _note(code: str, error: Exception) -> None:
    logger.debug("tried again after %s", _line(error))
    add({code: 1})


def describe_counts() -> str | None:
    """A line about the tries since the last `take`; None if there was none."""
    return _describe(_counts) if _counts else None


def _describe(counts: Mapping[str, int]) -> str:
    named = ", ".join(f"{num:,} {code}" for code, num in sorted(counts.items()))
    total = sum(counts.values())
    requests = "1 request" if total == 1 else f"{total:,} requests"
    verb = "was" if total == 1 else "were"
    return f"{requests} to the object store {verb} tried again ({named})"


def log_counts(stage: str) -> None:
    """Log what was tried again since the last call, if anything, and count from zero."""
    line = describe_counts()
    if line:
        logger.info("%-9s %s", stage, line)
    take()
