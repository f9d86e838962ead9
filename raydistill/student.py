"""N-gram ids to a logit: the feed-forward network, and how its gradients travel (torch).

Shapes: B pairs, N n-gram ids laid flat, G bags a pair, D embedding, F dense features.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from raydistill.config import StudentConfig
from raydistill.ngrams import Features, NgramSpec

# Adagrad makes sparse tensors out of checked parts; torch warns unless one of the two is chosen.
torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Inputs:
    """A batch on the device: what `Student.forward` reads."""

    ids_N: Tensor
    offsets: Tensor  # B * G + 1
    dense_BF: Tensor


def to_inputs(features: Features, *, device: str) -> Inputs:
    """Features as tensors on the device."""
    # EmbeddingBag wants ids and offsets of one type; a batch is far below 2^31 ids.
    parts = (features.ids_N, features.offsets.astype(np.int32), features.dense_BF)
    return Inputs(*(torch.from_numpy(part).to(device, non_blocking=True) for part in parts))


class Student(nn.Module):
    """Bags of n-gram embeddings (sum / sqrt(count)) and dense features, then a ReLU network."""

    def __init__(self, spec: NgramSpec, config: StudentConfig) -> None:
        """Random weights from torch's global generator: seed it first."""
        super().__init__()
        self.spec = spec
        # Sparse gradients: a step touches the rows of its batch, not the table.
        self.embedding = nn.EmbeddingBag(
            spec.num_rows,
            config.embedding_dim,
            mode="sum",
            sparse=True,
            include_last_offset=True,
        )
        nn.init.normal_(self.embedding.weight, std=config.embedding_dim**-0.5)
        sizes = [spec.num_bags * config.embedding_dim + spec.num_dense, *config.hidden]
        layers: list[nn.Module] = []
        for size_in, size_out in pairwise(sizes):
            layers += [nn.Linear(size_in, size_out), nn.ReLU(), nn.Dropout(config.dropout)]
        self.net = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))
        self.dense_mean: Tensor
        self.dense_std: Tensor
        self.register_buffer("dense_mean", torch.zeros(spec.num_dense))
        self.register_buffer("dense_std", torch.ones(spec.num_dense))

    def standardise(self, *, mean_F: NDArray[np.float32], std_F: NDArray[np.float32]) -> None:
        """Take the mean and the deviation by which the dense features are standardised."""
        self.dense_mean.copy_(torch.from_numpy(mean_F))
        self.dense_std.copy_(torch.from_numpy(std_F))

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits, shape B."""
        bags = self.embedding(inputs.ids_N, inputs.offsets)
        counts = inputs.offsets.diff().clamp(min=1)
        bags = bags * counts.to(bags.dtype).rsqrt().unsqueeze(1)
        parts_BX = [bags.view(-1, self.spec.num_bags * bags.shape[1])]
        if self.spec.num_dense:
            parts_BX.append((inputs.dense_BF - self.dense_mean) / self.dense_std)
        logits: Tensor = self.net(torch.cat(parts_BX, dim=1)).squeeze(1)
        return logits


def make_optimizer(student: Student, *, learning_rate: float) -> torch.optim.Optimizer:
    """Adagrad, as in BERT2DNN's published code."""
    return torch.optim.Adagrad(student.parameters(), lr=learning_rate)


def train_step(
    student: Student,
    optimizer: torch.optim.Optimizer,
    inputs: Inputs,
    targets_B: Tensor,
    *,
    num_global: int,
) -> float:
    """One step on this worker's share of a batch of `num_global` pairs; the summed loss here.

    The loss is sigmoid cross-entropy on the soft label, averaged over the pairs of all workers, so
    that a step does not depend on how many workers share it.
    """
    optimizer.zero_grad(set_to_none=True)
    logits_B = student(inputs)
    loss = functional.binary_cross_entropy_with_logits(logits_B, targets_B, reduction="sum")
    (loss / num_global).backward()  # type: ignore[no-untyped-call]
    if dist.is_initialized() and dist.get_world_size() > 1:
        exchange_gradients(student)
    optimizer.step()
    return float(loss.detach())


def exchange_gradients(student: Student) -> None:
    """Sum the gradients of all workers; of the embedding table only the touched rows travel."""
    dense = [p.grad for p in student.net.parameters() if p.grad is not None]
    flat = torch.cat([grad.reshape(-1) for grad in dense])
    dist.all_reduce(flat)
    at = 0
    for grad in dense:
        grad.copy_(flat[at : at + grad.numel()].view_as(grad))
        at += grad.numel()
    weight = student.embedding.weight
    assert weight.grad is not None
    weight.grad = _gather_rows(weight.grad.coalesce())


def _gather_rows(grad: Tensor) -> Tensor:
    """The sum of all workers' sparse gradients; padded all-gather, as NCCL has no sparse reduce."""
    world = dist.get_world_size()
    ids, rows = grad.indices()[0], grad.values()
    sizes = [torch.zeros(1, dtype=torch.int64, device=ids.device) for _ in range(world)]
    dist.all_gather(sizes, torch.tensor([len(ids)], device=ids.device))
    most = int(max(int(size) for size in sizes))
    ids = functional.pad(ids, (0, most - len(ids)))
    rows = functional.pad(rows, (0, 0, 0, most - len(rows)))
    all_ids = [torch.empty_like(ids) for _ in range(world)]
    all_rows = [torch.empty_like(rows) for _ in range(world)]
    dist.all_gather(all_ids, ids)
    dist.all_gather(all_rows, rows)
    kept = [int(size) for size in sizes]
    indices = torch.cat([part[:num] for part, num in zip(all_ids, kept, strict=True)])
    values = torch.cat([part[:num] for part, num in zip(all_rows, kept, strict=True)])
    return torch.sparse_coo_tensor(
        indices.unsqueeze(0), values, grad.shape, check_invariants=False
    ).coalesce()


def predict(
    student: Student, features: Features, *, device: str, batch_rows: int = 4_096
) -> NDArray[np.float32]:
    """Logits of all pairs of `features`, shape B, without dropout; weights stay as they are."""
    was_training = student.training
    student.eval()
    parts = [np.empty(0, np.float32)]
    with torch.inference_mode():
        for at in range(0, features.num_pairs, batch_rows):
            rows = np.arange(at, min(at + batch_rows, features.num_pairs))
            inputs = to_inputs(features.take(rows), device=device)
            parts.append(student(inputs).float().cpu().numpy())
    student.train(was_training)
    return np.concatenate(parts)
