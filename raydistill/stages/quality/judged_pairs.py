"""Judged files of any shop to distinct clean pairs with labels, as `prepare` makes them.

Needs no run folder. Reads Parquet, CSV, TSV and JSON, local or S3; all pairs are held in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.config.data import JudgedConfig
from raydistill.data.clean_rows import CleanRows, read_clean
from raydistill.data.input_checks import are_too_many, check_labels, commonest, count_reasons
from raydistill.data.manifest import RawFile, check_files, find_files
from raydistill.data.pairs import collapse, count_conflicts
from raydistill.errors import UserError
from raydistill.files.inputs.raw_rows import decode, one_chunk, read_column
from raydistill.serving.text.cleaning import normalise

logger = logging.getLogger("raydistill")
COLUMNS_HINT = "name the columns with --query, --title, --label and --slice"
_LABELS_HINT = "as options: --scale LOW,HIGH or --grade WORD=LABEL"
_BETWEEN = "\x1f"  # between the values of a row's slice columns: a clean text has no such character


@dataclass(frozen=True)
class JudgedPairs:
    """B distinct judged pairs, sorted by query and title.

    `columns`: the value of each pair in each slice column, "" for none. `counts`: rows as
    `prepare` counts them; `rejects`: the commonest reasons of rows that cannot be used.
    """

    table: pa.Table  # JUDGED
    columns: Mapping[str, pa.StringArray] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    rejects: Sequence[Mapping[str, Any]] = ()

    @property
    def queries(self) -> pa.StringArray:
        """The query of each pair; "" where the task has single texts."""
        return one_chunk(self.table["query"])

    @property
    def titles(self) -> pa.StringArray:
        """The title of each pair."""
        return one_chunk(self.table["title"])

    @property
    def labels_B(self) -> NDArray[np.float32]:
        """The label in 0..1 of each pair."""
        return np.asarray(self.table["label"].to_numpy(), np.float32)

    @property
    def has_query(self) -> bool:
        """Whether the pairs have queries."""
        return bool(self.table.num_rows and self.queries[0].as_py())

    @property
    def groups_B(self) -> NDArray[np.int64]:
        """The number of each pair's query, or of its title for single texts."""
        texts = self.queries if self.has_query else self.titles
        return np.asarray(texts.dictionary_encode().indices.to_numpy(), np.int64)


def read_judged_files(rules: JudgedConfig, *, slices: Sequence[str] = ()) -> JudgedPairs:
    """The distinct pairs of judged files; a pair that occurs more than once has its mean label.

    `slices`: names of further columns, whose values are kept.

    Raises:
        UserError: a file or a column is missing, the labels do not fit the scale, more than
            `max_bad_fraction` of the rows cannot be used, or no row is left.
    """
    more = {f"slice {name}": name for name in slices}
    files = [replace(file, columns={**file.columns, **more}) for file in find_files(rules)]
    check_files(files, hint=COLUMNS_HINT)
    try:
        check_labels(files, rules)
    except UserError as error:
        raise UserError(f"{error}; {_LABELS_HINT}") from error
    good, bad, num_rows = _read(files, rules, slices=slices)
    rejects = count_reasons(bad)
    num_bad = sum(table.num_rows for table in bad)
    _check_usable(num_bad, num_rows, rules=rules, rejects=rejects)
    table = collapse(good, dedupe=True)
    counts = {
        "rows_in": num_rows,
        "rows_out": table.num_rows,
        "duplicates": good.num_rows - table.num_rows,
        "quarantined": num_bad,
        "held_out": 0,
        "conflicting_labels": count_conflicts(good),
    }
    columns = _slice_columns(table, slices)
    plain = table.drop_columns(["source"]) if columns else table
    return JudgedPairs(plain, columns, counts, rejects)


def _read(
    files: Sequence[RawFile], rules: JudgedConfig, *, slices: Sequence[str]
) -> tuple[pa.Table, list[pa.Table], int]:
    """Clean rows of all files, rejected rows with their reasons, and the number of raw rows."""
    good, bad, num_rows, num_mended = list[pa.Table](), list[pa.Table](), 0, 0
    for file in files:
        for block in read_clean(file, rules):
            good.append(_with_slices(block, slices))
            bad.append(block.rejects)
            num_rows += block.num_rows
            num_mended += block.raw.num_mended
    if num_mended:
        logger.warning(
            "quotes or escapes of %s rows are not RFC 4180, and were read as they seem to be "
            "meant: --csv-quote, --csv-escape and --csv-delimiter settle it", f"{num_mended:,}",
        )  # fmt: skip
    if num_rows == 0:
        raise UserError(f"there is no row in {', '.join(file.uri for file in files)}")
    return pa.concat_tables(good), bad, num_rows


def _with_slices(block: CleanRows, names: Sequence[str]) -> pa.Table:
    """Clean pairs; the values of the slice columns are one text in `source`."""
    if not names:
        return block.pairs
    kept = pa.array(block.kept)
    texts = [
        normalise(pc.fill_null(decode(read_column(block.raw.table, name).take(kept))[0], ""))
        for name in names
    ]
    return block.pairs.append_column("source", pc.binary_join_element_wise(*texts, _BETWEEN))


def _slice_columns(table: pa.Table, names: Sequence[str]) -> dict[str, pa.StringArray]:
    if not names:
        return {}
    values = pc.split_pattern(one_chunk(table["source"]), _BETWEEN)
    return {name: pc.list_element(values, at) for at, name in enumerate(names)}


def _check_usable(
    num_bad: int, num_rows: int, *, rules: JudgedConfig, rejects: list[dict[str, Any]]
) -> None:
    reasons, most = commonest(rejects), rules.max_bad_fraction
    if num_bad == num_rows:
        found = f"; {reasons}" if reasons else ""
        raise UserError(f"none of the {num_rows:,} judged rows can be used{found}")
    if are_too_many(num_bad, num_rows, most):
        raise UserError(
            f"{num_bad:,} of the {num_rows:,} judged rows ({num_bad / num_rows:.1%}) cannot be "
            f"used, --max-bad-fraction allows {most:.1%}; {reasons}: correct the files or how "
            "they are read, or allow more"
        )
    if num_bad:
        logger.warning(
            "%s of the %s judged rows cannot be used, and are left out; %s",
            f"{num_bad:,}", f"{num_rows:,}", reasons,
        )  # fmt: skip
