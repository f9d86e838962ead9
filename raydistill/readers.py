"""Raw files to Arrow tables: Parquet, CSV, TSV and JSONL (gzip and zstd too), local or S3.

A line that cannot be parsed is not an error: it comes out beside the table, with its row number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.inputs import InputFile
from raydistill.retry import store_error, tried_at
from raydistill.storage import open_uri

COLUMNS_HINT = "name the columns in [pairs] and [judged] (query, title, label)"
_BLOCK_BYTES = 8 << 20  # one CSV or JSONL block: about 100,000 pairs


@dataclass(frozen=True)
class RawRows:
    """Some rows of a file: a table, each row's number in the file, and the lines left out."""

    table: pa.Table
    rows: NDArray[np.int64]
    bad: list[tuple[int, str]] = field(default_factory=list)  # row number, reason


def column_names(file: InputFile) -> list[str]:
    """The columns of a file that hold texts or numbers, read from its head alone."""
    filesystem, path = open_uri(file.uri)
    if file.format == "parquet":
        schema = pq.read_schema(path, filesystem=filesystem)
        return [str(field.name) for field in schema if _holds_text(field.type)]
    if file.format == "jsonl":
        first = next(_read(file, None, max_block_bytes=1 << 16), None)
        return list(first.table.column_names) if first else []
    with filesystem.open_input_stream(path, compression="detect") as stream:
        return _header(stream, is_tsv=file.format == "tsv")


def _holds_text(kind: pa.DataType) -> bool:
    """Whether values of a type can be written as text: not lists, not intervals."""
    try:
        pa.nulls(0, kind).cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
    return not pa.types.is_nested(kind)


def check_columns(file: InputFile, columns: Sequence[str], *, hint: str = COLUMNS_HINT) -> None:
    """Raise UserError when a named column is not in the file, with those that are."""
    try:
        found = tried_at(file.uri, lambda: column_names(file))
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file.uri} as {file.format}: {error}") from error
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise UserError(f"{file.uri} has two columns named {twice[0]!r}; rename one")
    for column in columns:
        if column not in found:
            raise UserError(
                f"no column {column!r} in {file.uri}; it has {', '.join(found) or 'none'}; {hint}"
            )


def row_group_spans(file: InputFile, *, max_rows: int) -> list[tuple[int, int]]:
    """A Parquet file cut into spans [first, stop) of row groups; (0, 0), all, for other formats.

    A span has at most `max_rows` rows, or one row group.
    """
    if file.format != "parquet":
        return [(0, 0)]
    filesystem, path = open_uri(file.uri)
    metadata = tried_at(file.uri, lambda: pq.read_metadata(path, filesystem=filesystem))
    spans, first, num_rows = [], 0, 0
    for at in range(metadata.num_row_groups):
        here = metadata.row_group(at).num_rows
        if at > first and num_rows + here > max_rows:
            spans.append((first, at))
            first, num_rows = at, 0
        num_rows += here
    return [*spans, (first, metadata.num_row_groups)]


def read_raw(
    file: InputFile,
    *,
    columns: Sequence[str] | None = None,
    span: tuple[int, int] = (0, 0),
    max_block_bytes: int = _BLOCK_BYTES,
) -> Iterator[RawRows]:
    """The rows of a file, some at a time, in constant memory; all columns unless told.

    `span` is one of `row_group_spans`.

    Raises:
        UserError: the file is not what its name says, or is cut off.
        StoreError: its stream broke; whoever reads it may begin again.
    """
    wanted = list(dict.fromkeys(columns)) if columns is not None else None
    try:
        yield from _read(file, wanted, span=span, max_block_bytes=max_block_bytes)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        mistake = UserError(f"cannot read {file.uri} as {file.format}: {error}")
        raise (store_error(error) or mistake) from error


def _read(
    file: InputFile,
    wanted: list[str] | None,
    *,
    max_block_bytes: int,
    span: tuple[int, int] = (0, 0),
) -> Iterator[RawRows]:
    filesystem, path = open_uri(file.uri)
    if file.format == "parquet":
        with filesystem.open_input_file(path) as source:
            yield from _read_parquet(source, columns=wanted, span=span)
        return
    if file.format == "jsonl":
        with filesystem.open_input_stream(path, compression="detect") as stream:
            yield from _read_jsonl(stream, columns=wanted, block_bytes=max_block_bytes)
        return
    is_tsv = file.format == "tsv"
    with filesystem.open_input_stream(path, compression="detect") as stream:
        names = _header(stream, is_tsv=is_tsv)
    with filesystem.open_input_stream(path, compression="detect") as stream:
        yield from _read_delimited(
            stream, is_tsv=is_tsv, names=names, columns=wanted, block_bytes=max_block_bytes
        )


def _read_parquet(
    source: pa.NativeFile, *, columns: list[str] | None, span: tuple[int, int]
) -> Iterator[RawRows]:
    file = pq.ParquetFile(source)
    if file.metadata.num_rows == 0:
        yield RawRows(file.read(columns=columns), np.empty(0, np.int64))
    first, stop = span if span[1] else (0, file.num_row_groups)
    start = sum(file.metadata.row_group(at).num_rows for at in range(first))
    groups = list(range(first, stop))
    for batch in file.iter_batches(batch_size=131_072, row_groups=groups, columns=columns):
        rows = np.arange(start, start + batch.num_rows)
        start += batch.num_rows
        yield RawRows(pa.Table.from_batches([batch]), rows)


def _read_delimited(
    stream: pa.NativeFile,
    *,
    is_tsv: bool,
    names: list[str],
    columns: list[str] | None,
    block_bytes: int,
) -> Iterator[RawRows]:
    """Every column as bytes: Arrow would guess types from the first block and fail on the next."""
    if not names:
        return
    bad: list[tuple[int, str]] = []

    def reject(row: pacsv.InvalidRow) -> str:
        # The parser counts from 1 and counts the header.
        bad.append((row.number - 2, f"{row.actual_columns} fields, not {row.expected_columns}"))
        return "skip"

    convert = pacsv.ConvertOptions(
        include_columns=columns or names,
        column_types=dict.fromkeys(names, pa.binary()),
        strings_can_be_null=False,
    )
    read = pacsv.ReadOptions(use_threads=False, block_size=block_bytes)
    start = 0
    with pacsv.open_csv(
        stream,
        read_options=read,
        parse_options=_delimited_format(is_tsv=is_tsv, reject=reject),
        convert_options=convert,
    ) as reader:
        for batch in reader:
            # Arrow parses ahead: some of the bad rows known by now come after this batch.
            ahead = np.arange(start, start + batch.num_rows + len(bad))
            rows = ahead[~np.isin(ahead, [row for row, _ in bad])][: batch.num_rows]
            start = int(rows[-1]) + 1 if len(rows) else start
            passed = [(row, reason) for row, reason in bad if row < start]
            bad[:] = [(row, reason) for row, reason in bad if row >= start]
            yield RawRows(pa.Table.from_batches([batch]), rows, passed)
    if bad or not start:  # bad lines at the end, or no good line at all
        empty = pa.table({name: pa.array([], pa.binary()) for name in columns or names})
        yield RawRows(empty, np.empty(0, np.int64), bad)


def _delimited_format(*, is_tsv: bool, reject: Callable[[Any], str]) -> pacsv.ParseOptions:
    """CSV with quotes as RFC 4180 has them; in TSV a quote is text, as in the GLUE files."""
    return pacsv.ParseOptions(
        delimiter="\t" if is_tsv else ",",
        quote_char=False if is_tsv else '"',
        newlines_in_values=not is_tsv,
        invalid_row_handler=reject,
    )


def _header(stream: pa.NativeFile, *, is_tsv: bool) -> list[str]:
    """Column names from the first line; none where the file is empty."""
    parse = _delimited_format(is_tsv=is_tsv, reject=lambda _: "skip")
    try:
        with pacsv.open_csv(stream, parse_options=parse) as reader:
            return list(reader.schema.names)
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return []
        raise


def _read_jsonl(
    stream: pa.NativeFile, *, columns: list[str] | None, block_bytes: int
) -> Iterator[RawRows]:
    start, rest = 0, b""
    while block := stream.read(block_bytes):
        whole, newline, rest = (rest + block).rpartition(b"\n")
        if newline:
            yield _parse_block(whole + newline, start=start, columns=columns)
            start += whole.count(b"\n") + 1
    if rest:
        yield _parse_block(rest + b"\n", start=start, columns=columns)


def _parse_block(block: bytes, *, start: int, columns: list[str] | None) -> RawRows:
    """Whole lines: by Arrow where all are objects with strings, else line by line."""
    if columns is not None:
        table = _parse_texts(block, columns)
        if table is not None:
            return RawRows(table, np.arange(start, start + table.num_rows))
    return _parse_lines(block[:-1].split(b"\n"), start=start, columns=columns)


def _parse_texts(block: bytes, columns: list[str]) -> pa.Table | None:
    """One row a line with the columns as strings; None where a line is anything else."""
    schema = pa.schema([(name, pa.string()) for name in columns])
    parse = pajson.ParseOptions(
        explicit_schema=schema, newlines_in_values=False, unexpected_field_behavior="ignore"
    )
    read = pajson.ReadOptions(use_threads=False, block_size=len(block) + 1)
    try:
        table = pajson.read_json(pa.BufferReader(block), read_options=read, parse_options=parse)
        table.validate(full=True)
    except pa.ArrowInvalid:  # a number, a list, a line that is no JSON: which, Arrow does not say
        return None
    is_line_by_line = table.num_rows == block.count(b"\n") and b"\n\n" not in block
    return table if is_line_by_line else None


def _parse_lines(lines: list[bytes], *, start: int, columns: list[str] | None) -> RawRows:
    good: list[dict[str, Any]] = []
    rows: list[int] = []
    bad: list[tuple[int, str]] = []
    for row, line in enumerate(lines, start):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8, or too deep
            bad.append((row, f"not JSON: {error}"))
            continue
        if not isinstance(content, dict):
            bad.append((row, "not a JSON object"))
            continue
        if b"\\ud" in line.lower() and not _is_text(content):
            bad.append((row, "not UTF-8: half of a surrogate pair"))
            continue
        good.append(content)
        rows.append(row)
    names = columns if columns is not None else list(dict.fromkeys(k for g in good for k in g))
    arrays = {name: _json_column([g.get(name) for g in good]) for name in names}
    return RawRows(pa.table(arrays), np.asarray(rows, np.int64), bad)


def _is_text(content: dict[str, Any]) -> bool:
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_column(values: list[Any]) -> pa.Array:
    """Numbers stay what they are when all are of a kind; anything mixed becomes its JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int} and all(v is None or -(2**63) <= v < 2**63 for v in values):
        return pa.array(values, pa.int64())
    if kinds == {float}:
        return pa.array(values, pa.float64())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(texts, pa.string())
