"""Format and compression of a raw file, from its name or its first bytes."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raydistill.files.inputs.decoding import binary_kind, encoding_of
from raydistill.files.uris import open_uri

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".orc": "orc",
    ".arrow": "arrow",
    ".feather": "arrow",
}
SHOWN = ".parquet, .csv, .tsv, .jsonl, .json, .orc or .arrow"
TEXT_FORMATS = frozenset({"csv", "tsv", "jsonl", "json"})
CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4", ".xz": "xz"}
COMPRESSIONS = tuple(CODECS)
_CODEC_MARKS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\x00": "xz",
}
_MARKS = {b"PAR1": "parquet", b"ORC": "orc", b"ARROW1": "arrow"}
# Names that Hadoop, Spark and Hive give the parts of a table: part-00000, part-r-00001, 000000_0.
_PART = re.compile(r"part-[\w-]+|\d{6}_\d+")


def file_format(uri: str) -> str | None:
    """One of the values of FORMATS, from the suffix of the name; None for any other suffix."""
    name = uri.lower()
    codec = codec_of(name)
    if codec:
        name = name.rpartition(".")[0]
    kind = next((kind for suffix, kind in FORMATS.items() if name.endswith(suffix)), None)
    return None if codec and kind not in TEXT_FORMATS else kind


def codec_of(uri: str) -> str | None:
    """One of the values of CODECS, from the suffix of the name; None for any other suffix."""
    return next((codec for end, codec in CODECS.items() if uri.lower().endswith(end)), None)


def has_no_suffix(uri: str) -> bool:
    """Whether a name has no suffix other than that of a compression."""
    return "." not in _base_name(uri)


def is_part(uri: str) -> bool:
    """Whether a name without a suffix is one that Hadoop, Spark or Hive gives a part of a table."""
    return bool(_PART.fullmatch(_base_name(uri)))


def suffix_of(uri: str) -> str:
    """The suffix of a name, or "without a suffix", for counts in messages."""
    stem, dot, suffix = uri.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if dot and stem else "without a suffix"


def _base_name(uri: str) -> str:
    name = uri.rpartition("/")[2].lower()
    return name.rpartition(".")[0] if codec_of(name) else name


def sniff_codec(head: bytes) -> str | None:
    """The compression of the file that begins with `head`; None for any other file."""
    is_text = binary_kind(head) is None
    found = (codec for mark, codec in _CODEC_MARKS.items() if head.startswith(mark))
    return None if is_text else next(found, None)


def sniff_format(head: bytes) -> str | None:
    """The format of the file that begins with `head` (decompressed); None if it is not known."""
    for mark, kind in _MARKS.items():
        if head.startswith(mark) and b"\0" in head:
            return kind
    encoding, skip = encoding_of(head)
    if encoding == "utf-8" and binary_kind(head):
        return None
    text = head[skip:].decode(encoding, "replace").lstrip()
    if text.startswith("["):
        return "json"
    if text.startswith("{"):
        return "jsonl"
    first = text.partition("\n")[0]
    return "tsv" if "\t" in first and "," not in first else "csv"


@contextmanager
def open_stream(uri: str, *, codec: str | None) -> Iterator[Any]:
    """The bytes of a file, decompressed: `gzip`, `bz2`, `zstd`, `lz4` by Arrow, `xz` by Python.

    Raises:
        OSError: the file does not exist, is truncated, or is not compressed in this way.
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
