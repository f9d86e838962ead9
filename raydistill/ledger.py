"""Which raw files a run is made of: `prepare.json`, written before any of them is read.

The pairs may get more files later, an *addition* at a time; the judged pairs are settled by the
first. A file is known again by its size and by a digest of its head and tail, wherever it lies.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from raydistill.config import TextRules
from raydistill.errors import UserError
from raydistill.readers import InputFile, check_columns, expand_inputs
from raydistill.storage import Folder, open_uri

PREPARED = "prepare.json"
_DIGESTED_BYTES = 8 << 10  # of head and tail: a Parquet file's statistics, a gzip file's checksum
_NUM_THREADS = 16  # a look into a file in a bucket is 20 to 100 ms of waiting


@dataclass(frozen=True)
class RawFile:
    """A raw file, the names of its columns, and what tells it from others ("": not looked at)."""

    uri: str
    size_bytes: int
    columns: dict[str, str]
    digest: str = ""

    @property
    def input(self) -> InputFile:
        """The file for `readers`."""
        return InputFile(self.uri, self.size_bytes)

    @property
    def identity(self) -> tuple[int, str]:
        """What the file is, wherever it lies."""
        return self.size_bytes, self.digest


@dataclass(frozen=True)
class Ledger:
    """The settings a run was begun with, and the raw files of each dataset, by addition."""

    settings: dict[str, Any]
    judged: tuple[tuple[RawFile, ...], ...]
    pairs: tuple[tuple[RawFile, ...], ...]

    def additions(self, dataset: str) -> tuple[tuple[RawFile, ...], ...]:
        """The files of "judged" or "pairs", in the order in which prepare took them."""
        return self.judged if dataset == "judged" else self.pairs

    def identities(self, dataset: str) -> list[list[Any]]:
        """All files of a dataset for a fingerprint; neither their places nor their order."""
        return sorted(list(file.identity) for files in self.additions(dataset) for file in files)

    def to_dict(self) -> dict[str, Any]:
        """The content of prepare.json."""
        return asdict(self)

    @staticmethod
    def read(root: Folder) -> Ledger | None:
        """The ledger of a run folder; None where prepare has not begun."""
        content = root.read_json(PREPARED)
        if content is None:
            return None
        if not {"settings", "judged", "pairs"} <= content.keys():
            raise UserError(
                f"{root}/{PREPARED} is of an earlier version of raydistill; give another run_dir"
            )
        judged, pairs = (
            tuple(tuple(RawFile(**file) for file in files) for files in content[name])
            for name in ("judged", "pairs")
        )
        return Ledger(content["settings"], judged, pairs)


def find_files(rules: TextRules) -> list[RawFile]:
    """Every file that the inputs of a dataset name, sorted by URI, each once.

    Raises:
        UserError: an input that names nothing.
    """
    found: dict[str, RawFile] = {}
    for given in rules.input:
        columns = rules.columns(given)
        for file in expand_inputs([given.path]):
            found.setdefault(file.uri, RawFile(file.uri, file.size_bytes, columns))
    return [found[uri] for uri in sorted(found)]


def look_into(files: Sequence[RawFile]) -> list[RawFile]:
    """The files with their digests.

    Raises:
        UserError: a file that cannot be read, or has not the columns it should have.
    """
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        return list(threads.map(_look_into, files))


def _look_into(file: RawFile) -> RawFile:
    check_columns(file.input, list(file.columns.values()))
    filesystem, path = open_uri(file.uri)
    with filesystem.open_input_file(path) as source:
        head = source.read_at(min(_DIGESTED_BYTES, file.size_bytes), 0)
        tail = source.read_at(_DIGESTED_BYTES, max(0, file.size_bytes - _DIGESTED_BYTES))
    return replace(file, digest=hashlib.blake2b(head + tail, digest_size=8).hexdigest())


def new_files(known: Sequence[RawFile], found: Sequence[RawFile]) -> list[RawFile]:
    """Those of `found`, with digests, that are not `known`; a known file may have moved.

    Raises:
        UserError: a file that has changed in its place.
    """
    places = {file.uri: file for file in known}
    for file in found:
        _check_unchanged(places.get(file.uri), file)
    unknown = look_into([file for file in found if file.uri not in places])
    here = {file.uri for file in found}
    moved = Counter(file.identity for file in known if file.uri not in here)
    new: list[RawFile] = []
    for file in unknown:
        if moved[file.identity]:
            moved[file.identity] -= 1
        else:
            new.append(file)
    return new


def locate(known: Sequence[RawFile], found: Sequence[RawFile]) -> list[RawFile]:
    """Where each of the known files lies now, in the order of `known`.

    Raises:
        UserError: a file that is gone or has changed.
    """
    by_uri = {file.uri: file for file in found}
    places = {file.uri for file in known}
    moved: dict[tuple[int, str], list[RawFile]] = {}
    if not places <= set(by_uri):
        for file in look_into([file for file in found if file.uri not in places]):
            moved.setdefault(file.identity, []).append(file)
    located: list[RawFile] = []
    for file in known:
        now = by_uri.get(file.uri)
        _check_unchanged(file, now or file)
        if now is None:
            others = moved.get(file.identity)
            if not others:
                raise UserError(
                    f"{file.uri} is gone, and prepare has not finished with it: put it back, or "
                    "name the folder that it was moved to"
                )
            file = replace(file, uri=others.pop(0).uri)
        located.append(file)
    return located


def _check_unchanged(known: RawFile | None, now: RawFile) -> None:
    if known is None:
        return
    if known.size_bytes != now.size_bytes:
        raise UserError(
            f"{now.uri} has changed since it was prepared ({known.size_bytes:,} bytes then, "
            f"{now.size_bytes:,} now): give new rows in a new file, or give another run_dir"
        )
    if known.columns != now.columns:
        raise UserError(
            f"{now.uri} was prepared with the columns {known.columns}, not {now.columns}; "
            "restore them or give another run_dir"
        )
