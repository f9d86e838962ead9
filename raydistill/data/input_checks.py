"""Whether raw files are what was meant: their labels before anything is made, their rows after."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from raydistill.config.run_config import JudgedConfig
from raydistill.data.grades import LabelRule, LabelTally
from raydistill.data.manifest import RawFile
from raydistill.data.prepare_steps import Dataset
from raydistill.data.rejects import are_too_many, commonest, count_reasons
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
    """Look at what became of the rows of an addition.

    Raises:
        UnusableInput: too many are in quarantine, or no pair is left of the first addition.
    """
    num_rows, num_bad = counts["rows_in"], counts["quarantined"]
    most = dataset.rules.max_bad_fraction
    if counts["mended"]:
        logger.warning(
            "prepare   %s: quotes or escapes of %s rows are not RFC 4180, and were read as they "
            "seem to be meant: csv = { quote, escape, delimiter } of their input settles it",
            dataset.name, f"{counts['mended']:,}",
        )  # fmt: skip
    is_empty = dataset.addition == 0 and not num_kept
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
