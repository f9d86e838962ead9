"""score in one process: files of pairs to one local file, or lines to lines.

The output has the rows of the input in the same order, and the columns of all input files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.inputs.csv_dialect import CsvOptions
from raydistill.files.inputs.formats import COMPRESSIONS, file_format
from raydistill.files.inputs.input_files import expand_inputs
from raydistill.files.inputs.readers import check_columns, read_raw
from raydistill.files.uris import without_scheme
from raydistill.serving.scorer import Scorer
from raydistill.stages.scoring.outputs import WRITTEN, Output, Writer
from raydistill.stages.scoring.rows import (
    HINT,
    Reading,
    check_named,
    columns_to_read,
    output_schema,
    schema_of,
    score_table,
    scores_of,
    warn_bad,
    with_scores,
)

_LINES = 1_024
_MARK = b"\xef\xbb\xbf"  # UTF-8's byte-order mark


def score_file(
    scorer: Scorer,
    *,
    sources: Sequence[str],
    target: str,
    reading: Reading,
    columns: Sequence[str] | None = None,
    csv: CsvOptions | None = None,
) -> tuple[int, int]:
    """Score the pairs of `sources` into `target`; returns rows written and rows without a score.

    The values of several title columns are joined as by `prepare`. `columns`: those that are
    written beside the score; None: all. `csv`: the delimiters.

    A row whose query or title is null, empty or not UTF-8 stays in the output with a null score. So
    does a line that cannot be parsed, with the fields that could be read.
    """
    kind = file_format(target)
    if kind not in WRITTEN or target.endswith(COMPRESSIONS):
        raise UserError(
            f"cannot write {target!r}; give a local .parquet, .csv, .tsv or .jsonl file, or a "
            "folder (its name ends with /)"
        )
    files = expand_inputs(sources, csv=csv)
    for file in files:
        check_columns(file, reading.columns, hint=HINT)
    schemas = [schema_of(file, columns=columns) for file in files]
    check_named(columns, schemas)
    schema = output_schema(schemas, kind=kind, columns=columns)
    num_rows = num_null = 0
    path = Path(without_scheme(target))
    with Output(Folder(str(path.parent))) as output:
        with Writer(output.sink, kind, schema) as writer:
            for file, own in zip(files, schemas, strict=True):
                wanted = columns_to_read(own, columns, reading)
                if wanted is None and file.format == "jsonl":
                    wanted = list(own.names)  # with names and types Arrow can read the lines
                blocks = read_raw(
                    file, columns=wanted, texts=reading.columns, keep_bad=True, types=own
                )
                for raw in blocks:
                    warn_bad(raw, file.uri)
                    scores = scores_of(scorer, raw, reading)
                    writer.write(with_scores(raw.table, scores, schema))
                    num_rows += len(scores)
                    num_null += scores.null_count
        output.commit(path.name)
    return num_rows, num_null


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
        reading = Reading("query" if num_texts == 2 else "", "title")
        scores = score_table(scorer, table, reading)
        for part, score in zip(fields, scores.to_pylist(), strict=True):
            shown = [field.decode("utf-8", "replace") for field in part]
            shown += [""] * (num_texts - len(shown))
            output.write("\t".join([*shown, "" if score is None else f"{score:.6f}"]) + "\n")
        output.flush()
        num_rows += len(fields)
        num_null += scores.null_count
    return num_rows, num_null
