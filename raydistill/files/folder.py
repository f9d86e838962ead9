"""Folders on a local disk or in an object store: atomic writes, reads, listings, and deletion.

A file that exists is complete: it is written under a temporary name and renamed (local disk), or
written in one PUT after its bytes are complete (object store). The folder of a complete stage has
_SUCCESS.json.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from raydistill.errors import UserError
from raydistill.files.copies import cached_copy
from raydistill.files.durable import write_whole
from raydistill.files.pieces import PIECE_ROWS, ParquetRows, RemoteRows, Rows
from raydistill.files.retry import tried, tried_at
from raydistill.files.stores.s3_options import split_options, with_options
from raydistill.files.uris import Store, open_store, open_uri, without_scheme

_T = TypeVar("_T")
SUCCESS = "_SUCCESS.json"
MARKER = "_RAYDISTILL.json"  # in each folder that raydistill created; it deletes in no other
_LAYOUT = 1  # version of a marked folder; raised when older folders can no longer be read
_NO_CONTENT = {"lost+found"}  # an empty disk has it; hidden files do not count as content either
SHARD_SUFFIX = ".parquet"
_MARKED: set[str] = set()  # folders in which this process found the marker: one request each


class Folder:
    """A folder at a URI: a local path or `s3://bucket/prefix`; cheap to create and to pickle."""

    def __init__(self, uri: str) -> None:
        """A relative `uri` is made absolute: Ray's workers have another working directory."""
        uri = without_scheme(uri)
        self.is_local = "://" not in uri
        base, options = split_options(uri)
        remote = with_options(base.rstrip("/"), options)
        self.uri = str(Path(uri).absolute()) if self.is_local else remote

    def __truediv__(self, name: str) -> Folder:
        """The folder `name` inside this one."""
        base, options = (self.uri, "") if self.is_local else split_options(self.uri)
        return Folder(with_options(f"{base}/{name}", options))

    def __repr__(self) -> str:
        """The URI: error messages print it."""
        return self.uri

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        """Pickle the URI alone; each process opens its own file system."""
        return Folder, (self.uri,)

    @cached_property
    def _place(self) -> tuple[fs.FileSystem, str]:
        return open_uri(self.uri)

    @cached_property
    def _store(self) -> Store:
        return open_store(self.uri)[0]

    @property
    def filesystem(self) -> fs.FileSystem:
        """The Arrow file system that holds the folder."""
        return self._place[0]

    def path(self, name: str = "") -> str:
        """The path of `name` on `filesystem`; without a name, of the folder."""
        return f"{self._place[1]}/{name}" if name else self._place[1]

    def tried(self, call: Callable[[], _T]) -> _T:
        """The result of `call()`, a request to the folder's file system; S3 requests are retried.

        Raises:
            StoreError: every try failed.
        """
        return tried_at(self.uri, call)

    def write_bytes(self, name: str, data: bytes | memoryview | pa.Buffer) -> None:
        """Write the file `name` atomically."""
        if self.is_local:
            write_whole(Path(self.path(name)), data)
            return
        content = data if isinstance(data, bytes) else memoryview(data).tobytes()
        tried(lambda: self._store.put(self.path(name), content))

    def read_bytes(self, name: str) -> bytes:
        """The content of the file `name`: one GET on an object store."""
        if self.is_local:
            return Path(self.path(name)).read_bytes()
        return tried(lambda: self._store.get(self.path(name)))

    def read_span(self, name: str, start: int, stop: int) -> bytes:
        """The bytes start..stop, without stop, of the file `name`: one GET on an object store."""
        if not self.is_local:
            return tried(lambda: self._store.get_span(self.path(name), start, stop))
        with open(self.path(name), "rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def write_if(self, name: str, data: bytes, *, tag: str | None) -> bool:
        """Write the file `name` of an object store if its state is `tag`; False otherwise.

        None: if it does not exist. After a lost response the next try finds the file of the first.
        """
        path = self.path(name)
        if tag is None:
            return tried(lambda: self._store.create(path, data))
        return tried(lambda: self._store.replace(path, data, tag=tag))

    def tag(self, name: str) -> str | None:
        """A text for the state of the file `name` of an object store; None if it is missing."""
        return tried(lambda: self._store.tag(self.path(name)))

    @property
    def has_conditions(self) -> bool:
        """Whether `write_if` checks and writes in one step."""
        return not self.is_local and self._store.has_conditions

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write `table` as the Parquet file `name` atomically; the same rows give the same bytes.

        A row group is a piece of `PIECE_ROWS` rows. Each page has a checksum: of compressed floats
        a changed bit is another number, and no reader notices.
        """
        sink = pa.BufferOutputStream()
        # Titles seldom repeat: Parquet would build a dictionary of them and discard it.
        repeating = [name for name in table.column_names if name in ("query", "source")]
        pq.write_table(
            table,
            sink,
            compression="zstd",
            use_dictionary=repeating,
            row_group_size=PIECE_ROWS,
            write_page_checksum=True,
        )
        self.write_bytes(name, sink.getvalue())

    def read_table(self, name: str, *, columns: list[str] | None = None) -> pa.Table:
        """The rows of the Parquet file `name`; all columns if `columns` is None."""
        return self.open_table(name).read(columns=columns)

    def open_table(self, name: str, *, checks_pages: bool = False) -> pq.ParquetFile:
        """The Parquet file `name`, opened so that columns can be read one after the other.

        On an object store one GET fetches the whole file. With `checks_pages` a read of a page
        whose checksum differs raises OSError.
        """
        source = self.path(name) if self.is_local else io.BytesIO(self.read_bytes(name))
        return pq.ParquetFile(source, page_checksum_verification=checks_pages)

    def metadata(self, name: str) -> pq.FileMetaData:
        """The footer of the Parquet file `name`; its rows are not fetched."""
        return self.tried(lambda: self._footer(name))

    def _footer(self, name: str) -> pq.FileMetaData:
        with self.filesystem.open_input_file(self.path(name)) as source:
            return pq.read_metadata(source)

    def open_rows(self, name: str, *, by_range: bool) -> Rows:
        """The rows of the Parquet file `name`, of which parts can be read.

        On an object store one GET fetches the whole file. With `by_range` the footer is fetched
        now, and each piece with one or two GETs when it is read: 5 MB, not the 80 MB of 16 pieces.
        """
        if self.is_local or not by_range:
            return ParquetRows(self.open_table(name))
        return RemoteRows(tried(lambda: self._open_range(name)))

    def _open_range(self, name: str) -> ParquetRows:
        source = self.filesystem.open_input_file(self.path(name))
        return ParquetRows(pq.ParquetFile(source, pre_buffer=True))

    def read_rows(
        self, name: str, start: int, stop: int, *, columns: list[str] | None = None
    ) -> pa.Table:
        """The rows start..stop of the Parquet file `name`, fewer at the end of the file."""
        return self.open_rows(name, by_range=True).read(start, stop, columns)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write `content` as the JSON file `name`."""
        self.write_bytes(name, (json.dumps(content, indent=2) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The content of the JSON file `name`; None if it does not exist."""
        if not self.exists(name):
            return None
        content: dict[str, Any] = json.loads(self.read_bytes(name))
        return content

    def require_json(self, name: str, *, stage: str) -> dict[str, Any]:
        """The content of the JSON file `name`, which `stage` writes.

        Raises:
            UserError: the file does not exist.
        """
        content = self.read_json(name)
        if content is None:
            raise UserError(
                f"{self} has no {name}, which `{stage}` writes: delete that folder and run "
                f"`{stage}` again"
            )
        return content

    def exists(self, name: str = "") -> bool:
        """Whether the file or folder `name` exists."""
        info = self.tried(lambda: self.filesystem.get_file_info(self.path(name)))
        return bool(info.type != fs.FileType.NotFound)

    def success(self) -> dict[str, Any] | None:
        """The _SUCCESS.json of the stage that wrote this folder; None if it is not complete."""
        return self.read_json(SUCCESS)

    def files(self) -> list[str]:
        """Names of the complete files, sorted: one listing request."""
        selector = fs.FileSelector(self.path(), allow_not_found=True)
        infos = self.tried(lambda: self.filesystem.get_file_info(selector))
        return sorted(i.base_name for i in infos if i.is_file and not i.base_name.startswith("."))

    def shards(self) -> list[str]:
        """Names of the complete shards, sorted: one listing request."""
        return [name for name in self.files() if name.endswith(SHARD_SUFFIX)]

    def claim(self, kind: str) -> None:
        """Mark the folder as created by raydistill, with a `kind` such as "run".

        Raises:
            UserError: as `check_claim`.
        """
        self.check_claim(kind)
        if not self.exists(MARKER):
            self.write_json(MARKER, {"kind": kind, "layout": _LAYOUT})

    def check_claim(self, kind: str) -> None:
        """Raise UserError unless the folder is marked as a `kind`, is empty or does not exist.

        A local folder must not be inside another marked folder either. On an object store the
        parents are not checked: credentials often cover one prefix of a bucket only.
        """
        above = self._marked_parent() if self.is_local else None
        if above is not None:
            raise UserError(
                f"{self.uri} lies in {above}, which raydistill made for something else; give a "
                "folder elsewhere"
            )
        marker = _parsed(self.read_bytes(MARKER)) if self.exists(MARKER) else None
        if marker == {"kind": kind, "layout": _LAYOUT}:
            return
        if marker is not None:
            raise UserError(
                f"{self.uri} holds a {marker.get('kind')} of layout {marker.get('layout')}, not a "
                f"{kind} of layout {_LAYOUT}; give another folder"
            )
        content = self._content()
        if content:
            raise UserError(
                f"{self.uri} is no {kind} folder of raydistill: it has no {MARKER}, and holds "
                f"{', '.join(content[:3])}{' and more' if len(content) > 3 else ''}; give a new or "
                "an empty folder"
            )

    def _content(self) -> list[str]:
        """Names of the files and folders in this folder, sorted, without hidden ones.

        Raises:
            UserError: the path is a file.
        """
        place = self.tried(lambda: self.filesystem.get_file_info(self.path()))
        if place.type == fs.FileType.File:
            raise UserError(f"{self.uri} is a file; give a folder")
        selector = fs.FileSelector(self.path(), allow_not_found=True)
        infos = self.tried(lambda: self.filesystem.get_file_info(selector))
        names = {info.base_name for info in infos} - _NO_CONTENT
        return sorted(name for name in names if name and not name.startswith("."))

    def delete(self) -> None:
        """Remove the folder and its content, if it exists.

        Raises:
            UserError: no folder above it was created by raydistill.
        """
        if self.exists():
            self._check_ours()
            self.tried(self._delete)

    def _delete(self) -> None:
        # An earlier try that failed may have removed the folder, or another job; and a store may
        # know a folder for a while whose last object is gone.
        with suppress(FileNotFoundError):
            self.filesystem.delete_dir(self.path())

    def delete_file(self, name: str) -> None:
        """Remove the file `name`.

        Raises:
            UserError: no folder above it was created by raydistill.
            FileNotFoundError: it does not exist.
        """
        (self / name)._check_ours()
        num_tries = 0

        def delete() -> None:
            nonlocal num_tries
            num_tries += 1
            try:
                self.filesystem.delete_file(self.path(name))
            except FileNotFoundError:  # an earlier try whose response was lost may have removed it
                if num_tries == 1:
                    raise

        self.tried(delete)

    def _check_ours(self) -> None:
        """Raise UserError unless a folder above this one is marked."""
        if self._marked_parent() is None:
            raise UserError(
                f"{self.uri} is not deleted: it lies in no folder that raydistill made (none above "
                f"it holds {MARKER})"
            )

    def _marked_parent(self) -> Folder | None:
        """The nearest marked folder above this one, None without one; local links are resolved."""
        real = Folder(os.path.realpath(self.uri)) if self.is_local else self
        marked = (one for one in real._parents() if one.uri in _MARKED or one._is_marked())
        return next(marked, None)

    def _is_marked(self) -> bool:
        is_marked = self.exists(MARKER)
        if is_marked:
            _MARKED.add(self.uri)
        return is_marked

    def _parents(self) -> Iterator[Folder]:
        """The folders above this one, the nearest first, up to the root or the bucket."""
        if self.is_local:
            yield from (Folder(str(parent)) for parent in Path(self.uri).parents)
            return
        base, options = split_options(self.uri)
        scheme, _, path = base.partition("://")
        while "/" in path:
            path = path.rpartition("/")[0]
            yield Folder(with_options(f"{scheme}://{path}", options))

    def upload(self, source: Path) -> None:
        """Copy every file of a local folder into this folder, each file atomically."""
        for file in sorted(p for p in source.rglob("*") if p.is_file()):
            self.write_bytes(file.relative_to(source).as_posix(), file.read_bytes())

    def download(self) -> Path:
        """A local folder with the same files: this one if it is local, else a cached copy."""
        if self.is_local:
            return Path(self.path())
        before = self._signature()
        key = hashlib.blake2b(before.encode(), digest_size=8).hexdigest()
        return cached_copy(key, partial(self._copy_to, signature=before))

    def _copy_to(self, target: Path, *, signature: str) -> None:
        """Copy all files to a local folder.

        Raises:
            UserError: the folder changed during the copy, which may mix two versions.
        """
        source = self.filesystem
        tried(lambda: fs.copy_files(self.path(), str(target), source_filesystem=source))
        if self._signature() != signature:
            raise UserError(f"{self.uri} changed while it was copied; try again")

    def _signature(self) -> str:
        """URI, paths, sizes and modification times: a changed folder gets a new copy.

        Raises:
            UserError: the folder has no files.
        """
        selector = fs.FileSelector(self.path(), recursive=True)
        infos = self.tried(lambda: self.filesystem.get_file_info(selector))
        files = sorted((info.path, info.size, info.mtime_ns) for info in infos if info.is_file)
        if not files:
            raise UserError(f"nothing at {self.uri}")
        return f"{self.uri} {files}"


def _parsed(marker: bytes) -> dict[str, Any]:
    """The content of a marker file; {} if it is damaged."""
    try:
        content = json.loads(marker)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
