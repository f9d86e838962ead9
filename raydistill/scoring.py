"""A file of pairs in, the same file with a `score` column out, some rows at a time."""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from raydistill.cleaning import normalise
from raydistill.durable import move_whole
from raydistill.errors import UserError
from raydistill.inputs import COMPRESSIONS, expand_inputs, file_format
from raydistill.pairs import decode, one_chunk
from raydistill.readers import RawRows, check_columns, read_raw
from raydistill.scorer import Scorer

logger = logging.getLogger("raydistill")
_LINES = 1_024


def score_file(
    scorer: Scorer, *, source: str, target: str, query: str, title: str
) -> tuple[int, int]:
    """Score the pairs of `source` into `target`; rows written, and rows without a score.

    A row whose query or title is null, empty or not UTF-8 keeps its place with a null score. A line
    that cannot be parsed is left out and named on the log.
    """
    kind = file_format(target)
    if kind is None or target.endswith(COMPRESSIONS) or "://" in target:
        raise UserError(
            f"cannot write {target!r}; give a local .parquet, .csv, .tsv or .jsonl file"
        )
    files = expand_inputs([source])
    columns = [name for name in (query, title) if name]
    for file in files:
        check_columns(file, columns)
    num_rows = num_null = 0
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    with _writer(Path(target), kind) as write:
        for file in files:
            for raw in read_raw(file):
                _warn_bad(raw, file.uri)
                scores = score_table(scorer, raw.table, query=query, title=title)
                is_bytes = file.format in ("csv", "tsv")
                write(_with_scores(raw.table, scores, is_bytes=is_bytes))
                num_rows += len(scores)
                num_null += scores.null_count
    return num_rows, num_null


def score_table(scorer: Scorer, table: pa.Table, *, query: str, title: str) -> pa.FloatArray:
    """Scores of the rows of a table; null where a text is missing."""
    titles, has_title = _texts(table[title], max_chars=scorer.max_title_chars)
    if not query:
        queries, usable = pa.array([""] * len(titles), pa.string()), has_title
    else:
        queries, has_query = _texts(table[query], max_chars=scorer.max_query_chars)
        usable = pc.and_(has_title, has_query)
    scores = scorer.score_texts(queries, titles)
    return pa.array(scores, mask=~np.asarray(usable))


def score_lines(scorer: Scorer, lines: Iterable[bytes], output: TextIO) -> tuple[int, int]:
    """Lines of query<TAB>title to query<TAB>title<TAB>score; lines written, lines left out.

    A student of single texts takes lines of one text.
    """
    single = bool(scorer.settings.get("single_texts"))
    num_rows = num_bad = 0
    for block in _blocks(lines):
        parts = [line.decode("utf-8", "replace").rstrip("\r\n").split("\t") for line in block]
        good = [part for part in parts if len(part) == (1 if single else 2)]
        num_bad += len(parts) - len(good)
        queries = ["" if single else part[0] for part in good]
        scores = scorer.score_pairs(queries, [part[-1] for part in good])
        for part, score in zip(good, scores, strict=True):
            output.write("\t".join([*part, f"{score:.6f}"]) + "\n")
        output.flush()
        num_rows += len(good)
    return num_rows, num_bad


def _blocks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    block: list[bytes] = []
    for line in lines:
        if line.strip():
            block.append(line)
        if len(block) == _LINES:
            yield block
            block = []
    if block:
        yield block


def _texts(column: pa.ChunkedArray, *, max_chars: int) -> tuple[pa.StringArray, pa.BooleanArray]:
    """Texts as `prepare` would clean them, "" where there is none, and whether there is one."""
    decoded, _ = decode(one_chunk(column))
    texts = pc.utf8_slice_codeunits(normalise(pc.fill_null(decoded, "")), 0, max_chars)
    return texts, pc.not_equal(texts, "")


def _with_scores(table: pa.Table, scores: pa.FloatArray, *, is_bytes: bool) -> pa.Table:
    """The table with its scores; an older `score` goes. CSV comes as bytes and goes as text."""
    names = [name for name in table.column_names if name != "score"]
    columns = {n: decode(one_chunk(table[n]))[0] if is_bytes else table[n] for n in names}
    return pa.table({**columns, "score": scores})


def _warn_bad(raw: RawRows, uri: str) -> None:
    if raw.bad:
        row, reason = raw.bad[0]
        logger.warning("%s: %d lines left out; first: row %d, %s", uri, len(raw.bad), row, reason)


@contextmanager
def _writer(target: Path, kind: str) -> Iterator[_Writer]:
    """A writer of tables to `target`, which appears when it is complete."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    writer = _Writer(temporary, kind)
    try:
        yield writer
        writer.close()
        move_whole(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


class _Writer:
    """Appends tables to a file of one of the known formats, all with the columns of the first."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind
        self._schema: pa.Schema | None = None
        self._write: Callable[[pa.Table], None] | None = None
        self._open: pq.ParquetWriter | pacsv.CSVWriter | TextIO | None = None

    def __call__(self, table: pa.Table) -> None:
        if self._schema is None or self._write is None:
            self._schema, self._write = table.schema, self._start(table.schema)
        try:
            table = table.select(self._schema.names).cast(self._schema)
        except (KeyError, ValueError) as error:  # Arrow's errors are ValueErrors
            raise UserError(f"the columns change within the input: {error}") from error
        self._write(table)

    def _start(self, schema: pa.Schema) -> Callable[[pa.Table], None]:
        """Open the file; what writes a table to it."""
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
    """A value as TSV has it: no quoting, so no tab and no line break."""
    text = "" if value is None else str(value)
    if "\t" in text or "\n" in text or "\r" in text:
        raise UserError(f"{text[:60]!r} has a tab or a line break: write .csv, .jsonl or .parquet")
    return text


def stdin_lines() -> Iterable[bytes]:
    """The lines of standard input, as bytes."""
    return sys.stdin.buffer
