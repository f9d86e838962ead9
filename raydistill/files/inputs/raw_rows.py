"""Some rows of a raw file, and what was found in the lines around them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class RawRows:
    """Some rows of a file: a table, each row's number in the file, and the rows that are bad.

    The table has the bad rows too, with what is known of them, where the reader was asked for that.
    """

    table: pa.Table
    rows: NDArray[np.int64]
    bad: list[tuple[int, str]] = field(default_factory=list)  # row number, reason
    lines: NDArray[np.int64] | None = None  # of each row, from 1 as editors count; None: no lines
    bad_lines: list[int] = field(default_factory=list)
    num_breaks: int = 0  # line breaks in quoted values: so many lines more than rows
    num_mended: int = 0  # rows whose quotes or escapes are no RFC 4180, read as they are meant
