"""The S3 clients of a process, with credentials, region and endpoint as AWS tools find them.

botocore resolves credentials (environment, profiles, SSO, `credential_process`, roles), renews
them, and sends whole-object requests: one request an object, with conditions. Arrow's client, which
lists and reads parts of objects, gets the same settings and credentials.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from botocore import UNSIGNED, exceptions
from botocore.config import Config
from botocore.httpsession import URLLib3SSLError
from botocore.parsers import ResponseParserError
from botocore.session import Session
from pyarrow import fs

from raydistill.files.stores.causes import StoreFault, spelled
from raydistill.files.stores.s3_options import S3Options, aws_environment

_CONNECT_S, _READ_S = 10.0, 60.0  # of one request; it is tried again (files/retry.py)
_CONNECTIONS = 32  # kept open: reads of a gather use 16 threads
_DEFAULT_REGION = "us-east-1"
_AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn")
_ROLE_TRIES = "metadata_service_num_attempts"  # of the instance's role, 1 s each
_CREATION = threading.Lock()  # creating clients of a session at the same time is not safe
# Names of botocore's exceptions to codes; all other botocore exceptions: NETWORK_CONNECTION.
_CODES = {
    "NoCredentialsError": "NO_CREDENTIALS",
    "ProfileNotFound": "NO_PROFILE",
    "UnauthorizedSSOTokenError": "SSO_EXPIRED",
    "SSOTokenLoadError": "SSO_EXPIRED",
    "TokenRetrievalError": "SSO_EXPIRED",
    "NoAuthTokenError": "SSO_EXPIRED",
    "LoginTokenLoadError": "SSO_EXPIRED",
    "LoginRefreshRequired": "SSO_EXPIRED",
    "SSOError": "SSO_EXPIRED",
    "SSLError": "SSL_ERROR",
    "ReadTimeoutError": "REQUEST_TIMEOUT",
    "ConnectTimeoutError": "REQUEST_TIMEOUT",
    "ParamValidationError": "INVALID_BUCKET_NAME",  # nothing else of a request is a user's
}
_CONNECTION = (
    exceptions.HTTPClientError,
    exceptions.ConnectionError,
    exceptions.IncompleteReadError,
    exceptions.FlexibleChecksumError,  # damaged on its way
)


class S3Client:
    """A client of one account and endpoint; safe to use from several threads."""

    def __init__(self, options: S3Options) -> None:
        """Resolve the settings; sends no request."""
        self._options = options
        self._session = Session(profile=options.profile)
        self._arrow_lock = threading.Lock()
        self._arrow: dict[str, tuple[object, fs.S3FileSystem]] = {}  # by region
        self._regions: dict[str, str] = {}  # by bucket
        with named_faults("settings"), _CREATION:
            configured = self._session.get_config_variable("region")
            region = options.region or os.environ.get("AWS_REGION") or configured
            # botocore reads AWS_DEFAULT_REGION alone; services that give credentials need it too.
            self._session.set_config_variable("region", region or _DEFAULT_REGION)
            if self._session.get_config_variable(_ROLE_TRIES) == 1:  # botocore's: too few, when
                self._session.set_config_variable(_ROLE_TRIES, 3)  # all workers start at once
            if not options.is_anonymous and self._session.get_credentials() is None:
                raise exceptions.NoCredentialsError  # a client without would keep none
            config = Config(
                connect_timeout=_CONNECT_S,
                read_timeout=_READ_S,
                max_pool_connections=_CONNECTIONS,
                retries={"total_max_attempts": 1, "mode": "standard"},
                signature_version=UNSIGNED if options.is_anonymous else None,
            )
            self.requests: Any = self._session.create_client(
                "s3",
                endpoint_url=options.endpoint_url,
                config=config,
            )
        self._region: str = region or _DEFAULT_REGION

    def open_bucket(self, bucket: str) -> None:
        """Check that a bucket exists and find its region: one request for each bucket.

        Raises:
            StoreFault: there is no such bucket, or the credentials are not valid.
        """
        if bucket not in self._regions:
            self._regions[bucket] = self._find_region(bucket)

    def _find_region(self, bucket: str) -> str:
        try:
            with named_faults("HeadBucket", bucket):
                found = self.requests.head_bucket(Bucket=bucket)
            is_aws = not self.custom_endpoint  # another server takes the region that is configured
            return str((is_aws and found.get("BucketRegion")) or self._region)
        except FileNotFoundError as error:
            message = f"NO_SUCH_BUCKET: there is no bucket {bucket!r}{self._at()}"
            raise StoreFault(message, code="NO_SUCH_BUCKET", status=404) from error
        except StoreFault as error:
            if error.status not in (301, 400, 403):
                raise
        try:  # the response to HEAD has no body, and so no name of the error
            with named_faults("ListObjectsV2", bucket):
                self.requests.list_objects_v2(Bucket=bucket, MaxKeys=1)
        except StoreFault as error:
            if error.status != 403 or error.code != "ACCESS_DENIED":
                raise  # but credentials may cover some prefixes only
        return self._region

    def _at(self) -> str:
        endpoint = self.custom_endpoint
        return f" at {endpoint}" if endpoint else ""

    @property
    def custom_endpoint(self) -> str:
        """The URL of a store other than AWS; "" for AWS."""
        url = str(self.requests.meta.endpoint_url)
        return "" if (urlsplit(url).hostname or "").endswith(_AWS_HOSTS) else url

    def arrow(self, bucket: str) -> fs.S3FileSystem:
        """Arrow's client for a bucket, with the credentials that are valid now."""
        region = self._regions.get(bucket, self._region)
        with named_faults("credentials"), self._arrow_lock:
            keys = self._keys()
            known = self._arrow.get(region)
            if known is None or known[0] != keys:
                known = self._arrow[region] = keys, self._new_arrow(region, keys)
            return known[1]

    def _keys(self) -> tuple[str, str, str | None] | None:
        """Access key, secret key and session token, renewed if need be; None: anonymous."""
        if self._options.is_anonymous:
            return None
        credentials = self._session.get_credentials()
        if credentials is None:
            raise exceptions.NoCredentialsError
        keys = credentials.get_frozen_credentials()
        return keys.access_key, keys.secret_key, keys.token

    def _new_arrow(self, region: str, keys: tuple[str, str, str | None] | None) -> fs.S3FileSystem:
        settings: dict[str, Any] = {"region": region, "anonymous": keys is None}
        if keys is not None:
            names = ("access_key", "secret_key", "session_token")
            settings |= dict(zip(names, keys, strict=True))
        if self.custom_endpoint:
            url = urlsplit(self.custom_endpoint)
            settings |= {"endpoint_override": url.netloc + url.path.rstrip("/")}
            settings["scheme"] = url.scheme
        # Delayed: a small object is one PUT, not three requests. No background writes: with them
        # concurrent copies of files can block each other for ever (arrow#32372).
        return fs.S3FileSystem(**settings, allow_delayed_open=True, background_writes=False)


def s3_client(options: S3Options) -> S3Client:
    """The client of this process for these options and the AWS_* variables as they are now."""
    return _client(options, aws_environment(), os.getpid())


@lru_cache(maxsize=64)
def _client(options: S3Options, _environment: object, _pid: int) -> S3Client:
    with named_faults("settings"):
        return S3Client(options)


@contextmanager
def named_faults(operation: str, path: str = "") -> Iterator[None]:
    """Turn botocore's errors into StoreFault, and "no such key" into FileNotFoundError."""
    of = f" during {operation}" + (f" of s3://{path}" if path else "")
    try:
        yield
    except exceptions.ClientError as error:
        raise _response_fault(error, of) from error
    except exceptions.BotoCoreError as error:
        name = type(error).__name__
        is_lost = isinstance(error, _CONNECTION)
        code = _CODES.get(name) or ("NETWORK_CONNECTION" if is_lost else "BAD_CREDENTIALS")
        raise StoreFault(f"{code}{of}: {error}", code=code) from error
    except RuntimeError as error:  # botocore has no class for it
        if "expired" not in str(error):
            raise
        raise StoreFault(f"EXPIRED_TOKEN{of}: {error}", code="EXPIRED_TOKEN") from error
    except (ResponseParserError, URLLib3SSLError) as error:  # not XML, or a body that is cut off
        raise StoreFault(f"NETWORK_CONNECTION{of}: {error}", code="NETWORK_CONNECTION") from error


def _response_fault(error: exceptions.ClientError, of: str) -> OSError:
    found = error.response.get("Error", {})
    code = spelled(str(found.get("Code", "")))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in ("NO_SUCH_KEY", "HTTP 404"):
        return FileNotFoundError(2, f"no object{of.rpartition(' of')[2]}")
    if code == "FORBIDDEN":
        code = "ACCESS_DENIED"
    message = f"{code}{of}: {found.get('Message') or 'no message'}"
    return StoreFault(message, code="ACCESS_DENIED" if code == "HTTP 403" else code, status=status)
