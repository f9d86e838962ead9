"""Raw files to streams of bytes, decompressed."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raydistill.files.folder import open_uri


@contextmanager
def open_stream(uri: str, *, codec: str | None) -> Iterator[Any]:
    """The bytes of a file, decompressed: `gzip`, `bz2`, `zstd`, `lz4` by Arrow, `xz` by Python.

    Raises:
        OSError: no such file, or data that are cut off or of another kind.
    """
    filesystem, path = open_uri(uri)
    is_xz = codec == "xz"
    with filesystem.open_input_stream(path, compression=None if is_xz else codec) as stream:
        if not is_xz:
            yield stream
            return
        try:
            with lzma.open(stream) as unpacked:
                yield unpacked
        except (lzma.LZMAError, EOFError) as error:
            raise OSError(f"xz: {error}") from error
