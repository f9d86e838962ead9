"""A raw file to clean rows, block by block: its reader, then the rules of its dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.config.data import TextRules
from raydistill.data.manifest import RawFile
from raydistill.data.pairs import clean, unparsed
from raydistill.files.inputs.raw_rows import RawRows, flat_names
from raydistill.files.inputs.readers import read_raw


@dataclass(frozen=True)
class CleanRows:
    """A block of rows of a file: clean pairs, and quarantine rows for all other rows.

    `kept`: the row of each pair in the block's table.
    """

    raw: RawRows
    pairs: pa.Table
    rejects: pa.Table
    kept: NDArray[np.int64]

    @property
    def num_rows(self) -> int:
        """Raw rows of the block, bad ones included."""
        return len(self.raw.rows) + len(self.raw.bad)


def read_clean(
    file: RawFile, rules: TextRules, *, span: tuple[int, int] = (0, 0)
) -> Iterator[CleanRows]:
    """The clean and rejected rows of a raw file, or of one of its `row_group_spans`.

    Raises:
        UserError: as `read_raw`.
    """
    for raw in read_raw(file.input, columns=flat_names(file.columns), span=span):
        found = clean(
            raw.table,
            rows=raw.rows,
            columns=file.columns,
            rules=rules,
            source=file.uri,
            labels=file.label_rule,
            lines=raw.lines,
        )
        rejects = found.rejects
        if raw.bad:
            lost = unparsed(raw.bad, source=file.uri, lines=raw.bad_lines)
            rejects = pa.concat_tables([rejects, lost])
        yield CleanRows(raw, found.pairs, rejects, found.kept)
