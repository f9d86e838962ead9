"""Inputs of the run file (files, folders, globs, `s3://` URIs) to files of a known format."""

from __future__ import annotations

import fnmatch
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pyarrow import fs

from raydistill.errors import UserError
from raydistill.files.inputs.csv_dialect import CsvOptions
from raydistill.files.inputs.decoding import HEAD_BYTES, read_full
from raydistill.files.inputs.formats import (
    FORMATS,
    SHOWN,
    codec_of,
    file_format,
    has_no_suffix,
    is_part,
    open_stream,
    sniff_codec,
    sniff_format,
    suffix_of,
)
from raydistill.files.retry import tried_at
from raydistill.files.stores.s3_options import split_options
from raydistill.files.uris import open_uri, uri_of, without_scheme

logger = logging.getLogger("raydistill")
_WAYS_OUT = {
    ".xlsx": "save it as CSV",
    ".xls": "save it as CSV",
    ".zip": "unpack it",
    ".tar": "unpack it",
    ".avro": "write it as Parquet",
    ".txt": "name it .csv or .tsv",
}


class MissingInput(UserError):
    """An input that matches no file; inputs that cannot be listed raise UserError."""


@dataclass(frozen=True)
class InputFile:
    """One raw file; its size and modification time serve to detect changes."""

    uri: str
    size_bytes: int
    mtime_ns: int = 0
    csv: CsvOptions = field(default_factory=CsvOptions)  # used for delimited text only

    @property
    def format(self) -> str:
        """One of the values of `FORMATS`; without a suffix, from the first bytes of the file.

        Raises:
            UserError: the format is not known, or the file cannot be read.
        """
        return self._kind[0]

    @property
    def codec(self) -> str | None:
        """One of the values of `CODECS`; None if the file is not compressed."""
        return self._kind[1]

    @property
    def _kind(self) -> tuple[str, str | None]:
        path = _path(self.uri)
        kind, codec = file_format(path), codec_of(path)
        if kind is None and has_no_suffix(path):
            kind, codec = _sniff(self.uri, self.size_bytes, self.mtime_ns)
        if kind is None:
            raise UserError(f"{self.uri} is of no known format; give {SHOWN} files")
        return kind, codec


@lru_cache(maxsize=4096)
def _sniff(uri: str, size_bytes: int, mtime_ns: int) -> tuple[str | None, str | None]:
    """Format and compression of a file, from its first bytes; size and time are for the cache."""
    try:
        head = tried_at(uri, lambda: _head(uri, None))
        codec = codec_of(uri) or sniff_codec(head)
        if codec:
            head = tried_at(uri, lambda: _head(uri, codec))
    except OSError as error:
        raise UserError(f"cannot read {uri}: {error}") from error
    return sniff_format(head), codec


def _head(uri: str, codec: str | None) -> bytes:
    with open_stream(uri, codec=codec) as stream:
        return read_full(stream, HEAD_BYTES)


def expand_inputs(patterns: Sequence[str], *, csv: CsvOptions | None = None) -> list[InputFile]:
    """Every file that the inputs (files, folders, globs, `s3://` URIs) match, sorted, each once.

    Other files of a folder are counted in a warning. `csv`: settings for delimited text.

    Raises:
        MissingInput: a pattern matches nothing, or no file of a known format.
        UserError: a path cannot be accessed.
    """
    options = csv or CsvOptions()
    found = {file.uri: file for pattern in patterns for file in _expand(pattern, options)}
    return [found[uri] for uri in sorted(found)]


def _expand(pattern: str, csv: CsvOptions) -> list[InputFile]:
    filesystem, path = open_uri(pattern)

    def info_of(place: str) -> fs.FileInfo:
        try:
            return tried_at(pattern, lambda: filesystem.get_file_info(place))
        except OSError as error:
            raise UserError(f"cannot access {pattern}: {error}") from error

    base, rest = split_pattern(path, is_there=lambda place: _exists(info_of(place)))
    info = info_of(base)
    if not _exists(info):
        raise MissingInput(f"no such input: {pattern}")
    is_folder = info.type == fs.FileType.Directory
    infos = [info]
    if is_folder:
        is_deep = len(rest) != 1 or rest == ["**"]
        selector = fs.FileSelector(base, recursive=is_deep)
        infos = tried_at(pattern, lambda: filesystem.get_file_info(selector))
    named = [
        InputFile(uri_of(one.path, like=pattern), one.size, one.mtime_ns or 0, csv)
        for one in infos
        if one.is_file
        and not _is_hidden(one.path.removeprefix(base))
        and one.size > 0  # empty: such as the log of an hour without traffic
        and (not rest or matches(one.path.removeprefix(base).strip("/").split("/"), rest))
    ]
    files = [file for file in named if _is_read(file, is_named=not is_folder)]
    if is_folder and not (rest and ".json" in rest[-1]):
        files = _without_records(files)
    read = set(files)
    others = Counter(suffix_of(_path(file.uri)) for file in named if file not in read)
    if not files:
        if not is_folder:
            raise MissingInput(_not_read(pattern, info))
        raise MissingInput(_nothing_read(pattern, rest, others))
    if others:
        _warn_others(pattern, _counted(others))
    return files


def _exists(info: fs.FileInfo) -> bool:
    return bool(info.type != fs.FileType.NotFound)


def _path(uri: str) -> str:
    """A URI without its options."""
    return split_options(uri)[0] if "://" in uri else uri


def _is_read(file: InputFile, *, is_named: bool) -> bool:
    """Whether a file is of a known format.

    A file without a suffix must be named in the input or have the name of a part of a table.
    """
    path = _path(file.uri)
    if file_format(path):
        return True
    if not has_no_suffix(path) or not (is_named or is_part(path)):
        return False
    return _sniff(file.uri, file.size_bytes, file.mtime_ns)[0] is not None


def _without_records(files: Sequence[InputFile]) -> list[InputFile]:
    """The files without `.json` beside other data files: those hold metadata about the data."""
    data = [file for file in files if suffix_of(_path(file.uri)) != ".json"]
    return data or list(files)


def _counted(others: Counter[str]) -> str:
    return ", ".join(f"{num:,} {suffix}" for suffix, num in others.most_common())


@lru_cache(maxsize=1024)  # a job expands an input several times, and warns once
def _warn_others(pattern: str, counted: str) -> None:
    logger.warning("%s: %s are not read; give %s", pattern, counted, SHOWN)


def _not_read(pattern: str, info: fs.FileInfo) -> str:
    """The message for a single file that is not read."""
    suffix = suffix_of(info.path)
    if info.size == 0:
        return f"{pattern} is empty"
    way_out = _WAYS_OUT.get(suffix, f"give {SHOWN} files, .csv, .tsv and JSON compressed too")
    return f"{pattern} is not read, as files {_with(suffix)} are not: {way_out}"


def _with(suffix: str) -> str:
    return suffix if suffix.startswith("without") else f"with suffix {suffix}"


def _nothing_read(pattern: str, rest: Sequence[str], others: Counter[str]) -> str:
    """The message for an input without a file of a known format: its other files, and advice."""
    deeper = ""
    if any("*" in name for name in rest):
        deeper = "; * stands for one name, ** for folders too"
    if not others:
        return f"no {', '.join(FORMATS)} file in input: {pattern}{deeper}"
    ways = {suffix: way for suffix, way in _WAYS_OUT.items() if suffix in others}
    ways_out = "; ".join(f"{suffix}: {way}" for suffix, way in ways.items())
    return (
        f"no {', '.join(FORMATS)} file in input: {pattern}: it has {_counted(others)}"
        f"{'; ' + ways_out if ways_out else ''}{deeper}"
    )


def split_pattern(
    path: str, *, is_there: Callable[[str], bool] = os.path.lexists
) -> tuple[str, list[str]]:
    """The path before the first wildcard, and the names from the first wildcard on.

    A name that exists is that file or folder, even if it contains wildcard characters.
    """
    if not any(char in path for char in "*?["):
        return path, []
    names = path.split("/")
    for at, name in enumerate(names):
        if any(char in name for char in "*?[") and not is_there("/".join(names[: at + 1])):
            return "/".join(names[:at]), names[at:]
    return path, []


def matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the names of a path match those of a pattern.

    `*`, `?` and `[...]` match characters within one name. `**` as a name matches any number of
    names, including none; at the end it matches every file below.
    """
    if not pattern:
        return not names
    first, *rest = pattern
    if first == "**":
        return not rest or any(matches(names[at:], rest) for at in range(len(names)))
    return bool(names) and fnmatch.fnmatchcase(names[0], first) and matches(names[1:], rest)


def may_hold(pattern: str, folder: str) -> bool:
    """Whether an input can match files in a folder, judged by the names; both are URIs."""
    base, rest = split_pattern(place_of(pattern))
    inside = _below(place_of(folder), base)
    if inside is None:
        return False
    for at, name in enumerate(rest):
        if name == "**" or at == len(inside):
            return True
        if not fnmatch.fnmatchcase(inside[at], name):
            return False
    return not rest  # a folder is read with all files below it


def is_inside(place: str, folder: str) -> bool:
    """Whether the path of an input, before its first wildcard, is `folder` or inside it."""
    return _below(split_pattern(place_of(place))[0], place_of(folder)) is not None


def place_of(uri: str) -> str:
    """The canonical form of a path or URI: local links resolved, options of a URI removed."""
    if "://" in without_scheme(uri):
        return split_options(uri)[0].rstrip("/")
    base, rest = split_pattern(without_scheme(uri))
    return "/".join([os.path.realpath(base or ".").rstrip("/"), *rest])


def _below(place: str, folder: str) -> list[str] | None:
    """The names from a folder to a path inside it; None if the path is elsewhere."""
    if place == folder:
        return []
    start = f"{folder.rstrip('/')}/"
    return place.removeprefix(start).split("/") if place.startswith(start) else None


def _is_hidden(path: str) -> bool:
    """Whether a name on the path begins with `.` or `_`: other programs write such files."""
    return any(part.startswith((".", "_")) for part in path.split("/"))
