"""Rows of raw files to their scores, and to the rows of the output.

A row whose query or title is null, empty or not UTF-8 has a null score and keeps its place, as does
a line that cannot be parsed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.config.data import Column
from raydistill.errors import UserError
from raydistill.files.inputs.input_files import InputFile
from raydistill.files.inputs.raw_rows import (
    RawRows,
    Stretch,
    decode,
    listed,
    one_chunk,
    read_column,
)
from raydistill.files.inputs.readers import read_schema, unified
from raydistill.serving.scorer import Scorer
from raydistill.serving.text.arrow_text import to_texts
from raydistill.serving.text.cleaning import is_odd, normalise

logger = logging.getLogger("raydistill")
HINT = "name the columns with --query and --title (default: those that the bundle was trained on)"
SCORE = "score"
# A text with one of these characters before any `&` is not empty once it is cleaned: letters and
# digits that no pass of the cleaning removes. Other texts are cleaned to see whether they are empty
# (Hangul, for one, has fillers among its letters, which are removed).
SURE = (
    r"A-Za-z0-9\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{17F}\x{391}-\x{3A9}\x{3B1}-\x{3C9}"
    r"\x{410}-\x{44F}\x{5D0}-\x{5EA}\x{621}-\x{63A}\x{641}-\x{64A}\x{E01}-\x{E30}"
    r"\x{3041}-\x{3096}\x{30A1}-\x{30FA}\x{4E00}-\x{9FFF}\x{AC00}-\x{D7A3}"
)
_WORTH_SORTING = 1.5  # changes of the query from row to row, for each distinct query
_IS_SURE = rf"^[^&]*[{SURE}]"


@dataclass(frozen=True)
class Reading:
    """The columns with the texts; `query` is "" for single texts."""

    query: str
    title: Column

    @property
    def columns(self) -> list[str]:
        """All names, each once."""
        return listed([self.query, self.title])


def schema_of(
    file: InputFile, *, columns: Sequence[str] | None, stretch: Stretch | None = None
) -> pa.Schema:
    """Names and types of the columns of a file as the output has them; a JSON file is read whole.

    `columns`: those to write; None: all. `stretch`: of this part of a file of JSON lines alone.

    Raises:
        UserError: the file cannot be read, or has two columns of one name that is to be written.
    """
    schema = read_schema(file, stretch=stretch)
    for name, count in Counter(schema.names).items():
        if count > 1 and (columns is None or name in columns):
            raise UserError(
                f"{file.uri} has {count} columns named {name!r}; rename one, or name the columns "
                "to write with --columns"
            )
    if file.format in ("csv", "tsv"):  # read as bytes, written as text
        return pa.schema([(name, pa.string()) for name in schema.names])
    return pa.schema([pa.field(column.name, column.type) for column in schema])


def check_named(columns: Sequence[str] | None, schemas: Iterable[pa.Schema]) -> None:
    """Raise UserError if no schema has one of the columns to write."""
    there = dict.fromkeys(name for schema in schemas for name in schema.names)
    for name in columns or ():
        if name != SCORE and name not in there:
            shown = ", ".join(there) or "none"
            raise UserError(f"--columns: no input file has a column {name!r}; there are {shown}")


def columns_to_read(
    own: pa.Schema, columns: Sequence[str] | None, reading: Reading
) -> list[str] | None:
    """The columns of a file that the scores and the output need; None: all."""
    if columns is None:
        return None
    wanted = {*columns, *reading.columns}
    return [name for name in own.names if name in wanted]


def output_schema(
    schemas: Iterable[pa.Schema], *, kind: str, columns: Sequence[str] | None = None
) -> pa.Schema:
    """The columns of all schemas, or only those named, plus the score, which replaces another one.

    `kind`: the format, one of `WRITTEN`; only Parquet has bytes that are not text.

    Raises:
        UserError: a column has lists or structs in one schema and another type in the next.
    """
    found = [
        pa.field(column.name, _type_to_write(column.type, kind))
        for column in unified(list(schemas))
        if column.name != SCORE and (columns is None or column.name in columns)
    ]
    if columns is not None:
        found.sort(key=lambda column: columns.index(column.name))
    return pa.schema([*found, (SCORE, pa.float32())])


def _type_to_write(column: pa.DataType, kind: str) -> pa.DataType:
    is_text = kind != "parquet" and (_is_bytes(column) or pa.types.is_string_view(column))
    return pa.string() if is_text or pa.types.is_null(column) else column


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def scores_of(scorer: Scorer, raw: RawRows, reading: Reading) -> pa.FloatArray:
    """Scores of all rows; null for bad rows."""
    table = raw.table
    for name in reading.columns:
        if name not in table.column_names:  # JSON lines: absent from this block
            table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
    scores = score_table(scorer, table, reading)
    bad = np.isin(raw.rows, [row for row, _ in raw.bad])
    return pc.if_else(pa.array(bad), None, scores) if bad.any() else scores


def score_table(scorer: Scorer, table: pa.Table, reading: Reading) -> pa.FloatArray:
    """Scores of the rows of a table; null for a missing text."""
    titles, is_empty = _texts(read_column(table, reading.title))
    if not reading.query:
        queries = pa.array([""] * len(titles), pa.string())
    else:
        queries, has_no_query = _texts(read_column(table, reading.query))
        is_empty |= has_no_query
    return pa.array(_score(scorer, queries, titles), mask=is_empty)


def _score(scorer: Scorer, queries: pa.Array, titles: pa.Array) -> NDArray[np.float32]:
    """Scores in the order given; pairs of one query one after another, as it is read once.

    Of a log, in which queries repeat here and there, that takes a fifth less time, sorting and all.
    """
    coded = queries.dictionary_encode()
    codes = np.asarray(coded.indices)
    num_changes = np.count_nonzero(codes[1:] != codes[:-1])
    if num_changes < _WORTH_SORTING * len(coded.dictionary):
        return scorer.score_texts(queries, titles)
    order = np.argsort(codes, kind="stable")
    places = pa.array(order)
    scores = np.empty(len(order), np.float32)
    scores[order] = scorer.score_texts(queries.take(places), titles.take(places))
    return scores


def _texts(column: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Texts as they are, "" for a missing one; and whether each is empty once it is cleaned.

    The scorer cleans them itself, as `prepare` does.
    """
    decoded, _ = decode(column)
    texts = pc.fill_null(decoded, "")
    is_empty = np.asarray(pc.equal(pc.binary_length(texts), 0))
    places = np.flatnonzero(is_odd(to_texts(texts)))
    odd = texts.take(pa.array(places))
    is_unsure = ~np.asarray(pc.match_substring_regex(odd, _IS_SURE))
    cleaned = normalise(odd.filter(pa.array(is_unsure)))
    is_empty = is_empty.copy()
    is_empty[places[is_unsure]] = np.asarray(pc.equal(cleaned, ""))
    return texts, is_empty


def with_scores(table: pa.Table, scores: pa.FloatArray, schema: pa.Schema) -> pa.Table:
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
    if not (_is_bytes(column.type) and pa.types.is_string(kind)):
        return column.cast(kind, safe=False)
    texts, is_bad = decode(column.cast(pa.large_binary()))
    if not pc.any(is_bad).as_py():
        return texts
    values = [None if v is None else v.decode("utf-8", "replace") for v in column.to_pylist()]
    return pa.array(values, pa.string())


def warn_bad(raw: RawRows, uri: str) -> None:
    """Log the bad rows of a block."""
    if raw.bad:
        logger.warning(bad_line(uri, len(raw.bad), place_of_bad(raw)))


def place_of_bad(raw: RawRows) -> str:
    """Place and reason of the first bad row of a block."""
    row, reason = raw.bad[0]
    place = f"line {raw.bad_lines[0]:,}" if raw.bad_lines else f"row {row:,}"
    return f"{place}, {reason}"


def bad_line(uri: str, num_bad: int, first: str) -> str:
    """The line of a log on the bad rows of a file."""
    return (
        f"{uri}: {num_bad:,} rows cannot be read, and are written with an empty score; the first: "
        f"{first}"
    )


def sliced(raw: RawRows, start: int, stop: int) -> RawRows:
    """The rows start..stop of a block, counted from its first row."""
    rows = raw.rows[start:stop]
    here = set(rows.tolist()) if raw.bad else set()
    lines = raw.bad_lines or [0] * len(raw.bad)
    bad = [(one, line) for one, line in zip(raw.bad, lines, strict=True) if one[0] in here]
    return RawRows(
        raw.table.slice(start, stop - start),
        rows,
        [one for one, _ in bad],
        None if raw.lines is None else raw.lines[start:stop],
        [line for _, line in bad] if raw.bad_lines else [],
    )
