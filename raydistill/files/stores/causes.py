"""What an error of an object store means: whether it passes, and what a user can do about it.

Arrow's S3 client names the error in its text, botocore in the response, other clients by an HTTP
status. Here an error has one code, in Arrow's spelling (`SLOW_DOWN`).
"""

from __future__ import annotations

import re

DENIED = "ACCESS_DENIED"
# Tried once more: "denied" can mean "slow down" under load (ray#55065), new credentials may have
# replaced expired ones, and the service that gives an instance its role may have been busy. Usually
# a second try fails too.
ONCE_MORE = {DENIED, "EXPIRED_TOKEN", "NO_CREDENTIALS", "HTTP 403"}
_TRANSIENT = ONCE_MORE | {
    "SLOW_DOWN",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "INTERNAL_ERROR",
    "REQUEST_TIMEOUT",
    "REQUEST_LIMIT_EXCEEDED",
    "BANDWIDTH_LIMIT_EXCEEDED",
    "NETWORK_CONNECTION",
    "THROTTLING",
    "THROTTLING_EXCEPTION",
    "OPERATION_ABORTED",
    "CONDITIONAL_REQUEST_CONFLICT",
}
_TRANSIENT_STATUS = {429, 500, 502, 503, 504, 509}
_NOT_ALLOWED = {405, 501}
_ARROW = re.compile(r"AWS Error ([A-Z_]+)(?: \(HTTP status (\d+)\))?")
_NAMED = re.compile(r"exceptionname: ?(\w+)", re.IGNORECASE)  # an error that Arrow does not know
_LATER = "submit the job again when the store is available"
_KEYS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_PROFILE, on the workers too"
_ADVICE = {
    "NO_SUCH_BUCKET": "check the bucket's name, and the account that the credentials belong to",
    "INVALID_BUCKET_NAME": "check the bucket's name",
    "INVALID_ACCESS_KEY_ID": _KEYS,
    "SIGNATURE_DOES_NOT_MATCH": _KEYS,
    "EXPIRED_TOKEN": "the credentials have expired: renew them (`aws sso login`), on the workers "
    "too, and submit the job again",
    "SSO_EXPIRED": "run `aws sso login` for that profile, on the workers too",
    "NO_CREDENTIALS": "give AWS_* variables, AWS_PROFILE or an instance role, on the workers too; "
    "for a public bucket add ?anonymous=true to the URI",
    "NO_PROFILE": "check AWS_PROFILE and ~/.aws/config, on the workers too",
    "BAD_CREDENTIALS": "check AWS_PROFILE and what it says in ~/.aws/config, on the workers too",
    "PERMANENT_REDIRECT": "give the bucket's region: AWS_REGION, or ?region= in the URI",
    "AUTHORIZATION_HEADER_MALFORMED": "give the bucket's region: AWS_REGION, or ?region= in the "
    "URI",
    "REQUEST_TIME_TOO_SKEWED": "set the clock of this machine",
    "ENTITY_TOO_LARGE": "the object is too large for this store",
    "INSUFFICIENT_STORAGE": "the store is full",
    "NETWORK_CONNECTION": f"check the network and AWS_ENDPOINT_URL, and {_LATER}",
    "SSL_ERROR": "check the address, and the certificates (AWS_CA_BUNDLE)",
}
_REFUSED = "check the credentials (AWS_* variables, on the workers too) and the bucket's policy"


class StoreFault(OSError):
    """An error of a store's client, in one line; `code` in the spelling of Arrow."""

    def __init__(self, message: str, *, code: str, status: int = 0) -> None:
        """`status`: of the HTTP response, 0 without one."""
        super().__init__(message)
        self.code, self.status = code, status

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the code."""
        return _fault, (str(self), self.code, self.status)


def _fault(message: str, code: str, status: int) -> StoreFault:
    return StoreFault(message, code=code, status=status)


def code_of(error: BaseException) -> tuple[str, int] | None:
    """Code and HTTP status of an error of a store; None for any other error."""
    if isinstance(error, StoreFault):
        return error.code, error.status
    if isinstance(error, ConnectionError | TimeoutError):
        return type(error).__name__, 0
    found = _ARROW.search(str(error))
    if found is None:
        return None
    code, status = found.group(1), int(found.group(2) or 0)
    if code == "UNKNOWN" and (named := _NAMED.search(str(error))):
        code = spelled(named.group(1))
    return code, status


def spelled(name: str) -> str:
    """A code in the spelling of Arrow: `SlowDown` is `SLOW_DOWN`, `503` is `HTTP 503`."""
    if name.isdigit():
        return f"HTTP {name}"
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def transient_name(code: str, status: int) -> str | None:
    """The name of a transient error for counts; None if another try would fail the same way."""
    if code in _TRANSIENT or code in ("TimeoutError",) or code.startswith("Connection"):
        return code
    if code.endswith("ConnectionError") or code == "BrokenPipeError":
        return code
    return f"HTTP {status}" if status in _TRANSIENT_STATUS else None


def advice(code: str, status: int) -> str:
    """What a user can do about an error."""
    name = transient_name(code, status)
    if status in _NOT_ALLOWED:
        return "this server takes no such request: files of a web server are only read"
    if code in _ADVICE:
        return _ADVICE[code]
    return _REFUSED if name is None or name in ONCE_MORE else _LATER
