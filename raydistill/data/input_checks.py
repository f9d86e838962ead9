"""Checks of raw files: their labels before `prepare` writes anything, their rejected rows after."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raydistill.config.data import JudgedConfig
from raydistill.data.grades import LabelRule, LabelTally
from raydistill.data.manifest import RawFile
from raydistill.data.prepare_steps import Dataset
from raydistill.errors import UserError
from raydistill.files.inputs.raw_rows import flat_names, read_column
from raydistill.files.inputs.readers import read_raw

logger = logging.getLogger("raydistill")
_MAX_REJECT_FILES = 64
_MOST_REASONS = 10
_SHOWN_CHARS = 60
_FEW = 5  # up to 5 bad rows are accepted, unless they are more than half of the rows


class UnusableInput(UserError):
    """Too few rows of the files can be used: the files or the settings must be corrected."""


def check_labels(files: Sequence[RawFile], rules: JudgedConfig, *, section: str = "judged") -> None:
    """Read every label of the judged files; `section` of the run file has their rules.

    Raises:
        UserError: a label is outside the scale, or too many are neither numbers nor grades.
    """
    tallies: dict[LabelRule, LabelTally] = {}
    for file in files:
        rule = file.label_rule
        tally = tallies.setdefault(rule, LabelTally(rule))
        columns = flat_names({"label": file.columns["label"]})
        for raw in read_raw(file.input, columns=columns, texts=()):
            tally.add(read_column(raw.table, file.columns["label"]))
    for tally in tallies.values():
        problem = tally.problem(name=section, max_bad_fraction=rules.max_bad_fraction)
        if problem:
            raise UserError(problem)


def check_usable(dataset: Dataset, counts: Counter[str], *, num_kept: int) -> None:
    """Check the row counts of an increment; warn if quotes or escapes are not RFC 4180.

    Raises:
        UnusableInput: too many rows are in quarantine, or the first increment has no clean pair.
    """
    num_rows, num_bad = counts["rows_in"], counts["quarantined"]
    most = dataset.rules.max_bad_fraction
    if counts["mended"]:
        logger.warning(
            "prepare   %s: quotes or escapes of %s rows are not RFC 4180, and were read as they "
            "seem to be meant: csv = { quote, escape, delimiter } of their input settles it",
            dataset.name, f"{counts['mended']:,}",
        )  # fmt: skip
    is_empty = dataset.increment == 0 and not num_kept
    if not is_empty and not are_too_many(num_bad, num_rows, most):
        return
    reasons = commonest(_reasons(dataset))
    if is_empty:
        raise UnusableInput(
            f"no pair is left of the {num_rows:,} rows of {dataset.name}.input: {num_bad:,} are in "
            f"{dataset.quarantine} with the reason, {counts['held_out']:,} are of dev and test "
            f"queries{'; ' + reasons if reasons else ''}"
        )
    raise UnusableInput(
        f"{num_bad:,} of the {num_rows:,} rows of {dataset.name}.input ({num_bad / num_rows:.1%}) "
        f"cannot be used, {dataset.name}.max_bad_fraction allows {most:.1%}; {reasons}; all are in "
        f"{dataset.quarantine}: correct the files or how they are read, or allow more"
    )


def _reasons(dataset: Dataset) -> list[dict[str, object]]:
    folder = dataset.quarantine
    prefix = dataset.part_name(0).rpartition("-")[0]
    names = [name for name in folder.shards() if name.startswith(prefix)]
    return count_reasons(folder.read_table(name) for name in names[:_MAX_REJECT_FILES])


def count_reasons(tables: Iterable[pa.Table]) -> list[dict[str, Any]]:
    """The 10 most frequent reasons with their numbers of rows and one example row each."""
    counts: Counter[str] = Counter()
    examples: dict[str, dict[str, Any]] = {}
    for table in tables:
        for found in table["reason"].value_counts().to_pylist():
            counts[found["values"]] += found["counts"]
            if found["values"] not in examples:
                first = table.filter(pc.equal(table["reason"], found["values"])).slice(0, 1)
                examples[found["values"]] = first.to_pylist()[0]
    most = counts.most_common(_MOST_REASONS)
    return [{**examples[reason], "rows": rows} for reason, rows in most]


def are_too_many(num_bad: int, num_rows: int, max_bad_fraction: float) -> bool:
    """Whether the bad rows exceed `max_bad_fraction`, and are more than 5 or more than half."""
    is_more = num_bad > max_bad_fraction * num_rows
    return is_more and (num_bad > _FEW or 2 * num_bad > num_rows)


def commonest(reasons: list[dict[str, Any]]) -> str:
    """One line: the most frequent reason with its example row; "" without reasons."""
    if not reasons:
        return ""
    first = reasons[0]
    line = first.get("line")
    place = f"row {first['row']:,}" if line is None else f"line {line:,}"
    texts = [f"{name} {_shown(first[name])}" for name in ("query", "title") if first.get(name)]
    shown = f": {', '.join(texts)}" if texts else ""
    return (
        f'the commonest reason, of {first["rows"]:,} rows: "{first["reason"]}", as {place} of '
        f"{first['source']}{shown}"
    )


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…")
