"""Raw files to Arrow tables: Parquet, ORC, Arrow, CSV, TSV and JSON, local or S3.

Text may be compressed, and in any Unicode encoding. A line that cannot be parsed is not an error:
it is listed beside the table, with its row number and the reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

from raydistill.errors import UserError
from raydistill.files.inputs.csv_tables import find_stretches, read_delimited, read_dialect
from raydistill.files.inputs.decoding import Limited, Readable, TextStream
from raydistill.files.inputs.formats import TEXT_FORMATS, open_stream
from raydistill.files.inputs.input_files import InputFile
from raydistill.files.inputs.json_rows import (
    find_line_stretches,
    line_schemas,
    read_json,
    read_json_lines,
)
from raydistill.files.inputs.raw_rows import RawRows, Stretch
from raydistill.files.retry import StoreError, store_error, tried_at
from raydistill.files.uris import open_uri

__all__ = ["RawRows", "check_columns", "column_names", "read_raw", "read_schema", "row_group_spans"]
COLUMNS_HINT = "name the columns in [pairs] and [judged] (query, title, label)"
_BLOCK_BYTES = 8 << 20  # one CSV or JSONL block: about 100,000 pairs
_HEAD_BLOCK_BYTES = 1 << 16
_BATCH_ROWS = 131_072


def column_names(file: InputFile) -> list[str]:
    """The columns of a file that hold texts or numbers, from its head alone.

    A repeated name of a CSV header is listed twice.
    """
    if file.format in ("csv", "tsv"):
        with _open_text(file) as stream:
            dialect = read_dialect(stream, file.csv, is_tsv=file.format == "tsv")
        return [] if dialect is None else [*dialect.names, *sorted(dialect.repeated)]
    if file.format in TEXT_FORMATS:
        first = next(
            _read_text(file, None, (), block_bytes=_HEAD_BLOCK_BYTES, keep_bad=False), None
        )
        return list(first.table.column_names) if first else []
    return [str(field.name) for field in _stored_schema(file) if _holds_text(field.type)]


def read_schema(file: InputFile, *, stretch: Stretch | None = None) -> pa.Schema:
    """Names and types of all columns, as `read_raw` returns them; a JSON file is read completely.

    `stretch`: of this part of a file of JSON lines alone.

    Raises:
        UserError: as `read_raw`.
    """
    with _named_errors(file):
        if file.format in ("csv", "tsv"):
            with _open_text(file) as stream:
                dialect = read_dialect(stream, file.csv, is_tsv=file.format == "tsv")
            names = [] if dialect is None else dialect.names
            return pa.schema([(name, pa.binary()) for name in names])
        if file.format not in TEXT_FORMATS:
            return _stored_schema(file)
    whole = pa.schema([])
    for schema in _json_schemas(file, stretch):
        if schema != whole:
            whole = unified([whole, schema])
    return whole


def _json_schemas(file: InputFile, stretch: Stretch | None) -> Iterator[pa.Schema]:
    if file.format == "json":
        yield from (raw.table.schema for raw in read_raw(file, keep_bad=True))
        return
    with _named_errors(file), _open_text(file) as whole, _seek(file, stretch) as lines:
        yield from line_schemas(lines or whole, block_bytes=_BLOCK_BYTES)


def unified(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """All columns of several schemas; a column of different types becomes a number or a string.

    Raises:
        UserError: a column is a list or a struct in one schema and has another type in the other.
    """
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for column in schema:
            before = types.get(column.name, pa.null())
            types[column.name] = _common_type(column.name, before, column.type)
    return pa.schema(list(types.items()))


def _common_type(name: str, one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_dictionary(one) or pa.types.is_dictionary(other):
        plain = [t.value_type if pa.types.is_dictionary(t) else t for t in (one, other)]
        return _common_type(name, *plain)
    if pa.types.is_nested(one) or pa.types.is_nested(other):
        raise UserError(f"column {name!r} is {one} in one file and {other} in another")
    if all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in (one, other)):
        schemas = [pa.schema([(name, t)]) for t in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    return pa.string()


def _stored_schema(file: InputFile) -> pa.Schema:
    filesystem, path = open_uri(file.uri)
    with filesystem.open_input_file(path) as source:
        if file.format == "parquet":
            return pq.read_schema(source)
        return (
            orc.ORCFile(source).schema if file.format == "orc" else pa.ipc.open_file(source).schema
        )


def _holds_text(kind: pa.DataType) -> bool:
    """Whether values of a type can be cast to text: lists and intervals cannot."""
    try:
        pa.nulls(0, kind).cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
    return not pa.types.is_nested(kind)


def check_columns(file: InputFile, columns: Sequence[str], *, hint: str = COLUMNS_HINT) -> None:
    """Raise UserError, with the file's columns, if a column is missing or its name is repeated."""
    with _named_errors(file):
        found = tried_at(file.uri, lambda: column_names(file))
    for column in columns:
        if found.count(column) > 1:
            raise UserError(f"{file.uri} has two columns named {column!r}; rename one")
        if column not in found:
            raise UserError(_no_column(file, column, found, hint=hint))


def _no_column(file: InputFile, column: str, found: Sequence[str], *, hint: str) -> str:
    """The message for a column that a file lacks, or that holds lists or objects."""
    there = ", ".join(dict.fromkeys(found)) or "none"
    if file.format not in TEXT_FORMATS and column in (names := _stored_schema(file)).names:
        kind = names.field(column).type
        return f"column {column!r} of {file.uri} is {kind}: give one of texts or numbers ({there})"
    way_out, near = hint, difflib.get_close_matches(column, found, n=1)
    if len(found) == 1 and any(mark in found[0] for mark in ",;|\t"):
        way_out, near = 'name its delimiter, csv = { delimiter = "," } of its input', []
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"no column {column!r} in {file.uri}; it has {there}{guess}; {way_out}"


def row_group_spans(file: InputFile, *, max_rows: int) -> list[tuple[tuple[int, int], int | None]]:
    """The spans [first, stop) of row groups of a Parquet file, each with its number of rows.

    A span has at most `max_rows` rows, or is a single row group. Other formats: (0, 0), which is
    all rows, and None.
    """
    if file.format != "parquet":
        return [((0, 0), None)]
    filesystem, path = open_uri(file.uri)
    metadata = tried_at(file.uri, lambda: pq.read_metadata(path, filesystem=filesystem))
    spans: list[tuple[tuple[int, int], int | None]] = []
    first, num_rows = 0, 0
    for at in range(metadata.num_row_groups):
        here = metadata.row_group(at).num_rows
        if at > first and num_rows + here > max_rows:
            spans.append(((first, at), num_rows))
            first, num_rows = at, 0
        num_rows += here
    return [*spans, ((first, metadata.num_row_groups), num_rows)]


def text_stretches(file: InputFile, *, most_rows: int) -> list[Stretch]:
    """Stretches of a CSV, TSV or JSON lines file that can be read alone; the file is read once.

    None of another file, a compressed one, or one that is not UTF-8: it can be read from its start
    alone.

    Raises:
        UserError: as `read_raw`.
    """
    if file.codec is not None or file.format not in ("csv", "tsv", "jsonl"):
        return []
    with _named_errors(file), open_stream(file.uri, codec=None) as raw:
        stream = TextStream(raw, encoding=file.csv.encoding)
        if not stream.is_raw:
            return []
        if file.format == "jsonl":
            found = find_line_stretches(stream, block_bytes=_BLOCK_BYTES, most_rows=most_rows)
        else:
            found = find_stretches(
                stream, file.csv, is_tsv=file.format == "tsv",
                block_bytes=_BLOCK_BYTES, most_rows=most_rows,
            )  # fmt: skip
    skipped = stream.skipped_bytes
    return [replace(one, begin=one.begin + skipped, end=one.end + skipped) for one in found]


def read_raw(
    file: InputFile,
    *,
    columns: Sequence[str] | None = None,
    span: tuple[int, int] = (0, 0),
    stretch: Stretch | None = None,
    max_block_bytes: int = _BLOCK_BYTES,
    texts: Sequence[str] | None = None,
    keep_bad: bool = False,
    types: pa.Schema | None = None,
) -> Iterator[RawRows]:
    """The rows of a file, block by block, in constant memory; `columns` None: all columns.

    `span` is one of `row_group_spans`, `stretch` one of `text_stretches`. `texts`: the columns in
    which a list or an object makes a row bad; None: `columns`. `keep_bad`: the table contains the
    bad rows too. `types`: the file's `read_schema`, with which JSON lines are read faster.

    Raises:
        UserError: the file is not of its format, or is truncated.
        StoreError: the stream broke; the caller may read the file again from the start.
    """
    wanted = list(dict.fromkeys(columns)) if columns is not None else None
    flat = tuple(columns or ()) if texts is None else tuple(texts)
    with _named_errors(file):
        if file.format in TEXT_FORMATS:
            yield from _read_text(
                file, wanted, flat, block_bytes=max_block_bytes, keep_bad=keep_bad,
                stretch=stretch, types=types,
            )  # fmt: skip
        else:
            yield from _read_stored(file, wanted, span)


@contextmanager
def _named_errors(file: InputFile) -> Iterator[None]:
    """Turn errors of the readers into a UserError or StoreError; a UserError names the file."""
    try:
        yield
    except StoreError:
        raise
    except (
        pa.ArrowInvalid,
        pa.ArrowNotImplementedError,
        OSError,
        UnicodeError,
        UserError,
    ) as error:
        if isinstance(error, UserError) and file.uri in str(error):
            raise
        mistake = UserError(f"cannot read {file.uri} as {file.format}: {error}")
        raise (store_error(error) or mistake) from error


@contextmanager
def _open_text(file: InputFile) -> Iterator[TextStream]:
    with open_stream(file.uri, codec=file.codec) as stream:
        yield TextStream(stream, encoding=file.csv.encoding)


def _read_text(
    file: InputFile,
    columns: list[str] | None,
    texts: Sequence[str],
    *,
    block_bytes: int,
    keep_bad: bool,
    stretch: Stretch | None = None,
    types: pa.Schema | None = None,
) -> Iterator[RawRows]:
    with _open_text(file) as stream, _seek(file, stretch) as lines:
        if file.format in ("csv", "tsv"):
            yield from read_delimited(
                stream,
                file.csv,
                is_tsv=file.format == "tsv",
                columns=columns,
                block_bytes=block_bytes,
                keep_bad=keep_bad,
                stretch=stretch,
                lines=lines,
            )
            return
        if file.format == "jsonl":
            yield from read_json_lines(
                lines or stream, columns=columns, texts=texts, block_bytes=block_bytes,
                keep_bad=keep_bad, first_row=stretch.first_row if stretch else 0, types=types,
            )  # fmt: skip
            return
        yield from read_json(
            stream, columns=columns, texts=texts, block_bytes=block_bytes, keep_bad=keep_bad,
            types=types,
        )  # fmt: skip


@contextmanager
def _seek(file: InputFile, stretch: Stretch | None) -> Iterator[Readable | None]:
    """The bytes of a stretch of a file."""
    if stretch is None:
        yield None
        return
    filesystem, path = open_uri(file.uri)
    with filesystem.open_input_file(path) as source:
        source.seek(stretch.begin)
        yield Limited(source, stretch.end - stretch.begin)


def _read_stored(
    file: InputFile, columns: list[str] | None, span: tuple[int, int]
) -> Iterator[RawRows]:
    """The rows of Parquet, ORC and Arrow files: columns are typed, and no row is bad."""
    filesystem, path = open_uri(file.uri)
    readers = {"parquet": _parquet_batches, "orc": _orc_batches, "arrow": _arrow_batches}
    with filesystem.open_input_file(path) as source:
        for start, batch in readers[file.format](source, columns, span):
            rows = np.arange(start, start + batch.num_rows)
            yield RawRows(pa.Table.from_batches([batch]), rows)


_Batches = Iterator[tuple[int, pa.RecordBatch]]  # (number of its first row, batch)


def _parquet_batches(
    source: pa.NativeFile, columns: list[str] | None, span: tuple[int, int]
) -> _Batches:
    file = pq.ParquetFile(source)
    first, stop = span if span[1] else (0, file.num_row_groups)
    start = sum(file.metadata.row_group(at).num_rows for at in range(first))
    if file.metadata.num_rows == 0:
        yield 0, _empty(file.read(columns=columns))
    groups = list(range(first, stop))
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=columns):
        yield start, batch
        start += batch.num_rows


def _orc_batches(
    source: pa.NativeFile, columns: list[str] | None, span: tuple[int, int]
) -> _Batches:
    file, start = orc.ORCFile(source), 0
    if not file.nstripes:
        yield 0, _empty(file.read(columns=columns))
    for stripe in range(file.nstripes):
        batch = file.read_stripe(stripe, columns=columns)
        yield start, batch
        start += batch.num_rows


def _arrow_batches(
    source: pa.NativeFile, columns: list[str] | None, span: tuple[int, int]
) -> _Batches:
    file, start = pa.ipc.open_file(source), 0
    names = file.schema.names if columns is None else columns
    if not file.num_record_batches:
        yield 0, _empty(file.schema.empty_table().select(names))
    for at in range(file.num_record_batches):
        batch = file.get_batch(at).select(names)
        yield start, batch
        start += batch.num_rows


def _empty(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [column.combine_chunks() for column in table], schema=table.schema
    )
