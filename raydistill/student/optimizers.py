"""How the weights of the network move: Adagrad or AdamW over one flat vector, and the rate (torch).

The embedding table has its own, row-wise Adagrad (`embedding_kernels.py`). `torch.optim` would
need one tensor a layer, and a second and a half to import.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from raydistill.config.student import TrainConfig


class Adagrad:
    """Duchi et al. 2011; as torch.optim.Adagrad with its defaults."""

    def __init__(self, weights_P: Tensor) -> None:
        """Starts with no gradients seen; changes `weights_P` in place."""
        self.weights_P = weights_P
        self._squares_P = torch.zeros_like(weights_P)

    def step(self, grads_P: Tensor, *, learning_rate: float) -> None:
        """Move the weights; `grads_P` is used up."""
        self._squares_P.addcmul_(grads_P, grads_P)
        roots = self._squares_P.sqrt().add_(1e-10)
        self.weights_P.addcdiv_(grads_P, roots, value=-learning_rate)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return {"squares": self._squares_P}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        self._squares_P.copy_(state["squares"])


class AdamW:
    """Loshchilov and Hutter 2019; as torch.optim.AdamW with its defaults but the decay."""

    def __init__(self, weights_P: Tensor, *, weight_decay: float) -> None:
        """Starts with no gradients seen; changes `weights_P` in place."""
        self.weights_P, self.weight_decay = weights_P, weight_decay
        self._mean_P, self._squares_P = torch.zeros_like(weights_P), torch.zeros_like(weights_P)
        self._num_steps = torch.zeros((), dtype=torch.int64)

    def step(self, grads_P: Tensor, *, learning_rate: float) -> None:
        """Move the weights."""
        self._num_steps += 1
        num = int(self._num_steps)
        self._mean_P.lerp_(grads_P, 0.1)
        self._squares_P.mul_(0.999).addcmul_(grads_P, grads_P, value=0.001)
        roots = self._squares_P.sqrt().div_(math.sqrt(1 - 0.999**num)).add_(1e-8)
        self.weights_P.mul_(1 - learning_rate * self.weight_decay)
        self.weights_P.addcdiv_(self._mean_P, roots, value=-learning_rate / (1 - 0.9**num))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return {"mean": self._mean_P, "squares": self._squares_P, "num_steps": self._num_steps}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        for name, value in self.state().items():
            value.copy_(state[name])


def make_optimizer(config: TrainConfig, weights_P: Tensor) -> Adagrad | AdamW:
    """The optimizer that the settings name."""
    if config.optimizer == "adagrad":
        return Adagrad(weights_P)
    return AdamW(weights_P, weight_decay=config.weight_decay)


def rate_at(config: TrainConfig, *, done_share: float) -> float:
    """What the learning rates are multiplied with when so much of the training is done."""
    if done_share < config.warmup_share:
        return done_share / config.warmup_share
    left = (1 - done_share) / (1 - config.warmup_share)
    if config.schedule == "linear":
        return left
    if config.schedule == "cosine":
        return (1 - math.cos(math.pi * left)) / 2
    return 1.0
