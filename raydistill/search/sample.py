"""A sample of the transfer set in memory, for trials: pairs and logits, read like a run folder.

The Arrow tables are sent to each machine once; the workers of a machine share them without a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.pieces import Piece, PieceReader, Rows, TableRows, groups_by_rows, pieces_of
from raydistill.files.schema import LOGITS
from raydistill.runs.covered import covered_pairs
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import missing_shards, pair_shards
from raydistill.teachers.soft_labels import read_logits

# Rows read for a sample: 4,194,304. Pairs of many queries train a student better than many pairs of
# a few queries. A query is in one or two pieces: this number of rows has enough queries.
_MOST_ROWS = 1 << 22


class InMemoryFolder(Folder):
    """Tables by name, with the interface of a folder of shards."""

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        """`tables` by shard name."""
        super().__init__("memory://sample")
        self._tables = dict(tables)

    def __reduce__(self) -> tuple[type[InMemoryFolder], tuple[dict[str, pa.Table]]]:  # type: ignore[override]
        """Pickle only the tables."""
        return InMemoryFolder, (self._tables,)

    def read_table(self, name: str, *, columns: list[str] | None = None) -> pa.Table:
        """The table of that name, or some of its columns."""
        table = self._tables[name]
        return table if columns is None else table.select(columns)

    def open_rows(self, name: str, *, by_range: bool) -> Rows:
        """The rows of the table of that name; `by_range` has no effect in memory."""
        return TableRows(self._tables[name])

    def shards(self) -> list[str]:
        """Names of the tables, sorted."""
        return sorted(self._tables)


@dataclass(frozen=True)
class TrialSample:
    """Random rows of some pieces of the transfer set; one table a piece, with the piece's name."""

    pairs: InMemoryFolder
    logits: dict[str, InMemoryFolder]  # by teacher
    shards: dict[str, int]  # name and rows

    @property
    def num_pairs(self) -> int:
        """Number of pairs in all tables."""
        return sum(self.shards.values())


def draw_sample(run: Run, *, counted: Sequence[str], num_pairs: int, seed: int) -> TrialSample:
    """`num_pairs` random pairs, or all if fewer were read: an equal share of each piece.

    Where the teachers that `counted` names all have logits of some pairs only, it is drawn from the
    pairs that one of them scores.
    The pieces are drawn at random, with at most 4,194,304 rows in total.

    Raises:
        UserError: prepare or label is not complete.
    """
    shards = pair_shards(run)
    if not shards:
        raise UserError(f"no pair in {run.pairs}: nothing to train on")
    for teacher in run.config.teacher_names:
        if missing_shards(run, teacher):
            raise UserError(f"teacher {teacher} has not scored all shards: run `label` first")
    covered = covered_pairs(run, counted)
    pairs: dict[str, pa.Table] = {}
    logits: dict[str, dict[str, pa.Table]] = {name: {} for name in covered.logits}
    rng = np.random.default_rng([seed, 0])
    folder, scored = covered.pairs, covered.logits
    reader = PieceReader()
    for piece, num_rows in _shares(covered.shards, num_pairs=num_pairs, rng=rng).items():
        whole = reader.read(folder, piece, columns=["pair_id", "query", "title"])
        rows, name = np.sort(rng.choice(whole.num_rows, num_rows, replace=False)), str(piece)
        pairs[name] = whole.take(pa.array(rows)).combine_chunks()
        for teacher, tables in logits.items():
            column = read_logits(scored[teacher], piece, whole, reader=reader)[rows]
            tables[name] = pa.table([pairs[name]["pair_id"], pa.array(column)], schema=LOGITS)
    return TrialSample(
        pairs=InMemoryFolder(pairs),
        logits={name: InMemoryFolder(tables) for name, tables in logits.items()},
        shards={name: table.num_rows for name, table in pairs.items()},
    )


def _shares(
    shards: Mapping[str, int], *, num_pairs: int, rng: np.random.Generator
) -> dict[Piece, int]:
    """The drawn pieces and their numbers of pairs; the sum is `num_pairs`, or all rows if fewer."""
    pieces = pieces_of(shards)
    order = [pieces[at] for at in rng.permutation(len(pieces))]
    drawn = next(groups_by_rows(order, most_rows=_MOST_ROWS), [])
    ends = np.cumsum([0, *(piece.num_rows for piece in drawn)])
    wanted = min(num_pairs, int(ends[-1]))
    edges = [int(end) * wanted // int(ends[-1]) for end in ends]
    nums = (stop - start for start, stop in pairwise(edges))
    return {piece: num for piece, num in zip(drawn, nums, strict=True) if num}
