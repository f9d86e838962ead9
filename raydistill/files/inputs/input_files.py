"""Names of raw files, folders, globs and `s3://` URIs to files of a known format."""

from __future__ import annotations

import fnmatch
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import quote

from pyarrow import fs

from raydistill.errors import UserError
from raydistill.files.folder import open_uri, without_scheme
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
    """An input that names nothing; unlike one that cannot be looked into."""


@dataclass(frozen=True)
class InputFile:
    """One raw file; size and time are part of what tells whether it has changed."""

    uri: str
    size_bytes: int
    mtime_ns: int = 0
    csv: CsvOptions = field(default_factory=CsvOptions)  # how its text is delimited, if it is

    @property
    def format(self) -> str:
        """One of the values of `FORMATS`; a file without a suffix is looked into."""
        return self._kind[0]

    @property
    def codec(self) -> str | None:
        """How the file is compressed."""
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
    """Format and compression of a file of this size and time, by its first bytes."""
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
    """Every file that files, folders, globs and `s3://` URIs name, sorted, each once.

    A folder's files of other kinds are counted on the log. `csv` says how text is delimited.

    Raises:
        MissingInput: a pattern that names nothing, or no file of a known format.
        UserError: a place that cannot be looked into.
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
            raise UserError(f"cannot look into {pattern}: {error}") from error

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
    to_uri = _uri_maker(pattern)
    named = [
        InputFile(to_uri(one.path), one.size, one.mtime_ns or 0, csv)
        for one in infos
        if one.is_file
        and not _is_hidden(one.path.removeprefix(base))
        and one.size > 0  # an hour without traffic
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
    return uri.partition("?")[0] if "://" in uri else uri


def _is_read(file: InputFile, *, is_named: bool) -> bool:
    """Whether a file is of a known format; one without a suffix, if it is named or a part."""
    path = _path(file.uri)
    if file_format(path):
        return True
    if not has_no_suffix(path) or not (is_named or is_part(path)):
        return False
    return _sniff(file.uri, file.size_bytes, file.mtime_ns)[0] is not None


def _without_records(files: Sequence[InputFile]) -> list[InputFile]:
    """Without `.json` files beside files of data: what programs write about those data."""
    data = [file for file in files if suffix_of(_path(file.uri)) != ".json"]
    return data or list(files)


def _counted(others: Counter[str]) -> str:
    return ", ".join(f"{num:,} {suffix}" for suffix, num in others.most_common())


@lru_cache(maxsize=1024)  # an input is looked up several times in a job, and named once
def _warn_others(pattern: str, counted: str) -> None:
    logger.warning("%s: %s are not read; give %s", pattern, counted, SHOWN)


def _not_read(pattern: str, info: fs.FileInfo) -> str:
    """Why a single file is not read."""
    suffix = suffix_of(info.path)
    if info.size == 0:
        return f"{pattern} is empty"
    way_out = _WAYS_OUT.get(suffix, f"give {SHOWN} files, .csv, .tsv and JSON compressed too")
    return f"{pattern} is not read, as files {_with(suffix)} are not: {way_out}"


def _with(suffix: str) -> str:
    return suffix if suffix.startswith("without") else f"with suffix {suffix}"


def _nothing_read(pattern: str, rest: Sequence[str], others: Counter[str]) -> str:
    """What an input holds that gives no file."""
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
    """The folder or file before the first wildcard, and the names behind it, with wildcards.

    A name that is there is that file or folder, whatever characters it has.
    """
    if not any(char in path for char in "*?["):
        return path, []
    names = path.split("/")
    for at, name in enumerate(names):
        if any(char in name for char in "*?[") and not is_there("/".join(names[: at + 1])):
            return "/".join(names[:at]), names[at:]
    return path, []


def matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the names on the way to a file are those of a pattern.

    `*`, `?` and `[...]` stand for characters of one name; `**` alone stands for any number of
    names, none too, and at the end for every file below.
    """
    if not pattern:
        return not names
    first, *rest = pattern
    if first == "**":
        return not rest or any(matches(names[at:], rest) for at in range(len(names)))
    return bool(names) and fnmatch.fnmatchcase(names[0], first) and matches(names[1:], rest)


def may_hold(pattern: str, folder: str) -> bool:
    """Whether an input may take files of a folder, as far as their names tell; both are URIs."""
    base, rest = split_pattern(place_of(pattern))
    inside = _below(place_of(folder), base)
    if inside is None:
        return False
    for at, name in enumerate(rest):
        if name == "**" or at == len(inside):
            return True
        if not fnmatch.fnmatchcase(inside[at], name):
            return False
    return not rest  # a folder is read with all that lies below it


def is_inside(place: str, folder: str) -> bool:
    """Whether what an input names before its first wildcard is a folder or lies in it."""
    return _below(split_pattern(place_of(place))[0], place_of(folder)) is not None


def place_of(uri: str) -> str:
    """A place by its one name: links of a disk are followed, options of a URI left out."""
    if "://" in without_scheme(uri):
        base, mark, options = uri.partition("?")
        return (base if "=" in options else base + mark + options).rstrip("/")
    base, rest = split_pattern(without_scheme(uri))
    return "/".join([os.path.realpath(base or ".").rstrip("/"), *rest])


def _below(place: str, folder: str) -> list[str] | None:
    """The names that lead from a folder to a place in it; None where it is elsewhere."""
    if place == folder:
        return []
    start = f"{folder.rstrip('/')}/"
    return place.removeprefix(start).split("/") if place.startswith(start) else None


def _is_hidden(path: str) -> bool:
    """Whether a file, or a folder on the way to it, is the work of another program."""
    return any(part.startswith((".", "_")) for part in path.split("/"))


def _uri_maker(pattern: str) -> Callable[[str], str]:
    """How a path on the pattern's file system is written as a URI of the same kind."""
    if "://" not in without_scheme(pattern):
        return lambda path: path
    scheme, _, rest = pattern.partition("://")
    options = "".join(rest.partition("?")[1:]) if "=" in rest.partition("?")[2] else ""
    return lambda path: f"{scheme}://{quote(path)}{options}"
