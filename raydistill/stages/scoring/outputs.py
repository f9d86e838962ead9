"""Tables to a file in one of the output formats: the same tables give the same bytes."""

from __future__ import annotations

import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from raydistill.errors import UserError
from raydistill.files.durable import make_folder, move_whole
from raydistill.files.folder import Folder
from raydistill.stages.scoring.text_rows import json_lines, tsv_lines

WRITTEN = ("parquet", "csv", "tsv", "jsonl")


def check_format(kind: str, schema: pa.Schema) -> None:
    """Raise UserError if a column or its name does not fit in a format."""
    nested = [field.name for field in schema if pa.types.is_nested(field.type)]
    if nested and kind in ("csv", "tsv"):
        raise UserError(
            f"column {nested[0]!r} does not fit in a {kind.upper()}; write .parquet or .jsonl"
        )
    odd = [name for name in schema.names if any(mark in name for mark in "\t\r\n")]
    if odd and kind == "tsv":
        raise UserError(
            f"the column name {odd[0]!r} has a tab or a line break: write .csv, .jsonl or .parquet"
        )


class Writer:
    """Appends tables to an open file; `with` completes it."""

    def __init__(self, sink: Any, kind: str, schema: pa.Schema) -> None:  # noqa: ANN401
        """`kind` is one of WRITTEN; `sink`, a binary file or one of Arrow's, is not closed.

        Raises:
            UserError: as `check_format`.
        """
        check_format(kind, schema)
        self._sink, self._kind = sink, kind
        self._writer: pq.ParquetWriter | pacsv.CSVWriter | None = None
        if kind == "parquet":
            self._writer = pq.ParquetWriter(sink, schema)
        elif kind == "csv":
            self._writer = pacsv.CSVWriter(sink, schema)
        elif kind == "tsv":
            sink.write(("\t".join(schema.names) + "\n").encode())

    def __enter__(self) -> Writer:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the file."""
        if self._writer is not None:
            self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Append the rows of a table.

        Raises:
            UserError: a text does not fit in the format.
        """
        if self._writer is None:
            self._sink.write(tsv_lines(table) if self._kind == "tsv" else json_lines(table))
        elif self._kind == "parquet":
            self._writer.write_table(table)
        else:
            self._writer.write(table)


class Output:
    """A file of a folder that appears under its name when it is complete."""

    def __init__(self, folder: Folder) -> None:
        """On a disk the bytes go to a temporary file, of an object store into memory."""
        self._folder = folder
        self._temporary: Path | None = None
        if folder.is_local:
            make_folder(Path(folder.uri))
            self._temporary = Path(folder.uri) / f".score.{uuid.uuid4().hex}.tmp"

    def __enter__(self) -> Output:
        """Open `sink`."""
        sink = self._temporary.open("wb") if self._temporary else pa.BufferOutputStream()
        self.sink: Any = sink
        return self

    def commit(self, name: str) -> None:
        """Give the file its name, which may have folders."""
        if self._temporary is None:
            self._folder.write_bytes(name, self.sink.getvalue())
            return
        self.sink.close()
        target = Path(self._folder.uri) / name
        make_folder(target.parent)
        move_whole(self._temporary, target)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Discard what was not committed."""
        self.sink.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
