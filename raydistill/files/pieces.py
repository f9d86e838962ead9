"""Pieces of shards: the most rows that are read, decoded and made into features at once.

A shard is a unit of work and commit, and may have millions of rows; memory goes by the piece. A
piece is a row group of the shard's Parquet file, so that it is read without the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from raydistill.files.folder import Folder

# Of a pair preset `match` makes 0.85 kB (170 dense float32 = 680 bytes, some 34 ids of 4 bytes, 28
# bytes of offsets, target and place), and its texts take 0.1 kB: a piece is 56 MB of features, and
# 5 MB in its file, one range request.
PIECE_ROWS = 65_536
_MOST_OPEN = 64  # files of a reader: a process may have 1,024, often fewer
_SAMPLE_ROWS = 1 << 20  # 1,048,576 pairs are sample enough for counts of words
_SAMPLE_SHARDS = 1 << 14  # looked at for them; of 64 rows each they have as many


@dataclass(frozen=True, order=True)
class Piece:
    """The rows start..stop of a shard of `shard_rows` rows, stop not among them."""

    shard: str
    start: int
    stop: int
    shard_rows: int

    @property
    def num_rows(self) -> int:
        """Rows of the piece."""
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        """Whether the piece is the whole shard."""
        return self.num_rows == self.shard_rows

    def __str__(self) -> str:
        """The shard's name, with the rows where they are not all of them."""
        return self.shard if self.is_whole else f"{self.shard}[{self.start}:{self.stop}]"


def shard_pieces(shard: str, num_rows: int) -> list[Piece]:
    """The pieces of one shard, in order; a shard without rows is one empty piece."""
    starts = range(0, max(num_rows, 1), PIECE_ROWS)
    return [Piece(shard, at, min(at + PIECE_ROWS, num_rows), num_rows) for at in starts]


def pieces_of(shards: Mapping[str, int]) -> list[Piece]:
    """The pieces of all shards, by name of the shard and row."""
    return [piece for shard in sorted(shards) for piece in shard_pieces(shard, shards[shard])]


def groups_by_rows(pieces: Sequence[Piece], *, most_rows: int) -> Iterator[list[Piece]]:
    """The pieces in their order, as many together as have `most_rows` rows; at least one."""
    group: list[Piece] = []
    num_rows = 0
    for piece in pieces:
        if group and num_rows + piece.num_rows > most_rows:
            yield group
            group, num_rows = [], 0
        group.append(piece)
        num_rows += piece.num_rows
    if group:
        yield group


def sample_pieces(shards: Mapping[str, int]) -> list[Piece]:
    """Pieces of at most 1,048,576 rows, from which words are counted; the same for the same shards.

    The first shards hold random queries, and give a piece each; where there are few shards, they
    give several. A large shard is sorted by query: a random piece of it stands for more than its
    first one.
    """
    turns: list[tuple[int, Piece]] = []
    for number, shard in enumerate(sorted(shards)[:_SAMPLE_SHARDS]):
        pieces = shard_pieces(shard, shards[shard])
        order = np.random.default_rng([0, number]).permutation(len(pieces))
        turns += [(turn, pieces[at]) for turn, at in enumerate(order)]
    pieces = [piece for _, piece in sorted(turns) if piece.num_rows]
    return sorted(next(groups_by_rows(pieces, most_rows=_SAMPLE_ROWS), []))


class Rows(Protocol):
    """A table of which parts are read."""

    @property
    def num_rows(self) -> int:
        """Rows in all."""

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows start..stop, stop not among them, or some of their columns."""


class ParquetRows:
    """The rows of an open Parquet file; only the row groups that hold wanted rows are decoded."""

    def __init__(self, file: pq.ParquetFile) -> None:
        """`file` is left open."""
        self._file = file
        metadata = file.metadata
        sizes = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
        self._edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    @property
    def num_rows(self) -> int:
        """Rows of the file."""
        return int(self._edges[-1])

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows start..stop, or fewer where the file ends before."""
        first = int(np.searchsorted(self._edges, start, side="right")) - 1
        last = int(np.searchsorted(self._edges, stop))
        groups = list(range(first, min(last, len(self._edges) - 1)))
        names = None if columns is None else list(columns)
        table = self._file.read_row_groups(groups, columns=names)
        return table.slice(start - int(self._edges[first]), max(0, stop - start))


class TableRows:
    """The rows of a table in memory."""

    def __init__(self, table: pa.Table) -> None:
        """`table` is not copied."""
        self._table = table

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return int(self._table.num_rows)

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows start..stop, or fewer where the table ends before."""
        part = self._table.slice(start, max(0, stop - start))
        return part if columns is None else part.select(list(columns))


class PieceReader:
    """Reads pieces of the shards of a few folders; a shard of several pieces is opened once."""

    def __init__(self) -> None:
        """It keeps files open: make one for a window or a sample, not for a whole run."""
        self._opened: dict[tuple[Folder, str], Rows] = {}

    def open(self, folder: Folder, piece: Piece) -> Rows:
        """The shard of a piece in `folder`; not looked at, how many rows it has."""
        key = folder, piece.shard
        rows = self._opened.get(key) or folder.open_rows(piece.shard, by_range=not piece.is_whole)
        if not piece.is_whole:
            self._opened[key] = rows
            if len(self._opened) > _MOST_OPEN:
                del self._opened[next(iter(self._opened))]
        return rows

    def read(self, folder: Folder, piece: Piece, *, columns: Sequence[str] | None) -> pa.Table:
        """The rows of a piece, or some of their columns.

        Raises:
            ValueError: the shard has another number of rows than the piece says.
        """
        rows = self.open(folder, piece)
        if rows.num_rows != piece.shard_rows:
            raise ValueError(
                f"{folder}/{piece.shard} has {rows.num_rows} rows, {piece.shard_rows} planned"
            )
        return rows.read(piece.start, piece.stop, columns)


def read_pieces(
    folder: Folder, pieces: Sequence[Piece], *, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The rows of one piece after the other."""
    reader = PieceReader()
    return (reader.read(folder, piece, columns=columns) for piece in pieces)
