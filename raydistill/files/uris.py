"""URIs to file systems: local paths, `s3://`, and what fsspec opens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from pyarrow import fs

from raydistill.credentials import check_no_secret
from raydistill.files.retry import tried_at
from raydistill.files.stores.fsspec_store import FsspecStore, open_fsspec
from raydistill.files.stores.s3_options import s3_place, split_options, with_options
from raydistill.files.stores.s3_store import S3Store


class Store(Protocol):
    """Requests for whole files of a store; a missing file raises FileNotFoundError."""

    @property
    def has_conditions(self) -> bool:
        """Whether `create` and `replace` check and write in one step."""

    def get(self, path: str) -> bytes:
        """The content of a file."""

    def get_span(self, path: str, start: int, stop: int) -> bytes:
        """The bytes start..stop, without stop, fewer at the end of the file."""

    def put(self, path: str, data: bytes) -> None:
        """Write a file; it appears when it is complete."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a file that does not exist; False if it does."""

    def replace(self, path: str, data: bytes, *, tag: str) -> bool:
        """Write over a file whose state is `tag`; False if it has another state."""

    def tag(self, path: str) -> str | None:
        """A text that changes with the state of the file; None if it does not exist."""


def without_scheme(uri: str) -> str:
    """The path of a `file://` URI, or a path with `~` expanded; any other URI unchanged."""
    if uri.startswith("file://"):
        return unquote(uri.removeprefix("file://"))
    return os.path.expanduser(uri)


def open_store(uri: str) -> tuple[S3Store | FsspecStore, str]:
    """The store of a URI that is not local, and the path in it; sends no request.

    Raises:
        UserError: the scheme is not known, its package is missing, or the URI has a password.
    """
    check_no_secret("URI", uri)
    if uri.startswith("s3://"):
        options, path = s3_place(uri)
        return S3Store(options), path
    return open_fsspec(uri)


def open_uri(uri: str) -> tuple[fs.FileSystem, str]:
    """File system and path of a local path or a URI; sends no request.

    Raises:
        UserError: the URI cannot be parsed, or its scheme needs a package that is missing.
    """
    uri = without_scheme(uri)
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).absolute())
    store, path = open_store(uri)
    return fs.PyFileSystem(store), path


def uri_of(path: str, *, like: str) -> str:
    """The URI of a path on the file system of the URI `like`, with the same options."""
    if "://" not in without_scheme(like):
        return path
    scheme, _, rest = like.partition("://")
    if scheme != "s3":
        if "://" in path:  # of a web server
            return path
        # `abfs://container@account.host/x`: its paths have the container alone.
        container, at, account = rest.partition("/")[0].partition("@")
        inside = path.strip("/").removeprefix(f"{container}/" if at else "")
        return f"{scheme}://{container + at + account}/{inside}" if at else f"{scheme}://{inside}"
    return with_options(f"s3://{quote(path)}", split_options(like)[1])


def read_uri(uri: str) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the URI cannot be opened, or the object store failed.
    """
    if "://" not in without_scheme(uri):
        return Path(without_scheme(uri)).read_bytes()
    store, path = open_store(uri)
    return tried_at(uri, lambda: store.get(path))
