"""The raw files of a run, stored in `prepare.json` before any of them is read.

The pairs can get more files later; each addition is an *increment*. The judged pairs are fixed by
the first one. A file is identified by its size and digest (`identities.py`), not by its location.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from raydistill.config.data import Column, TextRules
from raydistill.data.grades import LabelRule
from raydistill.data.identities import is_known_by_time, look_at, stamp_of
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.inputs.csv_dialect import CsvOptions
from raydistill.files.inputs.input_files import InputFile, MissingInput, expand_inputs
from raydistill.files.inputs.raw_rows import flat_names
from raydistill.files.inputs.readers import COLUMNS_HINT, check_columns

logger = logging.getLogger("raydistill")
PREPARED = "prepare.json"
_FORMAT = 4  # of prepare.json, and of the query key by which pairs are split
_NUM_THREADS = 16  # one read from S3 waits 20 to 100 ms


@dataclass(frozen=True)
class RawFile:
    """A raw file, the names of its columns, and how it is read; `digest` is "" until it is read."""

    uri: str
    size_bytes: int
    mtime_ns: int
    columns: dict[str, Column]
    digest: str = ""
    split: str = ""  # of all its pairs; "": determined by a hash of the query
    stamp: str = ""  # at the time of the digest; "": the digest must be checked again
    csv: dict[str, str] = field(default_factory=dict)  # fields of CsvOptions
    labels: dict[str, Any] = field(default_factory=dict)  # `scale` or `grades`

    @property
    def input(self) -> InputFile:
        """The file for `readers`."""
        return InputFile(self.uri, self.size_bytes, self.mtime_ns, CsvOptions(**self.csv))

    @property
    def label_rule(self) -> LabelRule:
        """The rule that maps its labels to 0..1."""
        return LabelRule.of(self.labels)

    @property
    def reading(self) -> list[str]:
        """Settings of csv and labels, for a fingerprint; [] if the run file has none for it."""
        given = {"csv": self.csv, "labels": self.labels}
        named = {name: value for name, value in given.items() if value}
        return [json.dumps(named, sort_keys=True)] if named else []

    @property
    def identity(self) -> tuple[int, str]:
        """Size in bytes and digest: equal for a file that was moved."""
        return self.size_bytes, self.digest

    @property
    def is_judged(self) -> bool:
        """Whether its rows have labels; the digest of such a file covers all its bytes."""
        return "label" in self.columns


@dataclass(frozen=True)
class Manifest:
    """The initial settings of a run, and the raw files of each dataset, by increment.

    `patterns` are the inputs, as written in run files, whose files are in the manifest.
    """

    settings: dict[str, Any]
    judged: tuple[tuple[RawFile, ...], ...]
    pairs: tuple[tuple[RawFile, ...], ...]
    patterns: tuple[str, ...]

    def increments(self, dataset: str) -> tuple[tuple[RawFile, ...], ...]:
        """The files of "judged" or "pairs", one tuple an increment, oldest first."""
        return self.judged if dataset == "judged" else self.pairs

    def with_increments(self, dataset: str, increments: Sequence[Sequence[RawFile]]) -> Manifest:
        """The manifest with other increments of a dataset."""
        files = tuple(tuple(increment) for increment in increments)
        return replace(self, judged=files) if dataset == "judged" else replace(self, pairs=files)

    def identities(self, dataset: str) -> list[list[Any]]:
        """All files of a dataset for a fingerprint, independent of their locations and order."""
        return sorted(
            [*file.identity, *([file.split] if file.split else []), *file.reading]
            for files in self.increments(dataset)
            for file in files
        )

    def holds_what(self, other: Manifest) -> bool:
        """Whether both have the same files in the same increments; stamps may differ."""
        return all(
            _contents(self.increments(dataset)) == _contents(other.increments(dataset))
            for dataset in ("judged", "pairs")
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of prepare.json."""
        return {"format": _FORMAT, **asdict(self)}

    @staticmethod
    def read(root: Folder) -> Manifest | None:
        """The manifest of a run folder; None if prepare has not started.

        Raises:
            UserError: it was written by another version of raydistill.
        """
        content = root.read_json(PREPARED)
        if content is None:
            return None
        if content.get("format") != _FORMAT:
            raise UserError(
                f"{root}/{PREPARED} is of another version of raydistill (format "
                f"{content.get('format', 1)}, this one reads {_FORMAT}); give another run_dir, "
                "where all stages run anew"
            )
        judged, pairs = (
            tuple(tuple(RawFile(**file) for file in files) for files in content[name])
            for name in ("judged", "pairs")
        )
        return Manifest(content["settings"], judged, pairs, tuple(content["patterns"]))


def _contents(increments: Sequence[Sequence[RawFile]]) -> list[list[tuple[Any, ...]]]:
    return [[(file.uri, *file.identity, *file.reading) for file in files] for files in increments]


def find_files(rules: TextRules, *, optional_patterns: Sequence[str] = ()) -> list[RawFile]:
    """All files of a dataset's inputs, each once, sorted by URI.

    Raises:
        UserError: an input without a file that is not one of `optional_patterns`, or a file of two
            inputs with different columns, split, csv, scale or grades.
    """
    found: dict[str, RawFile] = {}
    for given in rules.input:
        columns, csv = rules.columns(given), rules.csv_options(given)
        labels = rules.label_rule(given)
        try:
            files = expand_inputs([given.path])
        except MissingInput:
            if given.path not in optional_patterns:
                raise
            continue
        for file in files:
            split = given.split or ""
            place = (file.uri, file.size_bytes, file.mtime_ns)
            raw = RawFile(*place, columns, split=split, csv=csv, labels=labels)
            if found.setdefault(file.uri, raw) != raw:
                raise UserError(
                    f"{file.uri} is in two inputs, with other columns, another split or other "
                    "csv, scale or grades; name it once"
                )
    return [found[uri] for uri in sorted(found)]


def check_files(files: Sequence[RawFile], *, hint: str = COLUMNS_HINT) -> None:
    """Read the head of every file; `hint` tells the user where columns are configured.

    Raises:
        UserError: a file that cannot be read, or lacks one of its columns.
    """

    def check(file: RawFile) -> None:
        check_columns(file.input, flat_names(file.columns), hint=hint)

    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        list(threads.map(check, files))


def read_identities(files: Sequence[RawFile], *, hint: str = COLUMNS_HINT) -> list[RawFile]:
    """The files with their digests and stamps; `hint` as in `check_files`.

    Raises:
        UserError: as `check_files`.
    """
    check_files(files, hint=hint)
    return _with_digests(files)


def _with_digests(files: Sequence[RawFile]) -> list[RawFile]:
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        return list(threads.map(_with_digest, files))


def _with_digest(file: RawFile) -> RawFile:
    try:
        found = look_at(file.input, whole=file.is_judged)
    except OSError as error:
        raise UserError(f"cannot read {file.uri}: {error}") from error
    return replace(file, digest=found.digest, stamp=found.stamp)


def check_unchanged(known: Sequence[RawFile], found: Sequence[RawFile]) -> list[RawFile]:
    """The known files, with their current times and stamps.

    A file whose stamp is unchanged is not read. Any other is read again, and its digest must be
    unchanged. A known file that is not in `found` is returned as it is.

    Raises:
        UserError: a file whose content, columns, split, csv, scale or grades have changed.
    """
    here = {file.uri: file for file in found}
    suspects: list[RawFile] = []
    for file in known:
        now = here.get(file.uri)
        if now is None:
            continue
        _check_same_reading(file, now)
        if file.size_bytes != now.size_bytes:
            raise _changed(file, now)
        if not file.stamp or file.stamp != stamp_of(now.input):
            suspects.append(now)
    looked_at = {file.uri: file for file in _with_digests(suspects)}
    for file in known:
        now = looked_at.get(file.uri)
        if now is not None and now.digest != file.digest:
            raise _changed(file, now)
    return [looked_at.get(file.uri, file) for file in known]


def unknown_files(known: Sequence[RawFile], found: Sequence[RawFile]) -> list[RawFile]:
    """The files of `found` that are not `known`, with digests; a moved file is known.

    Raises:
        UserError: as `check_files`.
    """
    places, here = {file.uri for file in known}, {file.uri for file in found}
    unknown = read_identities([file for file in found if file.uri not in places])
    moved = _by_identity([file for file in known if file.uri not in here])
    new: list[RawFile] = []
    for file in unknown:
        before = moved.get(file.identity)
        if before:
            logger.info("prepare   %s is what was %s", file.uri, before.pop(0).uri)
        else:
            new.append(file)
    return new


def find_moved(known: Sequence[RawFile], found: Sequence[RawFile]) -> list[RawFile]:
    """The known files with their current locations, in the order of `known`.

    Raises:
        UserError: a file that is gone or has changed.
    """
    here, places = {file.uri for file in found}, {file.uri for file in known}
    known = check_unchanged(known, found)
    moved: dict[tuple[int, str], list[RawFile]] = {}
    if not places <= here:
        moved = _by_identity(read_identities([file for file in found if file.uri not in places]))
    located: list[RawFile] = []
    for file in known:
        if file.uri in here:
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


def _check_same_reading(known: RawFile, now: RawFile) -> None:
    """Raise UserError unless columns, split, csv, scale and grades are as at its preparation."""
    if known.columns != now.columns:
        raise UserError(
            f"{now.uri} was prepared with the columns {known.columns}, not {now.columns}; "
            "restore them or give another run_dir"
        )
    if known.split != now.split:
        raise UserError(
            f"{now.uri} was prepared with split = {known.split!r}, not {now.split!r}; "
            "restore it or give another run_dir"
        )
    if known.reading != now.reading:
        was, is_now = known.csv | known.labels, now.csv | now.labels
        raise UserError(
            f"{now.uri} was prepared with {was or 'no csv, scale or grades'}, not "
            f"{is_now or 'without them'}; restore them or give another run_dir"
        )


def _changed(known: RawFile, now: RawFile) -> UserError:
    way_out = "give new rows in a new file, or give another run_dir"
    if is_known_by_time(known.digest) and now.size_bytes == known.size_bytes:
        seconds, ns = divmod(known.mtime_ns, 1_000_000_000)
        way_out = (
            "a file of this size is known by its time too: if its content is the same, restore the "
            f"time (touch -d @{seconds}.{ns:09d}); else {way_out}"
        )
    return UserError(f"{now.uri} has changed since it was prepared: {way_out}")
