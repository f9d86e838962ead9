"""Which raw files a run is made of: `prepare.json`, written before any of them is read.

The pairs may get more files later, an *addition* at a time; the judged pairs are settled by the
first. A file is known again by its size and by a digest of some of its blocks, wherever it lies.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from raydistill.config import TextRules
from raydistill.errors import UserError
from raydistill.inputs import InputFile, MissingInput, expand_inputs
from raydistill.readers import COLUMNS_HINT, check_columns
from raydistill.storage import Folder, open_uri

logger = logging.getLogger("raydistill")
PREPARED = "prepare.json"
# Of a file, evenly spread, the head and the tail among them: a Parquet file's statistics, a gzip
# file's checksum.
_NUM_BLOCKS, _BLOCK_BYTES = 8, 8 << 10
_NUM_THREADS = 16  # a look into a file in a bucket is 20 to 100 ms of waiting


@dataclass(frozen=True)
class RawFile:
    """A raw file, the names of its columns, and what tells it from others ("": not looked at)."""

    uri: str
    size_bytes: int
    mtime_ns: int
    columns: dict[str, str]
    digest: str = ""
    split: str = ""  # of all its pairs; "": a hash of the query decides

    @property
    def input(self) -> InputFile:
        """The file for `readers`."""
        return InputFile(self.uri, self.size_bytes, self.mtime_ns)

    @property
    def identity(self) -> tuple[int, str]:
        """What the file is, wherever it lies."""
        return self.size_bytes, self.digest


@dataclass(frozen=True)
class Ledger:
    """The settings a run was begun with, and the raw files of each dataset, by addition.

    `patterns` are the inputs, as written in run files, that have been taken.
    """

    settings: dict[str, Any]
    judged: tuple[tuple[RawFile, ...], ...]
    pairs: tuple[tuple[RawFile, ...], ...]
    patterns: tuple[str, ...]

    def additions(self, dataset: str) -> tuple[tuple[RawFile, ...], ...]:
        """The files of "judged" or "pairs", in the order in which prepare took them."""
        return self.judged if dataset == "judged" else self.pairs

    def with_additions(self, dataset: str, additions: Sequence[Sequence[RawFile]]) -> Ledger:
        """The ledger with other additions of a dataset."""
        files = tuple(tuple(addition) for addition in additions)
        return replace(self, judged=files) if dataset == "judged" else replace(self, pairs=files)

    def identities(self, dataset: str) -> list[list[Any]]:
        """All files of a dataset for a fingerprint; neither their places nor their order."""
        return sorted(
            [*file.identity, *([file.split] if file.split else [])]
            for files in self.additions(dataset)
            for file in files
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of prepare.json."""
        return asdict(self)

    @staticmethod
    def read(root: Folder) -> Ledger | None:
        """The ledger of a run folder; None where prepare has not begun."""
        content = root.read_json(PREPARED)
        if content is None:
            return None
        if not {"settings", "judged", "pairs", "patterns"} <= content.keys():
            raise UserError(
                f"{root}/{PREPARED} is of an earlier version of raydistill; give another run_dir"
            )
        judged, pairs = (
            tuple(tuple(RawFile(**file) for file in files) for files in content[name])
            for name in ("judged", "pairs")
        )
        return Ledger(content["settings"], judged, pairs, tuple(content["patterns"]))


def find_files(rules: TextRules, *, may_be_gone: Sequence[str] = ()) -> list[RawFile]:
    """Every file that the inputs of a dataset name, sorted by URI, each once.

    Raises:
        UserError: an input that names nothing and is none of `may_be_gone`, or a file that two
            inputs name with other columns or another split.
    """
    found: dict[str, RawFile] = {}
    for given in rules.input:
        columns = rules.columns(given)
        try:
            files = expand_inputs([given.path])
        except MissingInput:
            if given.path not in may_be_gone:
                raise
            continue
        for file in files:
            split = given.split or ""
            raw = RawFile(file.uri, file.size_bytes, file.mtime_ns, columns, split=split)
            if found.setdefault(file.uri, raw) != raw:
                raise UserError(
                    f"{file.uri} is in two inputs, with other columns or another split; name it "
                    "once"
                )
    return [found[uri] for uri in sorted(found)]


def look_into(files: Sequence[RawFile], *, hint: str = COLUMNS_HINT) -> list[RawFile]:
    """The files with their digests; `hint` says where columns are named.

    Raises:
        UserError: a file that cannot be read, or has not the columns it should have.
    """
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        return list(threads.map(partial(_look_into, hint=hint), files))


def _look_into(file: RawFile, *, hint: str) -> RawFile:
    check_columns(file.input, list(file.columns.values()), hint=hint)
    digest = hashlib.blake2b(digest_size=8)
    filesystem, path = open_uri(file.uri)
    last = max(0, file.size_bytes - _BLOCK_BYTES)
    with filesystem.open_input_file(path) as source:
        for start in sorted({last * at // (_NUM_BLOCKS - 1) for at in range(_NUM_BLOCKS)}):
            digest.update(source.read_at(min(_BLOCK_BYTES, file.size_bytes - start), start))
    return replace(file, digest=digest.hexdigest())


def new_files(known: Sequence[RawFile], found: Sequence[RawFile]) -> list[RawFile]:
    """Those of `found`, with digests, that are not `known`; a known file may have moved.

    Raises:
        UserError: a file that has changed in its place.
    """
    places = {file.uri: file for file in known}
    _check_unchanged(places, found)
    unknown = look_into([file for file in found if file.uri not in places])
    here = {file.uri for file in found}
    moved = _by_identity([file for file in known if file.uri not in here])
    new: list[RawFile] = []
    for file in unknown:
        before = moved.get(file.identity)
        if before:
            logger.info("prepare   %s is what was %s", file.uri, before.pop(0).uri)
        else:
            new.append(file)
    return new


def locate(known: Sequence[RawFile], found: Sequence[RawFile]) -> list[RawFile]:
    """Where each of the known files lies now, in the order of `known`.

    Raises:
        UserError: a file that is gone or has changed.
    """
    by_uri = {file.uri: file for file in found}
    places = {file.uri: file for file in known}
    _check_unchanged(places, found)
    moved: dict[tuple[int, str], list[RawFile]] = {}
    if not places.keys() <= by_uri.keys():
        moved = _by_identity(look_into([file for file in found if file.uri not in places]))
    located: list[RawFile] = []
    for file in known:
        if file.uri in by_uri:
            located.append(file)
            continue
        others = moved.get(file.identity)
        if not others:
            raise UserError(f"{file.uri} is gone, and prepare has not finished with it")
        located.append(replace(file, uri=others.pop(0).uri))
    return located


def _by_identity(files: Sequence[RawFile]) -> dict[tuple[int, str], list[RawFile]]:
    found: dict[tuple[int, str], list[RawFile]] = {}
    for file in files:
        found.setdefault(file.identity, []).append(file)
    return found


def _check_unchanged(places: dict[str, RawFile], found: Sequence[RawFile]) -> None:
    """Raise UserError when a file is not what it was when it was taken from the same place."""
    touched: list[RawFile] = []
    for file in found:
        known = places.get(file.uri)
        if known is None:
            continue
        if known.columns != file.columns:
            raise UserError(
                f"{file.uri} was prepared with the columns {known.columns}, not {file.columns}; "
                "restore them or give another run_dir"
            )
        if known.split != file.split:
            raise UserError(
                f"{file.uri} was prepared with split = {known.split!r}, not {file.split!r}; "
                "restore it or give another run_dir"
            )
        if known.size_bytes != file.size_bytes:
            raise _changed(file)
        if known.mtime_ns != file.mtime_ns:
            touched.append(file)
    for file in look_into(touched):
        if file.digest != places[file.uri].digest:
            raise _changed(file)


def _changed(file: RawFile) -> UserError:
    return UserError(
        f"{file.uri} has changed since it was prepared: give new rows in a new file, or give "
        "another run_dir"
    )
