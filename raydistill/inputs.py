"""Names of raw files, folders, globs and `s3://` URIs to files of a known format."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pyarrow import fs

from raydistill.errors import UserError
from raydistill.retry import tried_at
from raydistill.storage import open_uri, without_scheme

FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
COMPRESSIONS = (".gz", ".zst")


class MissingInput(UserError):
    """An input that names nothing; unlike one that cannot be looked into."""


@dataclass(frozen=True)
class InputFile:
    """One raw file; size and time are part of what tells whether it has changed."""

    uri: str
    size_bytes: int
    mtime_ns: int = 0

    @property
    def format(self) -> str:
        """One of `parquet csv tsv jsonl`."""
        path = self.uri.partition("?")[0] if "://" in self.uri else self.uri  # without options
        found = file_format(path)
        if found is None:
            raise UserError(f"{self.uri} is of no known format; give {', '.join(FORMATS)} files")
        return found


def file_format(uri: str) -> str | None:
    """`parquet`, `csv`, `tsv` or `jsonl` by the file's ending; None for anything else."""
    name = uri.lower()
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    return next((kind for suffix, kind in FORMATS.items() if name.endswith(suffix)), None)


def expand_inputs(patterns: Sequence[str]) -> list[InputFile]:
    """Every file that files, folders, globs and `s3://` URIs name, sorted, each once.

    Raises:
        MissingInput: a pattern that names nothing, or no file of a known format.
        UserError: a place that cannot be looked into.
    """
    found = {file.uri: file for pattern in patterns for file in _expand(pattern)}
    return [found[uri] for uri in sorted(found)]


def _expand(pattern: str) -> list[InputFile]:
    filesystem, path = open_uri(pattern)
    base, rest = split_pattern(path)
    try:
        info = tried_at(pattern, lambda: filesystem.get_file_info(base))
    except OSError as error:
        raise UserError(f"cannot look into {pattern}: {error}") from error
    if info.type == fs.FileType.NotFound:
        raise MissingInput(f"no such input: {pattern}")
    if info.type == fs.FileType.Directory:
        is_deep = len(rest) != 1 or rest == ["**"]
        selector = fs.FileSelector(base, recursive=is_deep)
        infos = tried_at(pattern, lambda: filesystem.get_file_info(selector))
    else:
        infos = [info]
    to_uri = _uri_maker(pattern)
    files = [
        InputFile(to_uri(one.path), one.size, one.mtime_ns or 0)
        for one in infos
        if one.is_file
        and file_format(one.path)
        and not _is_hidden(one.path.removeprefix(base))
        and one.size > 0  # an hour without traffic
        and (not rest or matches(one.path.removeprefix(base).strip("/").split("/"), rest))
    ]
    if not files:
        deeper = (
            "; * stands for one name, ** for folders too"
            if any("*" in name for name in rest)
            else ""
        )
        raise MissingInput(f"no {', '.join(FORMATS)} file in input: {pattern}{deeper}")
    return files


def split_pattern(path: str) -> tuple[str, list[str]]:
    """The folder or file before the first wildcard, and the names behind it, with wildcards."""
    wildcard = next((at for at, char in enumerate(path) if char in "*?["), None)
    if wildcard is None:
        return path, []
    base = path[:wildcard].rpartition("/")[0]
    return base, path[len(base) :].strip("/").split("/")


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
