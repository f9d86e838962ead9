"""The files of judged pairs read once more, for what `prepare` does not store: by pair id.

Further columns become slices of the report; a second source of labels is compared with the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.config.data import JudgedConfig
from raydistill.config.run_config import RunConfig
from raydistill.data.clean_rows import read_clean
from raydistill.data.input_checks import check_labels
from raydistill.data.manifest import RawFile, check_files, find_files
from raydistill.data.pairs import pair_ids
from raydistill.files.inputs.raw_rows import decode, one_chunk
from raydistill.serving.text.cleaning import normalise

OTHER_HINT = "name the columns in [judged.other] (query, title, label)"
SLICES_HINT = "name columns of the judged files in evaluate.slices and evaluate.weight"
SOURCE = "source"
_MORE = "more "  # before the name of a further column, which may be called `title`


@dataclass(frozen=True)
class FoundRows:
    """The rows of files that are of wanted pairs, and what was read in all.

    `table`: pair_id, label (where the files' labels are read) and the further columns as texts, in
    the order of the files; `reasons`: of the rows that cannot be used, and how many.
    """

    table: pa.Table
    num_rows: int
    num_usable: int
    reasons: Counter[str]
    example: tuple[str, str] | None  # the texts of a usable row


def judged_files(
    rules: JudgedConfig, *, columns: Sequence[str] = (), hint: str = ""
) -> list[RawFile]:
    """The files of `rules.input`, which must have the further `columns`.

    Raises:
        UserError: an input matches nothing, or a file lacks a column; `hint` says where to name it.
    """
    more = {f"{_MORE}{name}": name for name in columns}
    found = [replace(file, columns={**file.columns, **more}) for file in find_files(rules)]
    check_files(found, hint=hint)
    return found


def other_label_files(rules: JudgedConfig) -> list[RawFile]:
    """The files of `[judged.other]`, checked to have its columns and labels in its scale.

    Raises:
        UserError: an input matches nothing, a file lacks a column, or a label is outside the scale.
    """
    files = judged_files(rules.other_inputs, hint=OTHER_HINT)
    check_labels(files, rules.other_inputs, section="judged.other")
    return files


def further_columns(config: RunConfig) -> list[str]:
    """The columns of `evaluate.slices` and `evaluate.weight`, each once."""
    weight = config.evaluate.weight
    return list(dict.fromkeys([*config.evaluate.slices, *([weight] if weight else [])]))


def check_files_of_report(config: RunConfig) -> None:
    """Check, before anything runs for hours, that the files have what the report is to show.

    Raises:
        UserError: an input of `[judged.other]` is missing, or a file lacks a column.
    """
    rules = config.judged
    if rules is None:
        return
    if rules.other is not None:
        other_label_files(rules)
    kept = [SOURCE] if rules.keeps_source else []
    columns = [name for name in further_columns(config) if name not in kept]
    if columns:
        judged_files(rules, columns=columns, hint=SLICES_HINT)


def find_rows(
    files: Sequence[RawFile],
    rules: JudgedConfig,
    *,
    wanted: NDArray[np.int64],
    columns: Sequence[str] = (),
) -> FoundRows:
    """The rows of the pairs whose ids are `wanted`; texts are cleaned as in `prepare`."""
    wanted, reasons = np.unique(wanted), Counter[str]()
    tables = [_nothing(files, columns)]
    num_rows = num_usable = 0
    example = None
    for file in files:
        for rows in read_clean(file, rules):
            num_rows += rows.num_rows
            num_usable += rows.pairs.num_rows
            reasons.update(rows.rejects["reason"].to_pylist())
            pairs = rows.pairs
            if pairs.num_rows and example is None:
                example = pairs["query"][0].as_py(), pairs["title"][0].as_py()
            raw = rows.raw.table.take(pa.array(rows.kept))
            ids = pair_ids(one_chunk(pairs["query"]), one_chunk(pairs["title"]))
            found = {"pair_id": ids} | ({"label": pairs["label"]} if "label" in pairs.column_names
                                        else {})  # fmt: skip
            found |= {name: _as_texts(raw[name]) for name in columns}
            tables.append(pa.table(found).filter(pa.array(np.isin(ids, wanted))))
    return FoundRows(pa.concat_tables(tables), num_rows, num_usable, reasons, example)


def _nothing(files: Sequence[RawFile], columns: Sequence[str]) -> pa.Table:
    """No row, with the columns that each block has."""
    empty = {"pair_id": pa.array([], pa.int64())}
    if any("label" in file.columns for file in files):
        empty["label"] = pa.array([], pa.float32())
    return pa.table({**empty, **{name: pa.array([], pa.string()) for name in columns}})


def _as_texts(column: pa.ChunkedArray) -> pa.Array:
    """A column of any type as clean texts, "" for a missing value."""
    return normalise(pc.fill_null(decode(one_chunk(column))[0], "")).cast(pa.string())


def first_values(table: pa.Table, name: str, *, ids_B: NDArray[np.int64]) -> list[str | None]:
    """The value of a column for each pair, that of its first row; None without a row."""
    found: dict[int, str] = {}
    for pair, value in zip(table["pair_id"].to_pylist(), table[name].to_pylist(), strict=True):
        found.setdefault(pair, value)
    return [found.get(pair) for pair in ids_B.tolist()]


def mean_labels(table: pa.Table, *, ids_B: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean label of each pair, as `prepare` takes it of equal pairs; NaN without a row."""
    ids, labels = table["pair_id"].to_numpy(), table["label"].to_numpy()
    if not len(ids):
        return np.full(len(ids_B), np.nan, np.float32)
    known, place = np.unique(ids, return_inverse=True)
    means = np.bincount(place, weights=labels) / np.bincount(place)
    at = np.minimum(np.searchsorted(known, ids_B), len(known) - 1)
    return np.where(known[at] == ids_B, means[at], np.nan).astype(np.float32)
