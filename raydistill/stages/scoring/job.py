"""What a job over a catalogue scores, with what, and where to; two jobs are never mixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from raydistill.cluster.tasks import Item
from raydistill.data.identities import look_at, stamp_of
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.inputs.csv_dialect import CsvOptions
from raydistill.files.inputs.input_files import InputFile, expand_inputs, is_inside, may_hold
from raydistill.stages.scoring.outputs import WRITTEN
from raydistill.stages.scoring.rows import Reading

JOB, KIND = "_job.json", "scores"
SHARD_ROWS = 1 << 18  # of a large input file, for one output file: 0.7 s of a core
_LAYOUT = 1  # of the output folder: names of outputs, items of work
_NUM_THREADS = 16
_SHOWN = 3


@dataclass(frozen=True)
class Named:
    """An input file as it was when the job began, or is now."""

    uri: str
    size_bytes: int
    mtime_ns: int
    digest: str  # of its content, or its state in the store
    stamp: str  # at the time of the digest; "": the digest must be checked again


@dataclass(frozen=True)
class Job:
    """Bundle, inputs, columns and output of one command."""

    output: Folder
    bundle: str
    bundle_fingerprint: str
    reading: Reading
    files: tuple[Named, ...]
    patterns: tuple[str, ...]
    csv: CsvOptions = field(default_factory=CsvOptions)
    columns: tuple[str, ...] | None = None  # written beside the score; None: all
    kind: str = "parquet"
    shard_rows: int = SHARD_ROWS

    def settings(self) -> dict[str, Any]:
        """All that determines the bytes of the output."""
        title = self.reading.title
        return {
            "layout": _LAYOUT,
            "bundle": self.bundle_fingerprint,
            "query": self.reading.query,
            "title": title if isinstance(title, str) else list(title),
            "columns": None if self.columns is None else list(self.columns),
            "format": self.kind,
            "shard_rows": self.shard_rows,
            "csv": asdict(self.csv),
            "files": {file.uri: [file.size_bytes, file.digest] for file in self.files},
        }

    def content(self) -> dict[str, Any]:
        """The content of _job.json."""
        return {**self.settings(), "stamps": {file.uri: file.stamp for file in self.files}}

    def check_begun(self) -> None:
        """Raise UserError if the output folder is another tool's, or was begun by another job."""
        self.output.check_claim(KIND)
        begun, mine = self.output.read_json(JOB), self.settings()
        if begun is None:
            return
        changed = [name for name in mine if name != "files" and begun.get(name) != mine[name]]
        shown = [f"{name} {begun.get(name)!r} there, {mine[name]!r} here" for name in changed]
        shown += _changes(begun["files"], mine["files"])
        if shown:
            raise UserError(
                f"{self.output} holds scores of another job: {'; '.join(shown)}. Give another "
                "--output, or the bundle, inputs and options of that job to go on with it"
            )

    def input_of(self, file: Named) -> InputFile:
        """The file for `readers`."""
        return InputFile(file.uri, file.size_bytes, file.mtime_ns, self.csv)

    def with_files(self, item: Item) -> Item:
        """An item of the plan with the places, sizes and times of its files."""
        files = ((part, self.files[part["at"]]) for part in item["parts"])
        parts = [
            {**part, "uri": file.uri, "size_bytes": file.size_bytes, "mtime_ns": file.mtime_ns}
            for part, file in files
        ]
        return {**item, "parts": parts}

    @property
    def without_files(self) -> Self:
        """The job as workers need it: the items have the files."""
        return replace(self, files=(), patterns=())


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What happened to the input files, one text for each kind of change."""
    there = {
        "new": [uri for uri in now if uri not in before],
        "gone": [uri for uri in before if uri not in now],
        "changed": [uri for uri in now if uri in before and now[uri] != before[uri]],
    }
    return [
        f"{len(uris):,} input files are {what} since it began ({', '.join(uris[:_SHOWN])}"
        f"{' and others' if len(uris) > _SHOWN else ''})"
        for what, uris in there.items()
        if uris
    ]


def make_job(
    output: str,
    *,
    bundle: str,
    bundle_fingerprint: str,
    inputs: Sequence[str],
    reading: Reading,
    csv: CsvOptions,
    columns: Sequence[str] | None,
    kind: str,
    shard_rows: int,
) -> Job:
    """Look at the inputs and the output.

    Raises:
        UserError: an input matches no file, inputs and output overlap, or the output was
            begun by another job.
    """
    if kind not in WRITTEN:
        raise UserError(f"--format {kind}: give one of {', '.join(WRITTEN)}")
    folder = Folder(output)
    for pattern in inputs:
        if is_inside(pattern, folder.uri) or may_hold(pattern, folder.uri):
            raise UserError(
                f"the input {pattern} and the output {output} overlap; give another --output"
            )
    files = expand_inputs(inputs, csv=csv)
    folder.check_claim(KIND)
    job = Job(
        folder, _absolute(bundle), bundle_fingerprint, reading,
        _looked_at(files, folder.read_json(JOB) or {}), tuple(inputs), csv,
        None if columns is None else tuple(columns), kind, shard_rows,
    )  # fmt: skip
    job.check_begun()
    return job


def _absolute(bundle: str) -> str:
    path = Path(bundle).expanduser()
    return str(path.absolute()) if "://" not in bundle and path.exists() else bundle


def _looked_at(files: Sequence[InputFile], begun: Mapping[str, Any]) -> tuple[Named, ...]:
    """The files with their digests; a file whose stamp is as before is not read again."""
    stamps, before = begun.get("stamps", {}), begun.get("files", {})

    def look(file: InputFile) -> Named:
        place = file.uri, file.size_bytes, file.mtime_ns
        stamp = stamps.get(file.uri)
        if stamp and before[file.uri][0] == file.size_bytes and stamp == stamp_of(file):
            return Named(*place, before[file.uri][1], stamp)
        try:
            found = look_at(file, whole=False)
        except OSError as error:
            raise UserError(f"cannot read {file.uri}: {error}") from error
        return Named(*place, found.digest, found.stamp)

    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        return tuple(threads.map(look, files))
