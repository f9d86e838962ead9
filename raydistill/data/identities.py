"""What tells a raw file from any other: a digest of it, and a stamp that spares another look.

A digest names how it was made: digests of two kinds are never equal by accident. A stamp is what
the disk or the store says of a file that is not read; "" is a stamp that tells nothing.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyarrow import fs

from raydistill.files.folder import open_uri
from raydistill.files.inputs.input_files import InputFile
from raydistill.files.retry import tried

WHOLE_BYTES = 64 << 20  # a local file up to this size is read whole: 0.1 s
# Of a larger one these are read, evenly spread, the head and the tail among them: a Parquet file's
# statistics, a gzip file's checksum.
_NUM_BLOCKS, _BLOCK_BYTES = 8, 8 << 10
_READ_BYTES = 1 << 20
# A file that changed so shortly before it was read may change again within the same tick of the
# clock of its disk: 4 ms on most, 2 s on FAT. Git's "racy" files are the same.
_TICK_NS = 2_000_000_000
# A store's times are those of its own clock. S3 refuses requests from clocks 15 minutes apart.
_CLOCKS_APART_NS = 15 * 60 * 1_000_000_000
_CONTENT, _BLOCKS = "content", "blocks"
# Names of an object's state, the best first. An ETag stays with the content when it is copied.
_TAGS = {"ETag": "etag", "VersionId": "version", "Last-Modified": "modified"}
_new_hash = partial(hashlib.blake2b, digest_size=16)


@dataclass(frozen=True)
class Look:
    """What a look into a file gave: `kind:hex digits`, and the stamp it had ("": none to trust)."""

    digest: str
    stamp: str


def look_at(file: InputFile, *, whole: bool) -> Look:
    """The digest of a file; `whole`: of all its bytes, whatever its size and wherever it lies.

    Otherwise a local file up to WHOLE_BYTES is read whole, a larger one is known by its size, its
    time and some blocks, and an object of a store by its ETag, its version or its time. Memory is
    constant.

    Raises:
        OSError: the file cannot be read.
    """
    filesystem, path = open_uri(file.uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        return _look_at_local(path, whole=whole)
    return tried(lambda: _look_at_object(filesystem, path, file=file, whole=whole))


def stamp_of(file: InputFile) -> str:
    """The stamp that a listed file has now; no request to a store."""
    filesystem, path = open_uri(file.uri)
    if not isinstance(filesystem, fs.LocalFileSystem):
        return str(file.mtime_ns)
    try:
        return _local_stamp(os.stat(path))
    except OSError:  # gone since it was listed: whoever reads it will say so
        return ""


def is_known_by_time(digest: str) -> bool:
    """Whether a file of another time has another digest, even if its content is the same."""
    return digest.startswith(f"{_BLOCKS}:")


def _local_stamp(info: os.stat_result) -> str:
    """Times of the content and of the inode, and its number; a user cannot set the second time."""
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
        tag = None if whole else _tag(source.metadata() or {})
        digest = tag or f"{_CONTENT}:{_hash_stream(source)}"
    age_ns = now_ns - file.mtime_ns
    is_settled = bool(file.mtime_ns) and age_ns > _TICK_NS + _CLOCKS_APART_NS
    return Look(digest, str(file.mtime_ns) if is_settled else "")


def _tag(metadata: dict[str, bytes]) -> str | None:
    """What the store calls the object's state; None where it has no name for it."""
    for name, kind in _TAGS.items():
        if metadata.get(name):
            return f"{kind}:{metadata[name].decode().strip(chr(34))}"
    return None


def _hash_stream(source: Any) -> str:  # noqa: ANN401 - Arrow's NativeFile is not typed
    found = _new_hash()
    while block := source.read(_READ_BYTES):
        found.update(block)
    return found.hexdigest()
