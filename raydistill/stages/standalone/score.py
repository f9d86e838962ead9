"""score: a file of pairs to the same file with a `score` column, read in blocks of rows.

The output has the rows of the input in the same order, and the columns of all input files.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from raydistill.config.data import Column
from raydistill.errors import UserError
from raydistill.files.durable import move_whole
from raydistill.files.inputs.csv_dialect import CsvOptions
from raydistill.files.inputs.formats import COMPRESSIONS, file_format
from raydistill.files.inputs.input_files import InputFile, expand_inputs
from raydistill.files.inputs.raw_rows import decode, listed, one_chunk, read_column
from raydistill.files.inputs.readers import RawRows, check_columns, read_raw, read_schema, unified
from raydistill.serving.scorer import Scorer
from raydistill.serving.text.cleaning import normalise

logger = logging.getLogger("raydistill")
_HINT = "name the columns with --query and --title (default: those that the bundle was trained on)"
_LINES = 1_024
_WRITTEN = ("parquet", "csv", "tsv", "jsonl")
_MARK = b"\xef\xbb\xbf"  # UTF-8's byte-order mark


def score_file(
    scorer: Scorer,
    *,
    source: str,
    target: str,
    query: str,
    title: Column,
    csv: CsvOptions | None = None,
) -> tuple[int, int]:
    """Score the pairs of `source` into `target`; returns rows written and rows without a score.

    The values of several `title` columns are joined as by `prepare`.

    A row whose query or title is null, empty or not UTF-8 stays in the output with a null score. So
    does a line that cannot be parsed, with the fields that could be read. `csv`: the delimiters.
    """
    kind = file_format(target)
    if kind not in _WRITTEN or target.endswith(COMPRESSIONS) or "://" in target:
        raise UserError(
            f"cannot write {target!r}; give a local .parquet, .csv, .tsv or .jsonl file"
        )
    files = expand_inputs([source], csv=csv)
    columns = listed([query, title])
    for file in files:
        check_columns(file, columns, hint=_HINT)
    schema = _output_schema(files)
    num_rows = num_null = 0
    path = Path(target).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _writer(path, kind, schema) as write:
        for file in files:
            for raw in read_raw(file, texts=columns, keep_bad=True):
                _warn_bad(raw, file.uri)
                scores = _scores_of(scorer, raw, query=query, title=title)
                write(_with_scores(raw.table, scores, schema))
                num_rows += len(scores)
                num_null += scores.null_count
    return num_rows, num_null


def _output_schema(files: Iterable[InputFile]) -> pa.Schema:
    """The columns of all files plus `score`, which replaces a column of that name."""
    schemas = []
    for file in files:
        schema = read_schema(file)
        if file.format in ("csv", "tsv"):  # read as bytes, written as text
            schema = pa.schema([(name, pa.string()) for name in schema.names])
        schemas.append(schema)
    columns = [
        pa.field(column.name, pa.string() if pa.types.is_null(column.type) else column.type)
        for column in unified(schemas)
        if column.name != "score"
    ]
    return pa.schema([*columns, ("score", pa.float32())])


def _scores_of(scorer: Scorer, raw: RawRows, *, query: str, title: Column) -> pa.FloatArray:
    """Scores of all rows; null for bad rows."""
    table = raw.table
    for name in listed([query, title]):
        if name not in table.column_names:  # JSON lines: absent from this block
            table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
    scores = score_table(scorer, table, query=query, title=title)
    bad = np.isin(raw.rows, [row for row, _ in raw.bad])
    return pc.if_else(pa.array(bad), None, scores) if bad.any() else scores


def score_table(scorer: Scorer, table: pa.Table, *, query: str, title: Column) -> pa.FloatArray:
    """Scores of the rows of a table; null for a missing text."""
    titles, has_title = _texts(
        read_column(table, title), max_chars=scorer.settings["max_title_chars"]
    )
    if not query:
        queries, usable = pa.array([""] * len(titles), pa.string()), has_title
    else:
        queries, has_query = _texts(
            read_column(table, query), max_chars=scorer.settings["max_query_chars"]
        )
        usable = pc.and_(has_title, has_query)
    scores = scorer.score_texts(queries, titles)
    return pa.array(scores, mask=~np.asarray(usable))


def score_lines(scorer: Scorer, lines: Iterable[bytes], output: TextIO) -> tuple[int, int]:
    """Lines query<TAB>title to query<TAB>title<TAB>score; returns lines, and those without score.

    A student of single texts takes lines of one text. Any other line, or a line without text, is
    written with its fields and an empty score.
    """
    num_texts = 1 if scorer.settings.get("single_texts") else 2
    num_rows = num_null = 0
    rest = iter(lines)
    while block := list(islice(rest, _LINES)):
        fields = [line.rstrip(b"\r\n").split(b"\t") for line in block]
        if num_rows == 0:
            fields[0][0] = fields[0][0].removeprefix(_MARK)
        texts = [part if len(part) == num_texts else [None] * num_texts for part in fields]
        names = ("query", "title")[-num_texts:]
        columns = [pa.array(column, pa.binary()) for column in zip(*texts, strict=True)]
        table = pa.table(columns, names=names)
        query = "query" if num_texts == 2 else ""
        scores = score_table(scorer, table, query=query, title="title")
        for part, score in zip(fields, scores.to_pylist(), strict=True):
            shown = [field.decode("utf-8", "replace") for field in part]
            shown += [""] * (num_texts - len(shown))
            output.write("\t".join([*shown, "" if score is None else f"{score:.6f}"]) + "\n")
        output.flush()
        num_rows += len(fields)
        num_null += scores.null_count
    return num_rows, num_null


def _texts(column: pa.Array, *, max_chars: int) -> tuple[pa.StringArray, pa.BooleanArray]:
    """Texts cleaned as by `prepare`, "" for a missing one; and whether each text exists."""
    decoded, _ = decode(column)
    texts = pc.utf8_slice_codeunits(normalise(pc.fill_null(decoded, "")), 0, max_chars)
    return texts, pc.not_equal(texts, "")


def _with_scores(table: pa.Table, scores: pa.FloatArray, schema: pa.Schema) -> pa.Table:
    """The table with its scores and all columns of the output; absent columns are null."""
    columns = [
        _as_type(one_chunk(table[column.name]), column.type)
        if column.name in table.column_names
        else pa.nulls(table.num_rows, column.type)
        for column in list(schema)[:-1]
    ]
    return pa.table([*columns, scores], schema=schema)


def _as_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values in the output's type; invalid UTF-8 becomes U+FFFD."""
    if column.type == kind:
        return column
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    is_bytes = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    if not (is_bytes and pa.types.is_string(kind)):
        return column.cast(kind, safe=False)
    texts, is_bad = decode(column)
    if not pc.any(is_bad).as_py():
        return texts
    values = [None if v is None else v.decode("utf-8", "replace") for v in column.to_pylist()]
    return pa.array(values, pa.string())


def _warn_bad(raw: RawRows, uri: str) -> None:
    if raw.bad:
        (row, reason), lines = raw.bad[0], raw.bad_lines
        place = f"line {lines[0]:,}" if lines else f"row {row:,}"
        logger.warning(
            "%s: %s rows cannot be read, and are written with an empty score; the first: %s, %s",
            uri, f"{len(raw.bad):,}", place, reason,
        )  # fmt: skip


@contextmanager
def _writer(target: Path, kind: str, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that writes tables to `target`; the file appears when it is complete."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    writer = _Writer(temporary, kind)
    try:
        yield writer.start(schema)
        writer.close()
        move_whole(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


class _Writer:
    """Appends tables to a file in one of the output formats."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind
        self._open: pq.ParquetWriter | pacsv.CSVWriter | TextIO | None = None

    def start(self, schema: pa.Schema) -> Callable[[pa.Table], None]:
        """Open the file; returns the function that writes a table to it."""
        if self.kind == "parquet":
            self._open = parquet = pq.ParquetWriter(str(self.path), schema)
            return parquet.write_table  # type: ignore[no-any-return]
        if self.kind == "csv":
            nested = [field.name for field in schema if pa.types.is_nested(field.type)]
            if nested:
                raise UserError(
                    f"column {nested[0]!r} does not fit in a CSV; write .parquet or .jsonl"
                )
            self._open = csv = pacsv.CSVWriter(str(self.path), schema)
            return csv.write  # type: ignore[no-any-return]
        self._open = text = self.path.open("w", encoding="utf-8", newline="")
        if self.kind == "tsv":
            text.write("\t".join(schema.names) + "\n")
        return lambda table: self._write_text(table, text)

    def _write_text(self, table: pa.Table, text: TextIO) -> None:
        if self.kind == "jsonl":
            rows = (json.dumps(r, ensure_ascii=False, default=str) for r in table.to_pylist())
            text.writelines(row + "\n" for row in rows)
            return
        columns = (table[name].to_pylist() for name in table.column_names)
        text.writelines(
            "\t".join(map(_tsv_field, row)) + "\n" for row in zip(*columns, strict=True)
        )

    def close(self) -> None:
        """Finish the file."""
        if self._open is not None:
            self._open.close()


def _tsv_field(value: object) -> str:
    """A value as a TSV field: TSV has no quoting, so tabs and line breaks raise UserError."""
    text = "" if value is None else str(value)
    if "\t" in text or "\n" in text or "\r" in text:
        raise UserError(f"{text[:60]!r} has a tab or a line break: write .csv, .jsonl or .parquet")
    return text
