"""N-gram ids to a logit: the feed-forward network, forward and backward (torch).

The backward pass of five linear layers is written by hand: it builds no autograd graph and puts the
gradients into one flat vector, the form that optimizer and workers use. Tests compare it with
autograd.
Shapes: B pairs, N n-gram ids laid flat, U distinct rows, V rows of the table, G bags a pair,
D embedding, F dense features, X = G * D + F, P weights of the network laid flat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from raydistill.config.student import HIDDEN, StudentConfig
from raydistill.serving.embedding_bag import sum_bags
from raydistill.serving.feature_spec import Features, NgramSpec
from raydistill.student.embedding_kernels import Lookup, look_up, row_gradients

_PREDICT_ROWS = 4_096


@dataclass(frozen=True)
class Inputs:
    """A batch's inputs of the student, on the device."""

    rows_U: Tensor
    slots_N: Tensor
    offsets: Tensor  # B * G + 1
    dense_BF: Tensor


def to_inputs(lookup: Lookup, dense_BF: NDArray[np.float32], *, device: str) -> Inputs:
    """A batch as tensors on the device."""
    parts = (lookup.rows_U, lookup.slots_N, lookup.offsets, dense_BF)
    return Inputs(*(torch.from_numpy(part).to(device, non_blocking=True) for part in parts))


class Student:
    """Bags of n-gram embeddings (sum / sqrt(count)) and dense features, then a ReLU network."""

    def __init__(
        self,
        spec: NgramSpec,
        config: StudentConfig,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Random weights from torch's global generator: seed it first. Weights are float32."""
        self.spec, self.dropout = spec, config.dropout
        dim = config.embedding_dim
        self.table_VD = torch.randn(spec.num_rows, dim).mul_(dim**-0.5).to(device)
        hidden = config.hidden or HIDDEN[spec.preset]
        sizes = [spec.num_bags * dim + spec.num_dense, *hidden, 1]
        self._shapes = [(size_out, size_in) for size_in, size_out in pairwise(sizes)]
        self.weights_P = _random_weights(self._shapes).to(device)
        # Matrix products use a copy in `dtype`, updated after each step.
        self._low_P = self.weights_P if dtype == torch.float32 else self.weights_P.to(dtype)
        self.dense_mean = torch.zeros(spec.num_dense, device=device)
        self.dense_std = torch.ones(spec.num_dense, device=device)

    @property
    def num_bag_columns(self) -> int:
        """G * D: the columns of the network's input that come from the table."""
        return self.spec.num_bags * self.table_VD.shape[1]

    def arrays(self) -> dict[str, Tensor]:
        """The weights under the scorer's names for them; views, not copies."""
        found = {"embedding": self.table_VD}
        for at, (weight, bias) in enumerate(self.layers(self.weights_P)):
            found |= {f"weight_{at}": weight, f"bias_{at}": bias}
        return found | {"dense_mean": self.dense_mean, "dense_std": self.dense_std}

    def load(self, arrays: dict[str, Tensor]) -> None:
        """Copy weights in the form of `arrays`."""
        for name, value in self.arrays().items():
            value.copy_(arrays[name])
        self.refresh()

    def refresh(self) -> None:
        """Update the copy in `dtype` from the weights."""
        if self._low_P is not self.weights_P:
            self._low_P.copy_(self.weights_P)

    def standardise(self, *, mean_F: NDArray[np.float32], std_F: NDArray[np.float32]) -> None:
        """Set the mean and deviation that standardise the dense features."""
        self.dense_mean.copy_(torch.from_numpy(mean_F))
        self.dense_std.copy_(torch.from_numpy(std_F))

    def layers(self, flat_P: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each layer as views of a flat vector."""
        found, at = [], 0
        for size_out, size_in in self._shapes:
            stop = at + size_out * size_in
            weight = flat_P[at:stop].view(size_out, size_in)
            found.append((weight, flat_P[stop : stop + size_out]))
            at = stop + size_out
        return found

    def forward(
        self,
        inputs: Inputs,
        *,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits, shape B, and the input of each layer; `generator` draws the dropout masks."""
        x = self._input(inputs).to(self._low_P.dtype)
        read = []
        *hidden, last = self.layers(self._low_P)
        for weight, bias in hidden:
            read.append(x)
            x = torch.addmm(bias, x, weight.t()).relu_()
            if dropout:
                kept = torch.empty_like(x).bernoulli_(1 - dropout, generator=generator)
                x *= kept.div_(1 - dropout)
        read.append(x)
        return torch.addmm(last[1], x, last[0].t()).squeeze(1).float(), read

    def backward(
        self, grads_B: Tensor, read: list[Tensor], *, out_P: Tensor, dropout: float = 0.0
    ) -> Tensor:
        """Fill `out_P` with the network's gradients; returns those of the bags, shape B, G * D."""
        grad = grads_B.unsqueeze(1).to(self._low_P.dtype)
        first, *later = zip(self.layers(self._low_P), self.layers(out_P), read, strict=True)
        for (weight, _), out, x in reversed(later):
            _fill_layer(grad, x, out)
            # Outputs that ReLU or dropout set to 0 have gradient 0.
            grad = torch.ops.aten.threshold_backward(torch.mm(grad, weight), x, 0)
            if dropout:
                grad = grad.div_(1 - dropout)
        (weight, _), out, x = first
        _fill_layer(grad, x, out)
        return torch.mm(grad, weight[:, : self.num_bag_columns]).float()

    def _input(self, inputs: Inputs) -> Tensor:
        """Bags and standardised dense features side by side, shape B, X."""
        bags, width = self.spec.num_bags, self.num_bag_columns
        rows_UD = self.table_VD.index_select(0, inputs.rows_U)
        x_BX = rows_UD.new_empty(len(inputs.dense_BF), width + self.spec.num_dense)
        if rows_UD.is_cpu:
            offsets, slots = inputs.offsets.numpy(), inputs.slots_N.numpy()
            sum_bags(slots, offsets, rows_UD.numpy(), bags, x_BX.numpy())
        else:
            x_BX[:, :width] = sum_bags_torch(inputs, rows_UD).view(-1, width)
        if self.spec.num_dense:
            x_BX[:, width:] = (inputs.dense_BF - self.dense_mean) / self.dense_std
        return x_BX

    def row_gradients(self, inputs: Inputs, grads_BX: Tensor) -> Tensor:
        """Gradients of the distinct rows, shape U, D."""
        dim = self.table_VD.shape[1]
        if not grads_BX.is_cpu:
            return row_gradients_torch(inputs, grads_BX.reshape(-1, dim))
        out_UD = grads_BX.new_empty(len(inputs.rows_U), dim)
        slots, offsets = inputs.slots_N.numpy(), inputs.offsets.numpy()
        row_gradients(slots, offsets, grads_BX.numpy(), self.spec.num_bags, out_UD.numpy())
        return out_UD


def _fill_layer(grad: Tensor, x: Tensor, out: tuple[Tensor, Tensor]) -> None:
    """Gradients of a layer's weight and bias, from its output's gradient and its input."""
    torch.mm(grad.t(), x, out=out[0])
    torch.sum(grad, 0, out=out[1])


def _random_weights(shapes: list[tuple[int, int]]) -> Tensor:
    """Uniform in +-1 / sqrt(inputs) for weights and biases, as torch.nn.Linear initialises."""
    parts = []
    for size_out, size_in in shapes:
        bound = 1 / math.sqrt(size_in)
        parts.append(torch.empty(size_out * size_in + size_out).uniform_(-bound, bound))
    return torch.cat(parts)


def sum_bags_torch(inputs: Inputs, rows_UD: Tensor) -> Tensor:
    """Sum / sqrt(count) of each bag, shape B * G, D, on any device."""
    bags = functional.embedding_bag(
        inputs.slots_N, rows_UD, inputs.offsets, mode="sum", include_last_offset=True
    )
    counts = inputs.offsets.diff().clamp(min=1)
    return bags * counts.to(bags.dtype).rsqrt().unsqueeze(1)


def row_gradients_torch(inputs: Inputs, grads_bag_D: Tensor) -> Tensor:
    """The backward of `sum_bags_torch`: gradients of the distinct rows, shape U, D."""
    counts = inputs.offsets.diff()
    scaled = grads_bag_D * counts.clamp(min=1).to(grads_bag_D.dtype).rsqrt().unsqueeze(1)
    bag_of_N = torch.repeat_interleave(counts)
    out_UD = grads_bag_D.new_zeros(len(inputs.rows_U), grads_bag_D.shape[1])
    return out_UD.index_add_(0, inputs.slots_N, scaled.index_select(0, bag_of_N))


def predict(student: Student, features: Features, *, device: str) -> NDArray[np.float32]:
    """Logits of all pairs of `features`, shape B, without dropout."""
    parts = [np.empty(0, np.float32)]
    for at in range(0, features.num_pairs, _PREDICT_ROWS):
        part = features.take(np.arange(at, min(at + _PREDICT_ROWS, features.num_pairs)))
        inputs = to_inputs(look_up(part.ids_N, part.offsets), part.dense_BF, device=device)
        parts.append(student.forward(inputs)[0].cpu().numpy())
    return np.concatenate(parts)
