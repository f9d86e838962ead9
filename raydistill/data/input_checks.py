"""Whether raw files are what was meant: their labels before anything is made, their rows after."""

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
from raydistill.files.inputs.raw_rows import one_chunk
from raydistill.files.inputs.readers import read_raw

logger = logging.getLogger("raydistill")
_MAX_REJECT_FILES = 64


class UnusableInput(UserError):
    """Files of which so little can be used that other settings must read them."""


def check_labels(files: Sequence[RawFile], rules: JudgedConfig) -> None:
    """Look at every label of the judged files.

    Raises:
        UserError: one is outside the scale, or more than a few are no numbers.
    """
    tallies: dict[LabelRule, LabelTally] = {}
    for file in files:
        rule = file.label_rule
        tally = tallies.setdefault(rule, LabelTally(rule))
        column = file.columns["label"]
        for raw in read_raw(file.input, columns=[column], texts=()):
            tally.add(one_chunk(raw.table[column]))
    for tally in tallies.values():
        problem = tally.problem(name="judged", max_bad_fraction=rules.max_bad_fraction)
        if problem:
            raise UserError(problem)


def check_usable(dataset: Dataset, counts: Counter[str], *, num_kept: int) -> None:
    """Look at what became of the rows of an increment.

    Raises:
        UnusableInput: too many are in quarantine, or no pair is left of the first increment.
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


_MOST_REASONS = 10


_SHOWN_CHARS = 60


_FEW = 5  # so many bad rows stop nothing, unless they are most of a small file


def count_reasons(tables: Iterable[pa.Table]) -> list[dict[str, Any]]:
    """Each reason with its number of rows and one example, most frequent first."""
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
    """Whether so many rows cannot be used that the file must be another than was meant."""
    is_more = num_bad > max_bad_fraction * num_rows
    return is_more and (num_bad > _FEW or 2 * num_bad > num_rows)


def commonest(reasons: list[dict[str, Any]]) -> str:
    """The commonest reason, with the row that is its example; "" where there is none."""
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
