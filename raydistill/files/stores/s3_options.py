"""`s3://bucket/key?option=value`: path and options of a URI."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from raydistill.errors import UserError

OPTIONS = ("endpoint_override", "scheme", "region", "profile", "anonymous")


@dataclass(frozen=True)
class S3Options:
    """Where and as whom a bucket is used; None: as AWS tools find it (environment, profile)."""

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    is_anonymous: bool = False


def split_options(uri: str) -> tuple[str, str]:
    """The URI without its options, and the options; a `?` without a `=` is a wildcard."""
    # Of `s3://` the last `?`: the pattern `part-?.csv?region=eu-west-1` has one before. Of a signed
    # address of a web server the first: what follows is secret.
    base, mark, options = uri.rpartition("?") if uri.startswith("s3://") else uri.partition("?")
    return (base, options) if mark and "=" in options else (uri, "")


def with_options(base: str, options: str) -> str:
    """The URI that `split_options` took apart."""
    return f"{base}?{options}" if options else base


def s3_place(uri: str) -> tuple[S3Options, str]:
    """The options of an `s3://` URI and its path, `bucket/key`.

    Raises:
        UserError: it names no bucket, has an empty name, holds credentials, or has an unknown
            option.
    """
    base, query = split_options(uri)
    path = unquote(base.partition("://")[2]).strip("/")
    bucket = path.partition("/")[0]
    if "@" in bucket:
        raise UserError(
            "credentials in a URI would be in logs and in run.toml; leave them out, and give them "
            "as AWS tools take them (AWS_* variables, a profile, a role)"
        )
    if not bucket:
        raise UserError(f"{uri!r} names no bucket; give s3://bucket/folder")
    if "//" in path:  # Arrow lists such objects, and reads none of them
        raise UserError(f"{base} has an empty name between two slashes; give one slash")
    return _options(dict(parse_qsl(query)), uri=base), path


def _options(given: dict[str, str], *, uri: str) -> S3Options:
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise UserError(
            f"{uri}: unknown option {', '.join(unknown)} after ?; give {', '.join(OPTIONS)}"
        )
    endpoint = given.get("endpoint_override")
    if endpoint and "://" not in endpoint:
        endpoint = f"{given.get('scheme', 'https')}://{endpoint}"
    return S3Options(
        endpoint,
        given.get("region"),
        given.get("profile"),
        given.get("anonymous", "false").lower() in ("true", "1"),
    )


def aws_environment() -> tuple[tuple[str, str], ...]:
    """The variables from which AWS tools take settings, to notice that they have changed."""
    names = (name for name in os.environ if name.startswith("AWS_") or name == "HOME")
    return tuple((name, os.environ[name]) for name in sorted(names))
