"""The identity of a raw file: its digest, and a stamp that avoids computing the digest again.

A digest begins with its kind, so that digests of different kinds are never equal. A stamp comes
from file metadata alone, without reading the file; "" is a stamp that cannot be trusted.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from pyarrow import fs

from raydistill.files.inputs.input_files import InputFile
from raydistill.files.retry import tried
from raydistill.files.stores.fsspec_store import FsspecStore
from raydistill.files.uris import open_uri

WHOLE_BYTES = 64 << 20  # a local file up to this size is hashed completely: 0.1 s
# Blocks of a larger file that are hashed, evenly spaced from head to tail: the tail has the
# statistics of a Parquet file and the checksum of a gzip file.
_NUM_BLOCKS, _BLOCK_BYTES = 8, 8 << 10
_READ_BYTES = 1 << 20
# A file that changed less than this before it was read may change again with the same time stamp:
# the resolution is 4 ms on most file systems, 2 s on FAT (compare "racy" entries in Git's index).
_TICK_NS = 2_000_000_000
# Times of objects come from the store's clock; S3 rejects requests if clocks differ by 15 minutes.
_CLOCKS_APART_NS = 15 * 60 * 1_000_000_000
_CONTENT, _BLOCKS = "content", "blocks"
# Metadata that identify the state of an object, the best first; a copy of an object keeps its ETag.
_TAGS = {"ETag": "etag", "VersionId": "version", "Last-Modified": "modified"}
_new_hash = partial(hashlib.blake2b, digest_size=16)


@dataclass(frozen=True)
class Look:
    """The digest of a file, `kind:hex digits`, and its stamp then ("": not to be trusted)."""

    digest: str
    stamp: str


def look_at(file: InputFile, *, whole: bool) -> Look:
    """The digest and stamp of a file; `whole`: the digest covers all bytes of any file.

    Otherwise the digest covers all bytes of a local file up to WHOLE_BYTES; modification time and
    some blocks of a larger one; ETag, version or modification time of an object. Memory is
    constant.

    Raises:
        OSError: the file cannot be read.
    """
    filesystem, path = open_uri(file.uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        return _look_at_local(path, whole=whole)
    return tried(lambda: _look_at_object(filesystem, path, file=file, whole=whole))


def stamp_of(file: InputFile) -> str:
    """The current stamp of a listed file; sends no request to an object store."""
    filesystem, path = open_uri(file.uri)
    if not isinstance(filesystem, fs.LocalFileSystem):
        return str(file.mtime_ns)
    try:
        return _local_stamp(os.stat(path))
    except OSError:  # removed since the listing: reading it will raise
        return ""


def is_known_by_time(digest: str) -> bool:
    """Whether the digest covers the modification time: equal contents may differ in digest."""
    return digest.startswith(f"{_BLOCKS}:")


def _local_stamp(info: os.stat_result) -> str:
    """mtime, ctime and inode number; unlike mtime, a user cannot set ctime."""
    return f"{info.st_mtime_ns} {info.st_ctime_ns} {info.st_ino}"


def _look_at_local(path: str, *, whole: bool) -> Look:
    with open(path, "rb") as source:
        before, now_ns = os.fstat(source.fileno()), time.time_ns()
        if whole or before.st_size <= WHOLE_BYTES:
            digest = f"{_CONTENT}:{hashlib.file_digest(source, _new_hash).hexdigest()}"
        else:
            digest = f"{_BLOCKS}:{before.st_mtime_ns}:{_hash_blocks(source, before.st_size)}"
        after = os.fstat(source.fileno())
    stamp = _local_stamp(before)
    is_settled = now_ns - before.st_ctime_ns > _TICK_NS and stamp == _local_stamp(after)
    return Look(digest, stamp if is_settled else "")


def _hash_blocks(source: Any, size_bytes: int) -> str:  # noqa: ANN401 - a binary file
    found = _new_hash()
    last = size_bytes - _BLOCK_BYTES
    for at in range(_NUM_BLOCKS):
        source.seek(last * at // (_NUM_BLOCKS - 1))
        found.update(source.read(_BLOCK_BYTES))
    return found.hexdigest()


def _look_at_object(filesystem: fs.FileSystem, path: str, *, file: InputFile, whole: bool) -> Look:
    now_ns = time.time_ns()
    with filesystem.open_input_stream(path, compression=None) as source:
        tag = None if whole else _tag(_metadata(filesystem, path, source))
        digest = tag or f"{_CONTENT}:{_hash_stream(source)}"
    age_ns = now_ns - file.mtime_ns
    is_settled = bool(file.mtime_ns) and age_ns > _TICK_NS + _CLOCKS_APART_NS
    return Look(digest, str(file.mtime_ns) if is_settled else "")


def _metadata(filesystem: fs.FileSystem, path: str, source: pa.NativeFile) -> dict[str, bytes]:
    """Metadata of an object in the names of S3; {} of a store that has none."""
    store = filesystem.handler if isinstance(filesystem, fs.PyFileSystem) else None
    if not isinstance(store, FsspecStore):
        return source.metadata() or {}
    tag = store.content_tag(path)
    return {"ETag": tag.encode()} if tag else {}


def _tag(metadata: dict[str, bytes]) -> str | None:
    """The identifier of the object's state in the store; None without one."""
    for name, kind in _TAGS.items():
        if metadata.get(name):
            return f"{kind}:{metadata[name].decode().strip(chr(34))}"
    return None


def _hash_stream(source: Any) -> str:  # noqa: ANN401 - Arrow's NativeFile is not typed
    found = _new_hash()
    while block := source.read(_READ_BYTES):
        found.update(block)
    return found.hexdigest()
