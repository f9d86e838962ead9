"""Teacher logits to one soft label: stacking weights, bias, temperature. No Ray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from raydistill.config.student import Target
from raydistill.files.folder import Folder
from raydistill.files.pieces import Piece, PieceReader


def soft_labels(
    logits_BM: NDArray[np.float32],
    *,
    weights_M: ArrayLike,
    bias: float = 0.0,
    temperature: float = 1.0,
) -> NDArray[np.float32]:
    """sigmoid((sum_m w_m z_m + b) / temperature), shape B; NaN where no teacher has a logit.

    Source: temperature rescaling and teacher stacking of BERT2DNN (arXiv 2010.10442): the
    temperature divides the margin, on the target only.
    """
    margins = soft_logits(logits_BM, weights_M=weights_M, bias=bias, temperature=temperature)
    with np.errstate(over="ignore"):  # a margin below -709: exp overflows, and 1 / inf = 0 is right
        return np.asarray(1 / (1 + np.exp(-margins.astype(np.float64))), np.float32)


def soft_logits(
    logits_BM: NDArray[np.float32],
    *,
    weights_M: ArrayLike,
    bias: float = 0.0,
    temperature: float = 1.0,
) -> NDArray[np.float32]:
    """The argument of the sigmoid in `soft_labels`, shape B.

    Where teachers have no logit, the weights of the others are divided by their sum.
    """
    weights = np.asarray(weights_M, np.float64)
    if logits_BM.shape[1] != len(weights):
        raise ValueError(f"{len(weights)} stacking weights for {logits_BM.shape[1]} teachers")
    margins = stacked(logits_BM.astype(np.float64), weights) + bias
    return np.asarray(margins / temperature, np.float32)


def stacked(logits_BM: NDArray[np.float64], weights_M: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weighted sum of the teachers' logits; of those that a pair has, with the same total.

    NaN for a pair that no teacher of a positive weight has a logit for.
    """
    margins_B = logits_BM @ weights_M
    some_B = np.flatnonzero(np.isnan(margins_B))
    if len(some_B):
        logits = logits_BM[some_B][:, weights_M > 0]
        weights, is_there = weights_M[weights_M > 0], np.isfinite(logits)
        total = is_there @ weights
        sums = np.where(is_there, logits, 0) @ weights
        with np.errstate(invalid="ignore", divide="ignore"):
            margins_B[some_B] = sums / total * weights.sum()
    return np.asarray(margins_B)


@dataclass(frozen=True)
class Targets:
    """The source of a pair's target: the teachers' logits, or without teachers its own label."""

    logits: tuple[Folder, ...] = ()
    weights: tuple[float, ...] = ()
    bias: float = 0.0
    temperature: float = 1.0
    target: Target = "probability"  # the soft label, or its logit
    holds_logits: bool = False  # the pairs' labels are soft logits, as in a subset of a curve

    @property
    def columns(self) -> list[str]:
        """The columns to read from a shard of pairs."""
        return ["query", "title", "pair_id" if self.logits else "label"]

    def for_piece(
        self, piece: Piece, pairs: pa.Table, *, reader: PieceReader | None = None
    ) -> NDArray[np.float32]:
        """Targets of `pairs`, the rows of a piece; pair ids are compared, not joined.

        NaN for a pair that no teacher has a logit for.
        """
        if not self.logits:
            labels = np.asarray(pairs["label"].to_numpy())
            if self.holds_logits and self.target == "probability":
                return soft_labels(labels[:, None], weights_M=(1.0,))
            return labels
        columns = [read_logits(folder, piece, pairs, reader=reader) for folder in self.logits]
        make = soft_logits if self.target == "logit" else soft_labels
        return make(
            np.stack(columns, axis=1),
            weights_M=self.weights,
            bias=self.bias,
            temperature=self.temperature,
        )


def scored_pieces(folder: Folder, shard: str) -> list[Piece]:
    """The row groups of a logits file in which a pair has a logit; rows are not read."""
    metadata = folder.open_table(shard).metadata
    pieces, start = [], 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        stop = start + group.num_rows
        if group.column(1).statistics.null_count < group.num_rows:
            pieces.append(Piece(shard, start, stop, metadata.num_rows))
        start = stop
    return pieces


def read_logits(
    folder: Folder, piece: Piece, pairs: pa.Table, *, reader: PieceReader | None = None
) -> NDArray[np.float32]:
    """The logits of a piece, NaN for null; their pair ids must equal those of `pairs`.

    Raises:
        ValueError: the logits are of other pairs.
    """
    rows = (reader or PieceReader()).open(folder, piece)
    table = rows.read(piece.start, piece.stop)
    has_all = rows.num_rows == piece.shard_rows
    if not has_all or not table["pair_id"].equals(pairs["pair_id"]):
        raise ValueError(
            f"{folder}/{piece.shard} has logits of other pairs than the shard of its name; "
            "delete it"
        )
    return np.asarray(table["logit"].to_numpy())
