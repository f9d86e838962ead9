"""Input files to items of work, and the names and columns of the outputs.

A large Parquet file is several pieces of row groups, each with an output of its own; so is a large
CSV or JSON lines file, which is read once to find where its pieces begin. Any other file is one
piece, read as a stream into one or more outputs. Small files share an item. The plan depends on the
inputs and settings alone.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import PurePosixPath

import pyarrow as pa

from raydistill.cluster.tasks import Item, run_tasks
from raydistill.files.inputs.formats import FORMATS, TEXT_FORMATS, codec_of, file_format
from raydistill.files.inputs.input_files import InputFile, split_pattern
from raydistill.files.inputs.raw_rows import Stretch
from raydistill.files.inputs.readers import (
    check_columns,
    row_group_spans,
    text_stretches,
    unified,
)
from raydistill.files.retry import tried_at
from raydistill.files.uris import open_uri
from raydistill.stages.scoring.job import JOB, Job
from raydistill.stages.scoring.outputs import check_format
from raydistill.stages.scoring.rows import (
    HINT,
    check_named,
    columns_to_read,
    output_schema,
    schema_of,
)

logger = logging.getLogger("raydistill")
PLAN = "_plan.json"
_NUM_THREADS = 16
_NUM_ITEMS = 256  # at least, if there is as much work: for the cores of a cluster
# A file costs about as much as scoring so many rows: on S3 its requests, 50 to 100 ms.
_ROWS_A_FILE = 16_384
_BYTES_A_ROW = 50  # of a text file, about; a compressed one has twice as many rows a byte
_JSON = ("json", "jsonl")
_JSON_BYTES = 256 << 20  # JSON files that a task reads for their columns
_PIECE = re.compile(r"(.*)-\d{5}")


@dataclass(frozen=True)
class Plan:
    """All items of work, and the columns of every output."""

    schema: pa.Schema
    items: list[Item]


def make_plan(job: Job) -> Plan:
    """The plan of a job: the one that was written, or a new one, which is written.

    The job is written with it: inputs that cannot be read leave an output that is not begun.

    Raises:
        UserError: an input file cannot be read or lacks a column, or a column does not fit in the
            format.
    """
    written = read_plan(job)
    if written is not None:
        return written
    logger.info("score     looking at %s files", f"{len(job.files):,}")
    found = survey(job)
    schemas = [contents.schema for contents in found]
    schema = output_schema(schemas, kind=job.kind, columns=job.columns)
    check_format(job.kind, schema)
    items = plan_items(job, found)
    job.output.write_json(JOB, job.content())
    job.output.write_json(PLAN, {"schema": encoded(schema), "items": items})
    return Plan(schema, items)


def read_plan(job: Job) -> Plan | None:
    """The plan that was written; None if there is none."""
    found = job.output.read_json(PLAN)
    if found is None:
        return None
    return Plan(decoded(found["schema"]), found["items"])


def encoded(schema: pa.Schema) -> str:
    """A schema as a text for JSON."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def decoded(text: str) -> pa.Schema:
    """The schema of `encoded`."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


# --- what is in the files


@dataclass(frozen=True)
class Contents:
    """Columns and pieces of a file: spans of row groups with their rows, or stretches of text."""

    schema: pa.Schema | None  # None: of JSON, not known yet
    spans: Sequence[tuple[tuple[int, int], int | None]] = (((0, 0), None),)
    stretches: Sequence[Stretch] = ()


def survey(job: Job) -> list[Contents]:
    """Columns and pieces of each file; tasks read the JSON files whole, and large text files.

    Raises:
        UserError: a file cannot be read or lacks a column.
    """
    files = [job.input_of(file) for file in job.files]
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        look = threads.map(lambda file: tried_at(file.uri, lambda: _look(file, job)), files)
        found = list(look)
    for at, stretches in _find_stretches(job, files).items():
        found[at] = replace(found[at], stretches=stretches)
    for at, schema in _json_schemas(files, found).items():
        found[at] = replace(found[at], schema=schema)
    check_named(job.columns, [contents.schema for contents in found])
    return found


def _look(file: InputFile, job: Job) -> Contents:
    if file.format != "parquet":
        check_columns(file, job.reading.columns, hint=HINT)
        is_json = file.format in _JSON
        return Contents(None if is_json else schema_of(file, columns=job.columns))
    schema = schema_of(file, columns=job.columns)
    plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
    if any(plain.count(name) != 1 for name in job.reading.columns):
        check_columns(file, job.reading.columns, hint=HINT)  # which says what the file has
    return Contents(schema, row_group_spans(file, max_rows=job.shard_rows))


def _find_stretches(job: Job, files: Sequence[InputFile]) -> dict[int, list[Stretch]]:
    """The stretches of large text files, by the numbers of the files."""
    least_bytes = job.shard_rows * _BYTES_A_ROW
    items: list[Item] = [
        {"at": at, "file": file, "rows": job.shard_rows}
        for at, file in enumerate(files)
        if file.size_bytes > least_bytes and file.format in TEXT_FORMATS
    ]
    return {found["at"]: found["stretches"] for found in run_tasks(items, _cut_file, cpus=1)}


def _cut_file(item: Item) -> Item:
    return {"at": item["at"], "stretches": text_stretches(item["file"], most_rows=item["rows"])}


def _json_schemas(files: Sequence[InputFile], found: Sequence[Contents]) -> dict[int, pa.Schema]:
    """The columns of JSON files, by the numbers of the files."""
    items: list[Item] = []
    num_bytes = 0
    for at, contents in enumerate(found):
        for stretch in contents.stretches or (None,) if contents.schema is None else ():
            size = files[at].size_bytes if stretch is None else stretch.end - stretch.begin
            num_bytes += size
            if not items or num_bytes > _JSON_BYTES:
                items.append({"parts": []})
                num_bytes = size
            items[-1]["parts"].append((at, files[at], stretch))
    schemas: dict[int, list[tuple[int, pa.Schema]]] = defaultdict(list)
    for result in run_tasks(items, _read_schemas, cpus=1):
        for at, begin, schema in result["schemas"]:
            schemas[at].append((begin, schema))
    in_order = {at: sorted(parts, key=itemgetter(0)) for at, parts in schemas.items()}
    return {at: unified([schema for _, schema in parts]) for at, parts in in_order.items()}


def _read_schemas(item: Item) -> Item:
    return {
        "schemas": [
            (at, stretch.begin if stretch else 0, schema_of(file, columns=None, stretch=stretch))
            for at, file, stretch in item["parts"]
        ]
    }


# --- items of work


def plan_items(job: Job, files: Sequence[Contents]) -> list[Item]:
    """All pieces of the files, in their order, as items of up to `shard_rows` rows."""
    parts = list(_parts(job, files))
    sizes = [_weight(part, job) for part in parts]
    most = min(job.shard_rows, sum(sizes) // _NUM_ITEMS)
    items: list[Item] = []
    size = 0
    for part, of_part in zip(parts, sizes, strict=True):
        if not items or size + of_part > most:
            items.append({"number": len(items), "rows": 0, "parts": []})
            size = 0
        item = items[-1]
        item["parts"].append(part)
        is_known = item["rows"] is not None and part["rows"] is not None
        item["rows"] = item["rows"] + part["rows"] if is_known else None
        size += of_part
    return items


def _weight(part: Item, job: Job) -> int:
    """The work of a part, in rows."""
    rows = part["rows"]
    if rows is None:
        rows = job.files[part["at"]].size_bytes // _BYTES_A_ROW
    return int(rows) + _ROWS_A_FILE


def _parts(job: Job, files: Sequence[Contents]) -> Iterator[Item]:
    """`at` is the number of the file, `name` the output without its suffix.

    `is_stream`: further outputs may follow, of which each has a number.
    """
    stems = output_stems([file.uri for file in job.files], job.patterns, kind=job.kind)
    for at, (stem, contents) in enumerate(zip(stems, files, strict=True)):
        pieces = _pieces(contents)
        columns = columns_to_read(contents.schema, job.columns, job.reading)
        types = None
        if contents.schema is not None and job.input_of(job.files[at]).format in _JSON:
            columns = list(contents.schema.names) if columns is None else columns
            types = encoded(contents.schema)  # with types Arrow can read the lines
        for number, piece in enumerate(pieces):
            name = stem if len(pieces) == 1 else piece_name(stem, number)
            yield {"at": at, "name": name, "columns": columns, "types": types, **piece}


def _pieces(contents: Contents) -> list[Item]:
    """The pieces of a file: what a part of an item says of each."""
    if contents.stretches:
        return [
            {"span": (0, 0), "stretch": asdict(one), "rows": one.num_rows, "is_stream": False}
            for one in contents.stretches
        ]
    return [
        {"span": span, "stretch": None, "rows": num_rows, "is_stream": num_rows is None}
        for span, num_rows in contents.spans
    ]


def piece_name(stem: str, number: int) -> str:
    """The name of one of several outputs of a file, without suffix."""
    return f"{stem}-{number:05d}"


def output_stems(uris: Sequence[str], patterns: Sequence[str], *, kind: str) -> list[str]:
    """The names of the outputs of input files, without number and suffix, which is `kind`.

    Each is the path below the input's folder. A hash of the file's place is added to names that
    would be the same, or that of a folder.
    """
    places = [_split(pattern) for pattern in patterns]
    stems = [_stem(_relative(open_uri(uri)[1], places)) for uri in uris]
    counts = Counter(stems)
    folders = {str(folder) for stem in stems for folder in PurePosixPath(stem).parents}
    unique = []
    for uri, stem in zip(uris, stems, strict=True):
        piece = _PIECE.fullmatch(stem)
        is_alike = counts[stem] > 1 or (piece is not None and piece[1] in counts)
        is_alike |= f"{stem}.{kind}" in folders
        key = hashlib.blake2b(uri.encode(), digest_size=4).hexdigest()
        unique.append(f"{stem}-{key}" if is_alike else stem)
    return unique


def _split(pattern: str) -> str:
    return split_pattern(open_uri(pattern)[1])[0].rstrip("/")


def _relative(path: str, bases: Sequence[str]) -> str:
    """The path below the folder of the first input that holds it; its name for a single file."""
    below = (path.removeprefix(f"{base}/") for base in bases if path.startswith(f"{base}/"))
    return next(below, path.rpartition("/")[2])


def _stem(path: str) -> str:
    """A path without the suffixes of format and compression; no part of it is hidden."""
    if codec_of(path):
        path = path.rpartition(".")[0]
    if file_format(path):
        path = path[: -len(next(end for end in FORMATS if path.lower().endswith(end)))]
    parts = [part.lstrip("._") or "file" for part in PurePosixPath(path).parts]
    return "/".join(parts)
