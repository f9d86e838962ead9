"""Pieces of shards: the most rows that are read, decoded and featurized at once.

A shard is a unit of work and commit, and may have millions of rows; the piece bounds the memory. A
piece is a row group of the shard's Parquet file, so it can be read alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydistill.files.retry import tried

if TYPE_CHECKING:
    from raydistill.files.folder import Folder

# Preset `match` takes 0.85 kB of features per pair (170 dense float32 = 680 bytes, about 34 ids of
# 4 bytes, 28 bytes of offsets, target and position), and 0.1 kB of text. A piece is 56 MB of
# features in memory and 5 MB in its file, one range request.
PIECE_ROWS = 65_536
_MOST_OPEN = 64  # open files per reader; the limit per process is 1,024, often less
_SAMPLE_ROWS = 1 << 20  # 1,048,576 pairs are a large enough sample for word counts
_SAMPLE_SHARDS = 1 << 14  # shards to sample from: 16,384 x 64 rows = 1,048,576 rows


@dataclass(frozen=True, order=True)
class Piece:
    """The rows start..stop, without stop, of a shard of `shard_rows` rows."""

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
        """The name of the shard, followed by [start:stop] unless the piece is the whole shard."""
        return self.shard if self.is_whole else f"{self.shard}[{self.start}:{self.stop}]"


def shard_pieces(shard: str, num_rows: int) -> list[Piece]:
    """The pieces of one shard, in row order; a shard without rows is one empty piece."""
    starts = range(0, max(num_rows, 1), PIECE_ROWS)
    return [Piece(shard, at, min(at + PIECE_ROWS, num_rows), num_rows) for at in starts]


def pieces_of(shards: Mapping[str, int]) -> list[Piece]:
    """The pieces of all shards (name: rows), sorted by shard name and row."""
    return [piece for shard in sorted(shards) for piece in shard_pieces(shard, shards[shard])]


def groups_by_rows(pieces: Sequence[Piece], *, most_rows: int) -> Iterator[list[Piece]]:
    """Groups of consecutive pieces with at most `most_rows` rows, or of one larger piece."""
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
    """A deterministic sample of pieces with at most 1,048,576 rows, for word counts.

    The first shards hold random queries: the sample takes one piece of each, then a second of each,
    up to the limit. A large shard is sorted by query, so the piece is drawn at random: it
    represents the shard better than its first piece.
    """
    turns: list[tuple[int, Piece]] = []
    for number, shard in enumerate(sorted(shards)[:_SAMPLE_SHARDS]):
        pieces = shard_pieces(shard, shards[shard])
        order = np.random.default_rng([0, number]).permutation(len(pieces))
        turns += [(turn, pieces[at]) for turn, at in enumerate(order)]
    pieces = [piece for _, piece in sorted(turns) if piece.num_rows]
    return sorted(next(groups_by_rows(pieces, most_rows=_SAMPLE_ROWS), []))


class Rows(Protocol):
    """A table of which parts can be read."""

    @property
    def num_rows(self) -> int:
        """Rows of the table."""

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows start..stop, without stop; all columns if `columns` is None."""


class ParquetRows:
    """The rows of an open Parquet file; `read` decodes only the row groups that it needs."""

    def __init__(self, file: pq.ParquetFile) -> None:
        """`file` is not closed."""
        self._file = file
        metadata = file.metadata
        sizes = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
        self._edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    @property
    def num_rows(self) -> int:
        """Rows of the file."""
        return int(self._edges[-1])

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """The metadata of the file's Arrow schema."""
        return dict(self._file.schema_arrow.metadata or {})

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows start..stop, fewer at the end of the file."""
        first = int(np.searchsorted(self._edges, start, side="right")) - 1
        last = int(np.searchsorted(self._edges, stop))
        groups = list(range(first, min(last, len(self._edges) - 1)))
        names = None if columns is None else list(columns)
        table = self._file.read_row_groups(groups, columns=names)
        return table.slice(start - int(self._edges[first]), max(0, stop - start))


class RemoteRows:
    """The rows of a file on an object store; each read sends its own requests."""

    def __init__(self, rows: ParquetRows) -> None:
        """`rows` reads by ranges."""
        self._rows = rows

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return self._rows.num_rows

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """As `Rows.read`."""
        return tried(lambda: self._rows.read(start, stop, columns))


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
        """The rows start..stop, fewer at the end of the table."""
        part = self._table.slice(start, max(0, stop - start))
        return part if columns is None else part.select(list(columns))


class PieceReader:
    """Reads pieces of shards in one or more folders; a shard of several pieces is opened once."""

    def __init__(self) -> None:
        """A reader keeps files open: create one per window or sample, not one per run."""
        self._opened: dict[tuple[Folder, str], Rows] = {}

    def open(self, folder: Folder, piece: Piece) -> Rows:
        """The rows of the shard of a piece in `folder`; their number is not checked."""
        key = folder, piece.shard
        rows = self._opened.get(key) or folder.open_rows(piece.shard, by_range=not piece.is_whole)
        if not piece.is_whole:
            self._opened[key] = rows
            if len(self._opened) > _MOST_OPEN:
                del self._opened[next(iter(self._opened))]
        return rows

    def read(self, folder: Folder, piece: Piece, *, columns: Sequence[str] | None) -> pa.Table:
        """The rows of a piece; all columns if `columns` is None.

        Raises:
            ValueError: the shard does not have `piece.shard_rows` rows.
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
    """The rows of each piece, in the order of `pieces`."""
    reader = PieceReader()
    return (reader.read(folder, piece, columns=columns) for piece in pieces)
