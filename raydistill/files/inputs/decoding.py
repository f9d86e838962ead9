"""Decode input text: byte-order marks, UTF-16 and UTF-32; name the kind of binary files.

Input: the bytes of a file, or a stream of them. Output: UTF-8 without a byte-order mark, or a
string.
"""

from __future__ import annotations

import codecs
from typing import Protocol

from raydistill.errors import UserError

HEAD_BYTES = 1 << 16
_MARKS = {  # UTF-32-LE before UTF-16-LE: both begin with FF FE, and the longer must match first
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# The first bytes of files that are not plain text, and the text for the error message.
_KINDS = {
    b"\x1f\x8b": "gzip data; give its name the suffix .gz",
    b"BZh": "bzip2 data; give its name the suffix .bz2",
    b"\x28\xb5\x2f\xfd": "Zstandard data; give its name the suffix .zst",
    b"\xfd7zXZ\x00": "xz data; give its name the suffix .xz",
    b"\x04\x22\x4d\x18": "LZ4 data; give its name the suffix .lz4",
    b"PAR1": "a Parquet file; give its name the suffix .parquet",
    b"ORC": "an ORC file; give its name the suffix .orc",
    b"ARROW1": "an Arrow file; give its name the suffix .arrow",
    b"Obj\x01": "an Avro file; write it as Parquet",
    b"PK\x03\x04": "a ZIP archive (as .xlsx files are); unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an old Office file (.xls); save it as CSV",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"%PDF-": "a PDF file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file with `git lfs pull`",
}
_PLAIN_MARKS = (b"%PDF-", b"version https://git-lfs")  # text, but not the header of a table


class Readable(Protocol):
    """A stream of bytes; `read` returns no bytes at its end."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""


def encoding_of(head: bytes) -> tuple[str, int]:
    """The Unicode encoding of a file from its head, and the length of its byte-order mark.

    Without a mark, UTF-16 is recognised by its share of zero bytes; the default is UTF-8.
    """
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding, len(mark)
    pairs = head[: len(head) // 2 * 2]
    even, odd = pairs[::2].count(0), pairs[1::2].count(0)
    if max(even, odd) * 5 > len(pairs) and min(even, odd) * 50 < len(pairs):
        return ("utf-16-le" if odd > even else "utf-16-be"), 0
    return "utf-8", 0


def binary_kind(head: bytes) -> str | None:
    """The kind of a binary file, from its head; None if the file may be text."""
    kind = next((name for mark, name in _KINDS.items() if head.startswith(mark)), None)
    is_sure = b"\0" in head or head.startswith(_PLAIN_MARKS)
    if kind is not None and (is_sure or _has_controls(head[:8]) or not _is_utf8(head[:512])):
        return kind
    return "binary data" if b"\0" in head[:4096] else None


def _has_controls(data: bytes) -> bool:
    return any(byte < 9 or 13 < byte < 32 for byte in data)


def _is_utf8(data: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def likely_encoding(data: bytes) -> str | None:
    """The likely encoding of text that is not UTF-8, for a message; None without a guess."""
    letters = sum(byte < 128 for byte in data)
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return None
    return "Windows-1252 (Latin-1)" if letters * 2 >= len(data) else None


def decode_text(data: bytes, *, name: str) -> str:
    """The text of a small file in any Unicode encoding.

    Raises:
        UserError: the data is not text; the message calls it `name`.
    """
    encoding, skip = encoding_of(data)
    kind = binary_kind(data[:HEAD_BYTES]) if encoding == "utf-8" else None
    if kind:
        raise UserError(f"{name} is no text but {kind}")
    try:
        return data[skip:].decode(encoding)
    except UnicodeDecodeError as error:
        likely = likely_encoding(data)
        hint = f", perhaps {likely}" if likely else ""
        raise UserError(f"{name} is not {encoding.upper()}{hint}: {error}; save it as UTF-8") from (
            error
        )


def read_full(stream: Readable, size: int) -> bytes:
    """`size` bytes of a stream, fewer only at its end."""
    parts, left = [], size
    while left and (part := stream.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class Joined:
    """A stream that returns the bytes already read from another one, then the rest of it."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        """`head`: the bytes already read; `stream`: the rest."""
        self._head, self._stream = head, stream

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        data, self._head = self._head[:size], self._head[size:]
        return data or self._stream.read(size)


class Limited:
    """The next `size` bytes of a stream."""

    def __init__(self, stream: Readable, size: int) -> None:
        """`stream` is not closed."""
        self._stream, self._left = stream, size

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        data = self._stream.read(min(size, self._left)) if self._left else b""
        self._left -= len(data)
        return data


class TextStream:
    """A UTF-8 stream without a byte-order mark, from a stream in any encoding.

    Bytes that cannot be decoded become invalid UTF-8: the code that reads the rows detects them.
    """

    def __init__(self, source: Readable, *, encoding: str | None = None) -> None:
        """`encoding` is used if the file has no byte-order mark.

        Raises:
            UserError: the head is not text.
        """
        head = read_full(source, HEAD_BYTES)
        found, skip = encoding_of(head)
        kind = binary_kind(head) if found == "utf-8" else None
        if kind:
            raise UserError(f"it is no text but {kind}")
        self.skipped_bytes = skip
        self._source = Joined(head[skip:], source)
        self._decoder: codecs.IncrementalDecoder | None = None
        name = codecs.lookup(encoding).name if encoding and not skip else found
        if name != "utf-8":
            self._errors = (
                "surrogatepass" if name[:6] in ("utf-16", "utf-32") else "surrogateescape"
            )
            self._decoder = codecs.getincrementaldecoder(name)(self._errors)

    @property
    def is_raw(self) -> bool:
        """Whether the bytes are those of the source."""
        return self._decoder is None

    def read(self, size: int, /) -> bytes:
        """About `size` bytes; none at the end."""
        while True:
            data = self._source.read(size)
            if self._decoder is None:
                return data
            text = self._decoder.decode(data, final=not data)
            if text or not data:
                return text.encode("utf-8", self._errors)
