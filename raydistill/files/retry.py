"""Retries of object-store requests: how often, after which wait; and their counts.

`stores/causes.py` says which errors pass. Requests for whole objects are retried here alone.
Arrow's S3 client, which lists and reads parts, makes three tries; then it is retried here too.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from raydistill.errors import UserError
from raydistill.files.stores import causes

logger = logging.getLogger("raydistill")
_T = TypeVar("_T")
# Waits of at most 1, 2, 4, 8, 16, 16 and 16 s: 63 s, 31 s on average. A server that starts again
# takes up to a minute.
TRIES = 8
FIRST_WAIT_S = 1.0
_MOST_WAIT_S = 16.0
# Tries of an item of work whose requests failed with such an error or whose stream broke: a stream
# cannot be resumed, and a repeated item gives the same bytes.
ITEM_TRIES = 3
_ONCE_MORE_TRIES = 2


class StoreError(UserError):
    """An object-store request that still fails after its retries, or a broken stream; one line."""

    def __init__(self, message: str, *, code: str = "", is_final: bool = True) -> None:
        """`is_final`: a further try would fail too."""
        super().__init__(message)
        self.code, self.is_final = code, is_final


def transient_code(error: Exception) -> str | None:
    """The name of a transient error; None if another try would fail the same way."""
    if isinstance(error, StoreError):
        return None if error.is_final else error.code
    found = causes.code_of(error)
    return None if found is None else causes.transient_name(*found)


def store_error(error: Exception, *, num_tries: int = 1) -> StoreError | None:
    """The StoreError to raise for an error of the object store; None for any other error.

    A permanent error is final; "access denied" and "expired" are final after more than one try.
    """
    found = causes.code_of(error)
    if found is None:
        return None
    name = causes.transient_name(*found)
    times = f" {num_tries} times" if num_tries > 1 else ""
    return StoreError(
        f"the object store failed{times}: {_line(error)}; {causes.advice(*found)}",
        code=name or "",
        is_final=name is None or (name in causes.ONCE_MORE and num_tries > 1),
    )


def tried_at(uri: str, call: Callable[[], _T]) -> _T:
    """The result of `call()`, which reads or writes at `uri`; not retried for a local path.

    Raises:
        StoreError: as `tried`.
    """
    return tried(call) if "://" in uri else call()


def tried(call: Callable[[], _T], *, tries: int = TRIES) -> _T:
    """The result of `call()`, retried after a random wait if it fails with a transient error.

    `call` must be safe to repeat. The wait is uniform between 0 and a maximum that doubles with
    each try ("full jitter", M. Brooker, AWS Architecture Blog 2015), so that clients that failed
    together do not retry together. A missing file is not a transient error.

    Raises:
        StoreError: every try failed, or the store gave a permanent error.
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
        time.sleep(random.uniform(0, min(_MOST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1))))


def _most(code: str, tries: int) -> int:
    return min(tries, _ONCE_MORE_TRIES) if code in causes.ONCE_MORE else tries


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# --- counts of retries: of this process, and on the driver also those that its workers report

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def take() -> dict[str, int]:
    """Retries by error since the last call; sets the counts to zero."""
    with _lock:
        found = dict(_counts)
        _counts.clear()
    return found


def add(counts: Mapping[str, int]) -> None:
    """Add counts, such as those that `take` returned in another process; warn at powers of two."""
    with _lock:
        before = _counts.total()
        _counts.update(counts)
        after = _counts.total()
    if after.bit_length() > before.bit_length():  # at 1, 2, 4, 8, ...: a busy store fails often
        logger.warning("%s so far", _describe(_counts))


def for_success() -> dict[str, dict[str, int]]:
    """The entry of the retry counts in _SUCCESS.json; {} without retries."""
    with _lock:
        return {"tried_again": dict(sorted(_counts.items()))} if _counts else {}


def _note(code: str, error: Exception) -> None:
    logger.debug("tried again after %s", _line(error))
    add({code: 1})


def describe_counts() -> str | None:
    """One line on the retries since the last `take`; None without retries."""
    return _describe(_counts) if _counts else None


def _describe(counts: Mapping[str, int]) -> str:
    named = ", ".join(f"{num:,} {code}" for code, num in sorted(counts.items()))
    total = sum(counts.values())
    requests = "1 request" if total == 1 else f"{total:,} requests"
    verb = "was" if total == 1 else "were"
    return f"{requests} to the object store {verb} tried again ({named})"


def log_counts(stage: str) -> None:
    """Log the retries since the last call, if any, and set the counts to zero."""
    line = describe_counts()
    if line:
        logger.info("%-9s %s", stage, line)
    take()
