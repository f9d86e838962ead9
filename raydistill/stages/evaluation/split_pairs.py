"""The pairs of a dev or test split as `evaluate` reads them: texts, labels, queries, logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.runs.run_folder import Run
from raydistill.teachers.judged_logits import Judged, read_judged

SPLITS = ("dev", "test")
_COLUMNS = ("pair_id", "query", "title", "weight", "source")


@dataclass(frozen=True)
class SplitPairs:
    """B pairs in shard order: their rows in the shards, and labels, queries and logits."""

    table: pa.Table
    judged: Judged

    @property
    def ids_B(self) -> NDArray[np.int64]:
        """The pair ids."""
        return np.asarray(self.table["pair_id"].to_numpy(), np.int64)

    @property
    def labels_B(self) -> NDArray[np.float32]:
        """Judged labels, or soft labels; NaN: no teacher scores the pair."""
        return self.judged.labels_B

    @property
    def groups_B(self) -> NDArray[np.int64]:
        """The number of each pair's query."""
        return self.judged.groups_B

    def only(self, mask_B: NDArray[np.bool_]) -> SplitPairs:
        """The pairs in `mask_B`."""
        if mask_B.all():
            return self
        judged = self.judged
        some = Judged(judged.logits_BM[mask_B], judged.labels_B[mask_B], judged.groups_B[mask_B])
        return SplitPairs(self.table.filter(pa.array(mask_B)), some)


def read_split(run: Run, split: str) -> SplitPairs:
    """The pairs of the dev or test split.

    Raises:
        UserError: a teacher has not scored a shard.
    """
    return SplitPairs(read_rows(run, split), read_judged(run, split))


def read_rows(run: Run, split: str) -> pa.Table:
    """The rows of a split (train too), without labels, in shard order."""
    folder = run.split(split)
    tables = []
    for shard in folder.shards():
        there = set(folder.open_table(shard).schema_arrow.names)
        tables.append(
            folder.read_table(shard, columns=[name for name in _COLUMNS if name in there])
        )
    if not tables:
        return pa.table({"pair_id": pa.array([], pa.int64()), "query": pa.array([], pa.string()),
                         "title": pa.array([], pa.string()),
                         "weight": pa.array([], pa.float32())})  # fmt: skip
    return pa.concat_tables(tables)
