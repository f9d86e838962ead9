"""Shards to training batches: the plan, targets and n-gram ids; no Ray, no torch.

The plan is a pure function of row counts, seed, epoch and number of parts: each batch is cut into
that many parts, and a worker computes one or several of them. All parts have the same number of
steps; each row is in exactly one batch of an epoch. A window (some pieces of shards, shuffled
together) is the unit of resuming; windows do not depend on the number of parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.data.pairs import features_of
from raydistill.files.folder import Folder
from raydistill.files.pieces import (
    PIECE_ROWS,
    Piece,
    PieceReader,
    groups_by_rows,
    pieces_of,
    read_pieces,
    sample_pieces,
    shard_pieces,
)
from raydistill.files.prefetch import prefetch
from raydistill.serving.feature_spec import Features, NgramSpec, concatenate
from raydistill.serving.lexicon import Lexicon
from raydistill.student.embedding_kernels import Lookup, look_up
from raydistill.teachers.soft_labels import Targets


@dataclass(frozen=True)
class Window:
    """Pieces of shards whose rows are shuffled together."""

    epoch: int
    index: int
    pieces: tuple[Piece, ...]

    @property
    def num_rows(self) -> int:
        """Number of rows of the window's pieces."""
        return sum(piece.num_rows for piece in self.pieces)


@dataclass(frozen=True)
class Batch:
    """One part of the batch of a step, and the number of pairs that all parts have in the step.

    `num_global` includes pairs without a target, which have weight 0: the plan needs only row
    counts.
    """

    lookup: Lookup
    dense_BF: NDArray[np.float32]
    targets_B: NDArray[np.float32]
    num_global: int
    window: Window
    is_last: bool  # the last batch of its window


def plan_windows(
    shards: Mapping[str, int], *, seed: int, epoch: int, window_rows: int
) -> list[Window]:
    """The windows of one epoch: each piece with rows is in exactly one, in random order.

    A window has at most `window_rows` rows, or one larger piece. The number of windows may differ
    between epochs.
    """
    pieces = [piece for piece in pieces_of(shards) if piece.num_rows]
    order = np.random.default_rng([seed, epoch]).permutation(len(pieces))
    groups = groups_by_rows([pieces[at] for at in order], most_rows=window_rows)
    return [Window(epoch, index, tuple(group)) for index, group in enumerate(groups)]


def part_range(num_rows: int, *, part: int, num_parts: int) -> tuple[int, int]:
    """A part's rows start..stop (exclusive) of a window; the sizes differ by at most one."""
    return num_rows * part // num_parts, num_rows * (part + 1) // num_parts


def step_sizes(num_rows: int, *, num_steps: int) -> list[int]:
    """A part's rows in each step of a window; the sizes differ by at most one."""
    edges = [num_rows * step // num_steps for step in range(num_steps + 1)]
    return [stop - start for start, stop in pairwise(edges)]


class Loader:
    """Makes the batches of one part from shards."""

    def __init__(
        self, folder: Folder, targets: Targets, *, spec: NgramSpec, lexicon: Lexicon
    ) -> None:
        """`folder` has the shards of pairs; `targets` defines the student's targets."""
        self.folder, self.targets, self.spec, self.lexicon = folder, targets, spec, lexicon

    def piece(
        self,
        piece: Piece,
        *,
        start: int = 0,
        stop: int | None = None,
        reader: PieceReader | None = None,
    ) -> tuple[Features, NDArray[np.float32]]:
        """Features and targets of a piece, or of its rows start..stop, relative to the piece.

        Raises:
            ValueError: the shard's number of rows differs from the piece's record of it.
        """
        reader = reader or PieceReader()
        pairs = reader.read(self.folder, piece, columns=self.targets.columns)
        targets = self.targets.for_piece(piece, pairs, reader=reader)[start:stop]
        part = pairs.slice(start, None if stop is None else stop - start)
        return features_of(part, spec=self.spec, lexicon=self.lexicon), targets

    def read_all(self, shards: Mapping[str, int]) -> tuple[Features, NDArray[np.float32]]:
        """Features and targets of all rows of some shards, in the given order."""
        pieces = [piece for name, rows in shards.items() for piece in shard_pieces(name, rows)]
        return self._joined([(piece, 0, piece.num_rows) for piece in pieces])

    def _joined(
        self, parts: Sequence[tuple[Piece, int, int]]
    ) -> tuple[Features, NDArray[np.float32]]:
        """Features and targets of rows start..stop of each piece, read one piece at a time."""
        reader, targets = PieceReader(), [np.empty(0, np.float32)]

        def features() -> Iterator[Features]:
            for piece, start, stop in parts:
                found, targets_B = self.piece(piece, start=start, stop=stop, reader=reader)
                targets.append(targets_B)
                yield found

        joined = concatenate(features())
        return joined, np.concatenate(targets)

    def batches(
        self,
        windows: Sequence[Window],
        *,
        part: int,
        num_parts: int,
        batch_rows: int,
        seed: int,
    ) -> Iterator[Batch]:
        """The batches of all windows in order; `batch_rows` counts the pairs of all parts.

        The next window is read while the current one is split into batches.
        """
        shares = prefetch(
            (self._window(window, part=part, num_parts=num_parts) for window in windows),
            depth=1,
        )
        for window, (features, targets) in zip(windows, shares, strict=True):
            rng = np.random.default_rng([seed, window.epoch, window.index, part, num_parts])
            order = rng.permutation(len(targets))
            sizes = part_steps(window.num_rows, num_parts=num_parts, batch_rows=batch_rows)
            at = 0
            for step, size in enumerate(sizes[part]):
                rows = order[at : at + size]
                rows = rows[~np.isnan(targets[rows])]  # pairs without a logit have no target
                at += size
                taken = features.take(rows)
                yield Batch(
                    look_up(taken.ids_N, taken.offsets),
                    taken.dense_BF,
                    targets[rows],
                    num_global=sum(one[step] for one in sizes),
                    window=window,
                    is_last=step + 1 == len(sizes[part]),
                )

    def _window(
        self, window: Window, *, part: int, num_parts: int
    ) -> tuple[Features, NDArray[np.float32]]:
        first, last = part_range(window.num_rows, part=part, num_parts=num_parts)
        parts, at = [], 0
        for piece in window.pieces:
            start, stop = max(first - at, 0), min(last - at, piece.num_rows)
            if start < stop:
                parts.append((piece, start, stop))
            at += piece.num_rows
        if not parts:  # fewer rows than parts: an empty share with the right columns
            parts.append((window.pieces[0], 0, 0))
        return self._joined(parts)


def part_steps(num_rows: int, *, num_parts: int, batch_rows: int) -> list[list[int]]:
    """Rows of each part in each step of a window; all parts have the same number of steps."""
    num_steps = -(-num_rows // batch_rows)
    ranges = [part_range(num_rows, part=part, num_parts=num_parts) for part in range(num_parts)]
    return [step_sizes(stop - start, num_steps=num_steps) for start, stop in ranges]


def scale_features(loader: Loader, shards: Mapping[str, int]) -> dict[str, NDArray[np.float32]]:
    """Mean and deviation of the dense features, from `sample_texts`."""
    sample = sample_texts(loader.folder, shards)
    return dense_scale(features_of(sample, spec=loader.spec, lexicon=loader.lexicon).dense_BF)


def sample_texts(folder: Folder, shards: Mapping[str, int]) -> pa.Table:
    """Query and title of at most 65,536 pairs of many shards.

    Every n-th row of the sample of `sample_pieces`: a feature that few queries have may be constant
    in any one shard, and a shard is sorted by query.
    """
    pieces = sample_pieces(shards)
    step = max(1, -(-sum(piece.num_rows for piece in pieces) // PIECE_ROWS))
    parts, num_before = [], 0
    for table in read_pieces(folder, pieces, columns=["query", "title"]):
        rows = np.arange(-num_before % step, table.num_rows, step)
        parts.append(table if step == 1 else table.take(pa.array(rows)))
        num_before += table.num_rows
    return pa.concat_tables(parts)


def dense_scale(dense_BF: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Mean and standard deviation of each dense feature, for standardisation."""
    dense = dense_BF.astype(np.float64)
    std = dense.std(axis=0)
    return {
        "dense_mean": dense.mean(axis=0).astype(np.float32),
        "dense_std": np.where(std > 1e-6, std, 1.0).astype(np.float32),  # a constant becomes 0
    }
