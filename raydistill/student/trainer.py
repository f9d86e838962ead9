"""One training step: gradients, Adagrad for the network and for the embedding table (torch).

The network's weights are one flat vector. `torch.optim` is not used: it needs one tensor a layer,
and its import takes 1.5 s.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from raydistill.config.student import Target, TrainConfig
from raydistill.student.embedding_kernels import adagrad_rows
from raydistill.student.gradient_sync import GradientSync
from raydistill.student.network import Inputs, Student


def rate_at(config: TrainConfig, *, done_share: float) -> float:
    """The factor of both learning rates after a share `done_share` of the training."""
    if done_share < config.warmup_share:
        return done_share / config.warmup_share
    left = (1 - done_share) / (1 - config.warmup_share)
    if config.schedule == "linear":
        return left
    if config.schedule == "cosine":
        return (1 - math.cos(math.pi * left)) / 2
    return 1.0


def adagrad(weights_P: Tensor, squares_P: Tensor, grads_P: Tensor, *, learning_rate: float) -> None:
    """Adagrad (Duchi et al. 2011) in place; equals torch.optim.Adagrad with its defaults."""
    squares_P.addcmul_(grads_P, grads_P)
    weights_P.addcdiv_(grads_P, squares_P.sqrt().add_(1e-10), value=-learning_rate)


def adagrad_rows_torch(
    table_VD: Tensor, squares_V: Tensor, rows_U: Tensor, grads_UD: Tensor, *, learning_rate: float
) -> None:
    """`embedding_kernels.adagrad_rows` on any device."""
    squares_U = squares_V.index_select(0, rows_U) + grads_UD.square().mean(1)
    squares_V.index_copy_(0, rows_U.long(), squares_U)
    rates_U = learning_rate / (squares_U.sqrt() + 1e-10)
    table_VD.index_add_(0, rows_U, grads_UD * rates_U.unsqueeze(1), alpha=-1)


class Trainer:
    """A student and the state of its optimizer: the sums of squared gradients of Adagrad."""

    def __init__(
        self,
        student: Student,
        config: TrainConfig,
        *,
        gradient_sync: GradientSync | None = None,
        target: Target = "probability",
    ) -> None:
        """`gradient_sync` sums the gradients of several workers; None: there is one worker.

        `target` is the kind of the targets and determines the loss: sigmoid cross-entropy for
        probabilities, half the squared distance for logits.
        """
        self.student, self.config, self.gradient_sync = student, config, gradient_sync
        self.target = target
        self.squares_P = torch.zeros_like(student.weights_P)
        self.squares_V = student.table_VD.new_zeros(len(student.table_VD))
        self._table_rate = config.table_rate(student.spec.preset)
        self._grads_P = torch.empty_like(student.weights_P, dtype=student._low_P.dtype)

    def step(
        self, inputs: Inputs, targets_B: Tensor, *, num_global: int, rate: float = 1.0
    ) -> Tensor:
        """One step on this worker's share of a batch of `num_global` pairs.

        The gradient is that of the mean loss over the pairs of all workers, so a step does not
        depend on the number of workers. `rate` is a factor of both learning rates. Returns the sum
        of the losses of this worker's pairs.
        """
        student, dropout, gradient_sync = self.student, self.student.dropout, self.gradient_sync
        counts = None if gradient_sync is None else gradient_sync.all_gather_counts(inputs.rows_U)
        logits_B, read = student.forward(inputs, dropout=dropout)
        grads_B = self.residuals(logits_B, targets_B) / num_global
        bag_grads = student.backward(grads_B, read, out_P=self._grads_P, dropout=dropout)
        sums = None if gradient_sync is None else gradient_sync.all_reduce_dense(self._grads_P)
        rows_U, grads_UD = inputs.rows_U, student.row_gradients(inputs, bag_grads)
        if gradient_sync and counts and sums:  # sent in the type of the matrix products
            low_UD = grads_UD.to(self._grads_P.dtype)
            rows_U, grads_UD = gradient_sync.sum_rows(rows_U, low_UD, counts=counts)
            sums.wait()
        learning_rate = rate * self.config.learning_rate
        grads_P = self._grads_P.float()
        adagrad(student.weights_P, self.squares_P, grads_P, learning_rate=learning_rate)
        student.refresh()
        self._move_rows(rows_U, grads_UD, learning_rate=rate * self._table_rate)
        if self.target == "logit":
            return (logits_B - targets_B).square().sum() / 2
        return functional.binary_cross_entropy_with_logits(logits_B, targets_B, reduction="sum")

    def residuals(self, logits_B: Tensor, targets_B: Tensor) -> Tensor:
        """Derivative of each pair's loss with respect to its logit, shape B."""
        return (logits_B if self.target == "logit" else logits_B.sigmoid()) - targets_B

    def _move_rows(self, rows_U: Tensor, grads_UD: Tensor, *, learning_rate: float) -> None:
        table, squares = self.student.table_VD, self.squares_V
        if not table.is_cpu:
            adagrad_rows_torch(table, squares, rows_U, grads_UD, learning_rate=learning_rate)
            return
        arrays = (table.numpy(), squares.numpy(), rows_U.numpy(), grads_UD.numpy())
        adagrad_rows(*arrays, learning_rate)

    def trained_rows(self) -> NDArray[np.bool_]:
        """The rows of the table that had a gradient, shape V; the others have random values."""
        return np.asarray((self.squares_V > 0).cpu().numpy())

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The state for a checkpoint."""
        return {
            "student": self.student.arrays(),
            "optimizer": {"squares": self.squares_P},
            "table": {"squares": self.squares_V},
        }

    def load(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Replace the state by a result of `state()`."""
        self.student.load(state["student"])
        self.squares_P.copy_(state["optimizer"]["squares"])
        self.squares_V.copy_(state["table"]["squares"])
