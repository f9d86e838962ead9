"""One training step: gradients, Adagrad for the network and for the embedding table (torch).

The network's weights are one flat vector. `torch.optim` is not used: it needs one tensor a layer,
and its import takes 1.5 s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Part:
    """One part of a batch: inputs and targets of its pairs."""

    inputs: Inputs
    targets_B: Tensor


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
        """`gradient_sync` sums the gradients of several parts; None: a batch has one part.

        `target` is the kind of the targets and determines the loss: sigmoid cross-entropy for
        probabilities, half the squared distance for logits.
        """
        self.student, self.config, self.gradient_sync = student, config, gradient_sync
        self.target = target
        self.squares_P = torch.zeros_like(student.weights_P)
        self.squares_V = student.table_VD.new_zeros(len(student.table_VD))
        self._table_rate = config.table_rate(student.spec.preset)
        # A buffer each: a product's last bits may depend on the alignment of its result.
        self._grads = [
            torch.empty_like(student.weights_P, dtype=student._low_P.dtype) for _ in self.parts
        ]
        seed, device = torch.initial_seed(), student.table_VD.device
        self._generators = [torch.Generator(device).manual_seed(seed) for _ in self.parts]

    @property
    def parts(self) -> range:
        """The parts of a batch that this worker computes."""
        return range(1) if self.gradient_sync is None else self.gradient_sync.parts

    @property
    def num_parts(self) -> int:
        """The parts of a batch, of all workers."""
        return 1 if self.gradient_sync is None else self.gradient_sync.num_parts

    def seed_dropout(self, *numbers: int) -> None:
        """Seed the dropout masks: of a part, whichever worker computes it."""
        for part, generator in zip(self.parts, self._generators, strict=True):
            generator.manual_seed(hash((*numbers, part)))

    def step(
        self, inputs: Inputs, targets_B: Tensor, *, num_global: int, rate: float = 1.0
    ) -> Tensor:
        """`step_parts` where this worker has one part."""
        return self.step_parts([Part(inputs, targets_B)], num_global=num_global, rate=rate)

    def step_parts(self, parts: Sequence[Part], *, num_global: int, rate: float = 1.0) -> Tensor:
        """One step on this worker's parts of a batch of `num_global` pairs.

        The gradient is that of the mean loss over the pairs of all parts, so a step does not depend
        on the number of workers. `rate` is a factor of both learning rates. Returns the sum of the
        losses of the first part's pairs.
        """
        sync = self.gradient_sync
        counts = sync and sync.all_gather_counts([part.inputs.rows_U for part in parts])
        passes = [
            self._backward(part, generator, num_global=num_global, out_P=out_P)
            for part, generator, out_P in zip(parts, self._generators, self._grads, strict=True)
        ]
        flat_sum = sync and sync.sum_dense(self._grads)
        rows = [
            (part.inputs.rows_U, self.student.row_gradients(part.inputs, bag_grads))
            for part, (_, bag_grads) in zip(parts, passes, strict=True)
        ]
        ((rows_U, grads_UD), *_), grads_P = rows, self._grads[0]
        if sync and counts and flat_sum:  # sent in the type of the matrix products
            flat_sum.send_sums()
            low = [(ids_U, grads.to(grads_P.dtype)) for ids_U, grads in rows]
            rows_U, grads_UD = sync.sum_rows(low, counts=counts)
            grads_P = flat_sum.wait()
        learning_rate = rate * self.config.learning_rate
        adagrad(
            self.student.weights_P, self.squares_P, grads_P.float(), learning_rate=learning_rate
        )
        self.student.refresh()
        self._move_rows(rows_U, grads_UD, learning_rate=rate * self._table_rate)
        return self._loss(passes[0][0], parts[0].targets_B)

    def _backward(
        self, part: Part, generator: torch.Generator, *, num_global: int, out_P: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits of a part, and the gradients of its bags; fills `out_P` with the network's."""
        student, dropout = self.student, self.student.dropout
        logits_B, read = student.forward(part.inputs, dropout=dropout, generator=generator)
        grads_B = self.residuals(logits_B, part.targets_B) / num_global
        return logits_B, student.backward(grads_B, read, out_P=out_P, dropout=dropout)

    def _loss(self, logits_B: Tensor, targets_B: Tensor) -> Tensor:
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
