"""A sample of the transfer set in memory: pairs and all teachers' logits, read like a run folder.

What a trial trains on. Arrow tables travel between processes once a machine, and are not copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raydistill.errors import UserError
from raydistill.loader import read_logits
from raydistill.run import Run
from raydistill.schema import LOGITS
from raydistill.shards import missing_shards, pair_shards
from raydistill.storage import Folder


class MemoryFolder(Folder):
    """Tables by name, where a loader expects a folder of shards."""

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        """`tables` by the name of the shard."""
        super().__init__("memory://sample")
        self._tables = dict(tables)

    def __reduce__(self) -> tuple[type[MemoryFolder], tuple[dict[str, pa.Table]]]:  # type: ignore[override]
        """The tables are the folder."""
        return MemoryFolder, (self._tables,)

    def read_table(self, name: str, *, columns: list[str] | None = None) -> pa.Table:
        """The table of that name, or some of its columns."""
        table = self._tables[name]
        return table if columns is None else table.select(columns)

    def shards(self) -> list[str]:
        """Names of the tables, sorted."""
        return sorted(self._tables)


@dataclass(frozen=True)
class Sample:
    """Whole shards of the transfer set, and a part of one more."""

    pairs: MemoryFolder
    logits: dict[str, MemoryFolder]  # by teacher
    shards: dict[str, int]  # name and rows

    @property
    def num_pairs(self) -> int:
        """Pairs of all shards together."""
        return sum(self.shards.values())


def draw_sample(run: Run, *, num_pairs: int, seed: int) -> Sample:
    """At most `num_pairs` pairs: shards hold random queries, so some whole ones are a sample.

    Raises:
        UserError: prepare or label is not complete.
    """
    shards = pair_shards(run)
    if not shards:
        raise UserError(f"no pair in {run.pairs}: nothing to train on")
    for teacher in run.config.teachers:
        if missing_shards(run, teacher):
            raise UserError(f"teacher {teacher} has not scored all shards: run `label` first")
    pairs: dict[str, pa.Table] = {}
    logits: dict[str, dict[str, pa.Table]] = {name: {} for name in run.config.teachers}
    left, names = num_pairs, sorted(shards)
    for at in np.random.default_rng([seed, 0]).permutation(len(names)):
        name = names[at]
        whole = run.pairs.read_table(name, columns=["pair_id", "query", "title"])
        pairs[name] = whole.slice(0, left).combine_chunks()
        for teacher, tables in logits.items():
            column = pa.array(read_logits(run.logits(teacher), name, whole)[:left])
            tables[name] = pa.table([pairs[name]["pair_id"], column], schema=LOGITS)
        left -= pairs[name].num_rows
        if left <= 0:
            break
    return Sample(
        pairs=MemoryFolder(pairs),
        logits={name: MemoryFolder(tables) for name, tables in logits.items()},
        shards={name: table.num_rows for name, table in pairs.items()},
    )
