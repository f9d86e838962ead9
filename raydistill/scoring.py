"""A file of pairs in, the same file with a `score` column out, some rows at a time."""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from raydistill.errors import UserError
from raydistill.hashing import utf8_buffers
from raydistill.pairs import decode, normalise, one_chunk
from raydistill.readers import RawRows, check_columns, expand_inputs, file_format, read_raw
from raydistill.scorer import Scorer

logger = logging.getLogger("raydistill")
_LINES = 1_024


def score_file(
    scorer: Scorer, *, source: str, target: str, query: str | None, title: str
) -> tuple[int, int]:
    """Score the pairs of `source` into `target`; rows written, and rows without a score.

    A row whose query or title is null, empty or not UTF-8 keeps its place with a null score. A line
    that cannot be parsed is left out and named on the log.
    """
    kind = file_format(target)
    if kind is None or target.endswith((".gz", ".zst")):
        raise UserError(f"cannot write {target!r}; give a .parquet, .csv, .tsv or .jsonl file")
    files = expand_inputs([source])
    columns = [name for name in (query, title) if name is not None]
    for file in files:
        check_columns(file, columns)
    num_rows = num_null = 0
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    with _writer(Path(target), kind) as write:
        for file in files:
            for raw in read_raw(file):
                _warn_bad(raw, file.uri)
                scores = score_table(scorer, raw.table, query=query, title=title)
                write(_with_scores(raw.table, scores))
                num_rows += len(scores)
                num_null += scores.null_count
    return num_rows, num_null


def score_table(scorer: Scorer, table: pa.Table, *, query: str | None, title: str) -> pa.FloatArray:
    """Scores of the rows of a table; null where a text is missing."""
    titles, has_title = _texts(table[title])
    if query is None:
        queries, usable = pa.array([""] * len(titles), pa.string()), has_title
    else:
        queries, has_query = _texts(table[query])
        usable = pc.and_(has_title, has_query)
    scores = scorer.score_texts(utf8_buffers(queries), utf8_buffers(titles))
    return pa.array(scores, mask=~np.asarray(usable))


def score_lines(scorer: Scorer, lines: Iterable[bytes], output: TextIO) -> tuple[int, int]:
    """Lines of query<TAB>title to query<TAB>title<TAB>score; lines written, lines left out."""
    num_rows = num_bad = 0
    for block in _blocks(lines):
        parts = [line.decode("utf-8", "replace").rstrip("\r\n").split("\t") for line in block]
        good = [part for part in parts if len(part) == 2]
        num_bad += len(parts) - len(good)
        scores = scorer.score_pairs([q for q, _ in good], [t for _, t in good])
        for (query, title), score in zip(good, scores, strict=True):
            output.write(f"{query}\t{title}\t{score:.6f}\n")
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


def _texts(column: pa.ChunkedArray) -> tuple[pa.StringArray, pa.BooleanArray]:
    """Texts as `prepare` would clean them, "" where there is none, and whether there is one."""
    decoded, _ = decode(one_chunk(column))
    texts = normalise(pc.fill_null(decoded, ""))
    return texts, pc.not_equal(texts, "")


def _with_scores(table: pa.Table, scores: pa.FloatArray) -> pa.Table:
    columns = {
        name: decode(one_chunk(table[name]))[0]
        if pa.types.is_binary(table[name].type)
        else table[name]
        for name in table.column_names
        if name != "score"
    }
    return pa.table({**columns, "score": scores})


def _warn_bad(raw: RawRows, uri: str) -> None:
    if raw.bad:
        row, reason = raw.bad[0]
        logger.warning("%s: %d lines left out; first: row %d, %s", uri, len(raw.bad), row, reason)


@contextmanager
def _writer(target: Path, kind: str) -> Iterator[_Writer]:
    """A writer of tables to `target`, which appears when it is complete."""
    temporary = target.with_name(f".{target.name}.tmp")
    writer = _Writer(temporary, kind)
    try:
        yield writer
        writer.close()
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


class _Writer:
    """Appends tables to a file of one of the known formats."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind
        self._open: pq.ParquetWriter | pacsv.CSVWriter | None = None
        self._text = (
            path.open("w", encoding="utf-8", newline="") if kind in ("jsonl", "tsv") else None
        )

    def __call__(self, table: pa.Table) -> None:
        if self._text is not None:
            self._write_text(table, self._text)
            return
        if self._open is None:
            make = pq.ParquetWriter if self.kind == "parquet" else pacsv.CSVWriter
            self._open = make(str(self.path), table.schema)
        (self._open.write_table if self.kind == "parquet" else self._open.write)(table)

    def _write_text(self, table: pa.Table, text: TextIO) -> None:
        if self.kind == "jsonl":
            text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
            return
        # No quoting, as TSV is read: a text that came from a TSV holds no tab.
        rows = csv.writer(
            text, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, escapechar="\\"
        )
        if not text.tell():
            rows.writerow(table.column_names)
        rows.writerows(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))

    def close(self) -> None:
        """Finish the file."""
        if self._open is not None:
            self._open.close()
        if self._text is not None:
            self._text.close()


def stdin_lines() -> Iterable[bytes]:
    """The lines of standard input, as bytes."""
    return sys.stdin.buffer
