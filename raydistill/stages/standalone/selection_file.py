"""The file that `select` writes: where it may lie, and what is there already."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from raydistill.config.run_config import RunConfig
from raydistill.errors import UserError
from raydistill.files.inputs.input_files import is_inside, may_hold
from raydistill.runs.run_folder import Run

WRITTEN = ("parquet", "csv", "jsonl")
KIND = "selection"


def check_output(run: Run, output: str) -> None:
    """Raise UserError if the output is in the run folder or would be read as an input."""
    if is_inside(output, run.root.uri):
        raise UserError(
            f"--output {output} lies in the run folder {run.root}, which holds only what "
            "the stages write; give a file elsewhere"
        )
    inputs = {f"{section}.input": rules.input for section, rules in run.rules.items()}
    inputs |= {f"teachers.{n}.scores": t.scores or () for n, t in run.config.teachers.items()}
    for field, some in inputs.items():
        for given in some:
            if may_hold(given.path, output):
                raise UserError(
                    f"--output {output} would be an input of {field} {given.path}; give a "
                    "file elsewhere"
                )


def counts_there(
    there: dict[str, Any] | None, settings: dict[str, Any], *, output: str
) -> dict[str, Any]:
    """The counts of an existing selection.

    Raises:
        UserError: the file is not one, or is one of other settings.
    """
    if there is None or there.get("kind") != KIND:
        raise UserError(f"{output} exists and was not written by `select`; give another --output")
    changed = [name for name, value in settings.items() if there["settings"].get(name) != value]
    if changed:
        raise UserError(
            f"{output} holds a selection made with other {', '.join(changed)}; give another "
            "--output for the next round"
        )
    counts: dict[str, Any] = there["counts"]
    return counts


def to_bytes(table: pa.Table, kind: str) -> bytes:
    """The bytes of a file of one of the kinds in `WRITTEN`."""
    buffer = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, buffer, compression="zstd")
    elif kind == "csv":
        pacsv.write_csv(table, buffer)
    else:
        for batch in table.to_batches(max_chunksize=65_536):
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())
            buffer.write("".join(lines).encode())
    return buffer.getvalue()


def columns_hint(config: RunConfig) -> str | None:
    """What the table of a teacher must name to read the file; None: it names the columns by itself.

    The columns of scores are those of `[pairs]` by default.
    """
    pairs = config.pairs
    wanted = {"query": "query"} if pairs.query else {}
    wanted |= {"title": "title"}
    if all(getattr(pairs, name) == column for name, column in wanted.items()):
        return None
    fields = ", ".join(f'{name} = "{column}"' for name, column in wanted.items())
    return f"with {fields} in the table of the teacher of its scores, as [pairs] names others"
