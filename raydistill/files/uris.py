"""URIs to filesystems: local paths, `s3://`."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from raydistill.errors import UserError
from raydistill.files.retry import tried


def without_scheme(uri: str) -> str:
    """The path of a `file://` URI, or a path with `~` expanded; any other URI unchanged."""
    if uri.startswith("file://"):
        return unquote(uri.removeprefix("file://"))
    return os.path.expanduser(uri)


def open_uri(uri: str) -> tuple[fs.FileSystem, str]:
    """File system and path of a local path or an `s3://` URI.

    Raises:
        UserError: the URI cannot be parsed or opened.
    """
    uri = without_scheme(uri)
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).absolute())
    try:
        # Retried, since it may send a request for the bucket's region. Brackets are quoted: a URI
        # must not hold them, but a pattern of names may.
        quoted = uri.replace("[", "%5B").replace("]", "%5D")
        filesystem, path = tried(lambda: fs.FileSystem.from_uri(quoted))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UserError(f"cannot open {uri!r}: {error}; give a local path or s3://") from error
    return filesystem, path.rstrip("/")
