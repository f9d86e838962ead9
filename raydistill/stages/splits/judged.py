"""The judged splits: whether they can be measured on, and the keys of the queries held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydistill.data.pairs import query_keys
from raydistill.errors import UserError
from raydistill.files.schema import SPLITS
from raydistill.runs.run_folder import Run


def check_splits(run: Run) -> None:
    """Raise UserError unless each judged split has relevant pairs and other pairs."""
    for split in [one for one in SPLITS if run.config.source_of(one) == "judged"]:
        at = run.config.judged_rules.relevant_at
        folder = run.judged(split)
        labels = [folder.read_table(name, columns=["label"])["label"] for name in folder.shards()]
        relevant = sum(int(pc.sum(pc.greater_equal(label, at)).as_py() or 0) for label in labels)
        total = sum(len(label) for label in labels)
        if not 0 < relevant < total:
            raise UserError(
                f"the judged {split} split has {total} pairs, {relevant} of them relevant "
                f"(label >= judged.relevant_at = {at}); it needs both kinds: give more judged "
                "pairs, another relevant_at, or other shares in a new run_dir"
            )


def split_keys(run: Run, splits: Sequence[str] = ("dev", "test")) -> NDArray[np.uint64]:
    """Keys of the queries of some splits."""
    column = "query" if run.config.has_query else "title"
    units = run.config.ngrams.unit_names
    keys = [
        query_keys(folder.read_table(name, columns=[column])[column], extra_units=units)
        for folder in map(run.split, splits)
        for name in folder.shards()
    ]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *keys]))
