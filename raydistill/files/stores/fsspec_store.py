"""Other stores, through fsspec: `gs://`, `abfs://`, `hf://`, `memory://`, `https://` (to read)."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.registry import known_implementations
from pyarrow import fs

from raydistill.errors import UserError
from raydistill.files.stores.causes import StoreFault

# The pip package of a scheme; fsspec's registry has the class of each.
PACKAGES = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "adl": "adlfs",
    "hf": "huggingface_hub",
    "http": "aiohttp",
    "https": "aiohttp",
    "oss": "ossfs",
    "oci": "ocifs",
    "memory": "fsspec",
}
_READ_BYTES = 1 << 20  # at least, of a request for a part of a file
# Where the implementations keep the time of the last change, and the tag of a file's state.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
_TAGS = ("ETag", "etag", "md5Hash", "blob_id")


def open_fsspec(uri: str) -> tuple[FsspecStore, str]:
    """The store and the path of a URI.

    Raises:
        UserError: the scheme is not known, its package is missing, or it cannot be opened.
    """
    scheme = uri.partition("://")[0]
    if scheme not in known_implementations or scheme not in PACKAGES:
        raise UserError(
            f"cannot open {uri!r}: no such scheme; give a local path, s3://, "
            f"{', '.join(f'{name}://' for name in PACKAGES)}"
        )
    try:
        with named_faults(uri):
            found, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    except ImportError as error:
        raise UserError(
            f"cannot open {uri!r}: {scheme}:// needs the package {PACKAGES[scheme]}; run "
            f"`pip install {PACKAGES[scheme]}`, on the workers too"
        ) from error
    except ValueError as error:
        raise UserError(f"cannot open {uri!r}: {error}") from error
    return FsspecStore(found), path.rstrip("/") or path


class FsspecStore(fs.FSSpecHandler):  # type: ignore[misc]
    """A file system of fsspec as an Arrow file system, without caches of listings."""

    fs: Any
    has_conditions = False

    def get(self, path: str) -> bytes:
        """The file at `path`."""
        with named_faults(path):
            return bytes(self.fs.cat_file(path))

    def get_span(self, path: str, start: int, stop: int) -> bytes:
        """The bytes start..stop, without stop, of a file."""
        if stop <= start:
            return b""
        with named_faults(path):
            data = bytes(self.fs.cat_file(path, start=start, end=stop))
        # A server without range requests sends the whole file.
        return data if len(data) <= stop - start else data[start:stop]

    def put(self, path: str, data: bytes) -> None:
        """Write a file, in one request where the store can."""
        self._write(path, data, mode="overwrite")

    def create(self, path: str, data: bytes) -> bool:
        """Write a file that does not exist; False if it does.

        Some implementations check and write in two steps, others not at all: the caller verifies.
        """
        try:
            self._write(path, data, mode="create")
        except FileExistsError:
            return False
        return True

    def replace(self, path: str, data: bytes, *, tag: str) -> bool:
        """Write over a file whose state is `tag`; False if it has another state. Two steps."""
        if self.tag(path) != tag:
            return False
        self.put(path, data)
        return True

    def tag(self, path: str) -> str | None:
        """A text that changes with the file's state; None if it does not exist."""
        try:
            with named_faults(path):
                info = self.fs.info(path)
        except FileNotFoundError:
            return None
        return _content_tag(info) or f"{info.get('size')} {_mtime(info)}"

    def content_tag(self, path: str) -> str | None:
        """The store's identifier of the content of a file; None where it has none."""
        with named_faults(path):
            return _content_tag(self.fs.info(path))

    def _write(self, path: str, data: bytes, *, mode: str) -> None:
        with named_faults(path):
            self.fs.pipe_file(path, bytes(data), mode=mode)

    # --- what Arrow asks of a file system, where its own handler does not do

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        """Also the time of the last change."""
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> fs.FileInfo:
        try:
            with named_faults(path):
                return _file_info(path, self.fs.info(path))
        except FileNotFoundError:
            return fs.FileInfo(path, fs.FileType.NotFound)

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        """The files and folders in a folder."""
        base = selector.base_dir
        with named_faults(base):
            try:
                found = (
                    self.fs.find(base, withdirs=True, detail=True).values()
                    if selector.recursive
                    else self.fs.ls(base, detail=True)
                )
            except FileNotFoundError:
                if selector.allow_not_found:
                    return []
                raise
        infos = [_file_info(info["name"], info) for info in found]
        return [info for info in infos if info.path.strip("/") != base.strip("/")]

    def open_input_file(self, path: str) -> pa.NativeFile:
        """A file that is read in parts; whole, where the server gives no parts."""
        with named_faults(path):
            file = self.fs.open(path, "rb", block_size=_READ_BYTES, cache_type="readahead")
            if not file.seekable():
                return pa.BufferReader(self.fs.cat_file(path))
        return pa.PythonFile(_Named(file, path), mode="r")

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """A file that is read from its start to its end."""
        with named_faults(path):
            file = self.fs.open(path, "rb", block_size=_READ_BYTES, cache_type="readahead")
        return pa.PythonFile(_Named(file, path), mode="r")

    def create_dir(self, path: str, recursive: bool) -> None:
        """No error if it exists."""
        with named_faults(path):
            self.fs.makedirs(path, exist_ok=True)

    def delete_dir(self, path: str) -> None:
        """Delete all files below."""
        with named_faults(path):
            self.fs.rm(path, recursive=True)

    def delete_file(self, path: str) -> None:
        """Delete one file."""
        with named_faults(path):
            self.fs.rm_file(path)


class _Named(io.RawIOBase):
    """A file whose errors are those of a store."""

    def __init__(self, file: Any, path: str) -> None:  # noqa: ANN401 - a file of fsspec
        self._file, self._path = file, path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def read(self, size: int = -1) -> bytes:
        with named_faults(self._path):
            return bytes(self._file.read(size))

    def close(self) -> None:
        self._file.close()
        super().close()


def _content_tag(info: dict[str, Any]) -> str | None:
    found = next((info[name] for name in _TAGS if info.get(name)), None)
    return str(found) if found else None


def _file_info(path: str, info: dict[str, Any]) -> fs.FileInfo:
    kinds = {"file": fs.FileType.File, "directory": fs.FileType.Directory}
    kind = kinds.get(info["type"], fs.FileType.Unknown)
    size = info.get("size") if kind == fs.FileType.File else None
    # A server that does not tell the size: such a file is not taken for an empty one.
    if kind == fs.FileType.File and size is None:
        size = 1
    return fs.FileInfo(path.rstrip("/"), kind, size=size, mtime=_mtime(info))


def _mtime(info: dict[str, Any]) -> datetime.datetime | float | None:
    found = next((info[name] for name in _TIMES if info.get(name)), None)
    if isinstance(found, str):
        try:
            return datetime.datetime.fromisoformat(found)
        except ValueError:
            return None
    return found


@contextmanager
def named_faults(path: str) -> Iterator[None]:
    """Turn errors of HTTP clients into StoreFault: each implementation has classes of its own."""
    try:
        yield
    except (OSError, UserError, ImportError, ValueError, TypeError):
        raise
    except Exception as error:
        status = next(
            (
                found
                for name in ("status", "status_code", "code")
                if isinstance(found := getattr(error, name, None), int)
            ),
            0,
        )
        if status == 404:
            raise FileNotFoundError(2, f"no file {path}") from error
        code = "ACCESS_DENIED" if status in (401, 403) else f"HTTP {status}"
        code = code if status else "NETWORK_CONNECTION"
        line = " ".join(str(error).split()) or type(error).__name__
        base, _, query = path.partition("?")  # of a signed address: a secret
        line = line.replace(query, "...") if query else line
        raise StoreFault(f"{code} of {base}: {line}", code=code, status=status) from error
