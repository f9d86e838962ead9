"""Gradients between workers: of the embedding table only the touched rows travel (torch).

Works on gloo and on NCCL, which has no sparse all-reduce. Every worker adds up the same numbers in
the same order, so that replicas stay the same to the last bit.

Three messages a step. The counts of rows are under way during the forward and backward pass, the
network's gradients while those of the rows are made and joined. Bytes that a worker hands over: 8
for its count, s P for the network (P weights of s bytes: 4 in float32, 2 in bfloat16), and
M * (4 + s D) for M ids and rows of D, M being the most rows that any worker touched. Nothing
follows the rows of the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from raydistill.student.embedding_kernels import add_rows, distinct


@dataclass(frozen=True)
class PendingAllGather:
    """The same tensor of every worker, under way."""

    found: Tensor
    work: dist.Work

    def wait(self) -> Tensor:
        """All of them, the worker as the first dimension."""
        self.work.wait()
        return self.found


class GradientSync:
    """The sum of gradients over the workers of torch's default process group."""

    def __init__(self, *, device: str = "cpu") -> None:
        """The process group must be there; `device` is where the student is."""
        self.num_workers, self._device = dist.get_world_size(), device
        self.num_bytes = 0  # handed over by this worker so far

    def all_gather_counts(self, rows_U: Tensor) -> PendingAllGather:
        """Begin to tell the others how many rows there are: known long before their gradients."""
        return self._gather(torch.tensor([len(rows_U)], device=rows_U.device))

    def all_reduce_dense(self, grads_P: Tensor) -> dist.Work:
        """Begin to put the sum of all workers' flat gradients in the place of this one's.

        It is there after a `wait()` on what comes back.
        """
        self.num_bytes += grads_P.nbytes
        work: dist.Work = dist.all_reduce(grads_P, async_op=True)
        return work

    def sum_rows(
        self, rows_U: Tensor, grads_UD: Tensor, *, counts: PendingAllGather
    ) -> tuple[Tensor, Tensor]:
        """The distinct rows of all workers, and the sums of their gradients in float32.

        `counts` is what `all_gather_counts` gave for the same rows.
        """
        nums = counts.wait().flatten().tolist()
        # The bits of an id are one or two more columns: one message in place of two.
        packed = torch.cat([grads_UD, rows_U.unsqueeze(1).view(grads_UD.dtype)], 1)
        parts = self._gather(functional.pad(packed, (0, 0, 0, max(nums) - len(packed)))).wait()
        joined = torch.cat([part[:num] for part, num in zip(parts, nums, strict=True)])
        dim = grads_UD.shape[1]
        grads = joined[:, :dim].float().contiguous()
        rows = joined[:, dim:].contiguous().view(torch.int32).squeeze(1)
        if not rows.is_cpu:
            all_U, slots = torch.unique(rows, return_inverse=True)
            sums = grads.new_zeros(len(all_U), dim)
            # Not index_add_, which adds in any order on a GPU: replicas would part.
            for part, grad in zip(torch.split(slots, nums), torch.split(grads, nums), strict=True):
                sums[part] += grad
            return all_U, sums
        all_rows, slots_of = distinct(rows.numpy())
        sums = grads.new_zeros(len(all_rows), dim)
        add_rows(slots_of, grads.numpy(), sums.numpy())
        return torch.from_numpy(all_rows), sums

    def broadcast_first(self, values: list[float]) -> list[float]:
        """The values of the first worker, so that all decide alike."""
        found = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.broadcast(found, src=0)
        return [float(value) for value in found]

    def _gather(self, values: Tensor) -> PendingAllGather:
        self.num_bytes += values.nbytes
        found = values.new_empty(self.num_workers, *values.shape)
        return PendingAllGather(found, dist.all_gather(list(found), values, async_op=True))
