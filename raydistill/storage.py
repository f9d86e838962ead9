"""Where things are and whether they are whole: folders, local or S3; atomic writes; listings.

A file that exists is complete: it is written under another name and renamed (local disk), or in
one PUT after its bytes are complete (object store). A stage that is complete has _SUCCESS.json.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from raydistill.errors import UserError

SUCCESS = "_SUCCESS.json"
SHARD_SUFFIX = ".parquet"
# What decides a model's output; a README or a picture beside it does not.
MODEL_SUFFIXES = {".json", ".safetensors", ".bin", ".txt", ".model"}


class Folder:
    """A folder at a URI: a local path or `s3://bucket/prefix`; cheap to make and to pickle."""

    def __init__(self, uri: str) -> None:
        """`uri` may be relative: it is made absolute, since Ray's workers run elsewhere."""
        self.is_local = "://" not in uri
        self.uri = str(Path(uri).absolute()) if self.is_local else uri.rstrip("/")

    def __truediv__(self, name: str) -> Folder:
        """The folder `name` inside this one."""
        base, mark, options = self.uri.partition("?") if not self.is_local else (self.uri, "", "")
        return Folder(f"{base}/{name}{mark}{options}")

    def __repr__(self) -> str:
        """The URI, as error messages show it."""
        return self.uri

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        """File systems do not travel between processes; the URI does."""
        return Folder, (self.uri,)

    @cached_property
    def _place(self) -> tuple[fs.FileSystem, str]:
        return open_uri(self.uri)

    @property
    def filesystem(self) -> fs.FileSystem:
        """The Arrow file system that holds the folder."""
        return self._place[0]

    def path(self, name: str = "") -> str:
        """Where `name` lies on `filesystem`."""
        return f"{self._place[1]}/{name}" if name else self._place[1]

    def write_bytes(self, name: str, data: bytes | memoryview | pa.Buffer) -> None:
        """Write the file `name`, whole or not at all."""
        if not self.is_local:
            with self.filesystem.open_output_stream(self.path(name), compression=None) as stream:
                stream.write(data)
            return
        final = Path(self.path(name))
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(data)
            os.replace(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)

    def read_bytes(self, name: str) -> bytes:
        """The content of the file `name`."""
        with self.filesystem.open_input_stream(self.path(name), compression=None) as stream:
            return bytes(stream.read())

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write `table` as the Parquet file `name`, whole or not at all; same rows, same bytes."""
        sink = pa.BufferOutputStream()
        # Titles seldom repeat: a dictionary of them is built and then thrown away.
        repeating = [name for name in table.column_names if name in ("query", "source")]
        pq.write_table(table, sink, compression="zstd", use_dictionary=repeating)
        self.write_bytes(name, sink.getvalue())

    def read_table(self, name: str, *, columns: list[str] | None = None) -> pa.Table:
        """The Parquet file `name`, or some of its columns."""
        return self.open_table(name).read(columns=columns)

    def open_table(self, name: str) -> pq.ParquetFile:
        """The Parquet file `name`, to read some columns of now and others later.

        From an object store it is fetched in one GET.
        """
        return pq.ParquetFile(
            self.path(name) if self.is_local else io.BytesIO(self.read_bytes(name))
        )

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write `content` as the JSON file `name`."""
        self.write_bytes(name, (json.dumps(content, indent=2) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The content of the JSON file `name`; None where there is none."""
        if not self.exists(name):
            return None
        content: dict[str, Any] = json.loads(self.read_bytes(name))
        return content

    def exists(self, name: str = "") -> bool:
        """Whether the file or folder `name` is there."""
        return bool(self.filesystem.get_file_info(self.path(name)).type != fs.FileType.NotFound)

    def success(self) -> dict[str, Any] | None:
        """What the stage that made this folder wrote when it was complete; None before."""
        return self.read_json(SUCCESS)

    def files(self) -> list[str]:
        """Names of the whole files, sorted: one listing."""
        selector = fs.FileSelector(self.path(), allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted(i.base_name for i in infos if i.is_file and not i.base_name.startswith("."))

    def shards(self) -> list[str]:
        """Names of the whole shards, sorted: one listing."""
        return [name for name in self.files() if name.endswith(SHARD_SUFFIX)]

    def delete(self) -> None:
        """Remove the folder and all it holds, if it is there."""
        if self.exists():
            self.filesystem.delete_dir(self.path())

    def delete_file(self, name: str) -> None:
        """Remove the file `name`."""
        self.filesystem.delete_file(self.path(name))

    def upload(self, source: Path) -> None:
        """Copy every file of a local folder in here, each whole or not at all."""
        for file in sorted(p for p in source.rglob("*") if p.is_file()):
            self.write_bytes(file.relative_to(source).as_posix(), file.read_bytes())

    def download(self) -> Path:
        """A local folder with the same files: this one if it is local, else a cached copy."""
        if self.is_local:
            return Path(self.path())
        key = hashlib.blake2b(self._signature().encode(), digest_size=8).hexdigest()
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        target = cache / "raydistill" / key
        if not target.exists():
            partial = target.with_name(f"{key}.{uuid.uuid4().hex}")
            partial.mkdir(parents=True)
            fs.copy_files(self.path(), str(partial), source_filesystem=self.filesystem)
            _move_folder(partial, target)
        return target

    def _signature(self) -> str:
        """URI, names, sizes and times: a copy of a folder that changed is never reused."""
        infos = self.filesystem.get_file_info(fs.FileSelector(self.path(), recursive=True))
        files = sorted((info.path, info.size, info.mtime_ns) for info in infos if info.is_file)
        if not files:
            raise UserError(f"nothing at {self.uri}")
        return f"{self.uri} {files}"


def open_uri(uri: str) -> tuple[fs.FileSystem, str]:
    """File system and path of a local path or an `s3://` URI."""
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).absolute())
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UserError(f"cannot open {uri!r}: {error}; give a local path or s3://") from error
    return filesystem, path.rstrip("/")


def model_fingerprint(folder: Path) -> str:
    """16 hex digits from the names and contents of the weights, settings and vocabulary in it."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(p for p in folder.rglob("*") if p.suffix in MODEL_SUFFIXES):
        if file.name == SUCCESS:
            continue
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def _move_folder(source: Path, target: Path) -> None:
    """Put `source` at `target`; another process that was faster has made the same."""
    try:
        os.rename(source, target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(source)
