"""Names of raw files, folders, globs and `s3://` URIs to files of a known format."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pyarrow import fs

from raydistill.errors import UserError
from raydistill.storage import open_uri

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
        found = file_format(self.uri)
        assert found, "only files of a known format become InputFiles"
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
    wildcard = next((at for at, char in enumerate(path) if char in "*?["), None)
    base = path if wildcard is None else path[:wildcard].rpartition("/")[0]
    try:
        info = filesystem.get_file_info(base)
    except OSError as error:
        raise UserError(f"cannot look into {pattern}: {error}") from error
    if info.type == fs.FileType.NotFound:
        raise MissingInput(f"no such input: {pattern}")
    if info.type == fs.FileType.Directory:
        infos = filesystem.get_file_info(fs.FileSelector(base, recursive=True))
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
        and (wildcard is None or fnmatch.fnmatchcase(one.path, path))
    ]
    if not files:
        raise MissingInput(f"no {', '.join(FORMATS)} file in input: {pattern}")
    return files


def _is_hidden(path: str) -> bool:
    """Whether a file, or a folder on the way to it, is the work of another program."""
    return any(part.startswith((".", "_")) for part in path.split("/"))


def _uri_maker(pattern: str) -> Callable[[str], str]:
    """How a path on the pattern's file system is written as a URI of the same kind."""
    if "://" not in pattern:
        return lambda path: path
    scheme, _, rest = pattern.partition("://")
    options = "".join(rest.partition("?")[1:]) if "=" in rest.partition("?")[2] else ""
    return lambda path: f"{scheme}://{quote(path)}{options}"
