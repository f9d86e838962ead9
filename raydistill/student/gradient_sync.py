"""Sum gradients over workers; of the embedding table only the touched rows are sent (torch).

Works with gloo and with NCCL, which has no sparse all-reduce. Each worker adds the same numbers in
the same order, so that replicas stay bitwise equal.

Three messages a step. The row counts are sent during the forward and backward pass, the network's
gradients while the row gradients are computed and packed. Bytes that a worker sends: 8 for its
count, s P for the network (P weights of s bytes: 4 in float32, 2 in bfloat16), and M * (4 + s D)
for M ids and rows of D, where M is the most rows that any worker touched. No term depends on the
number of rows of the table.
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
    """An all-gather of a tensor that is in progress."""

    found: Tensor
    work: dist.Work

    def wait(self) -> Tensor:
        """The tensors of all workers; the first dimension is the worker."""
        self.work.wait()
        return self.found


class GradientSync:
    """The sum of gradients over the workers of torch's default process group."""

    def __init__(self, *, device: str = "cpu") -> None:
        """Requires an initialised process group; `device` is the student's device."""
        self.num_workers, self._device = dist.get_world_size(), device
        self.num_bytes = 0  # sent by this worker so far

    def all_gather_counts(self, rows_U: Tensor) -> PendingAllGather:
        """Start sending the number of rows, which is available before the gradients."""
        return self._gather(torch.tensor([len(rows_U)], device=rows_U.device))

    def all_reduce_dense(self, grads_P: Tensor) -> dist.Work:
        """Start replacing `grads_P` by the sum of all workers' flat gradients.

        The sum is in place after `wait()` on the result.
        """
        self.num_bytes += grads_P.nbytes
        work: dist.Work = dist.all_reduce(grads_P, async_op=True)
        return work

    def sum_rows(
        self, rows_U: Tensor, grads_UD: Tensor, *, counts: PendingAllGather
    ) -> tuple[Tensor, Tensor]:
        """The distinct rows of all workers, and the sums of their gradients in float32.

        `counts` is the result of `all_gather_counts` for the same rows.
        """
        nums = counts.wait().flatten().tolist()
        # An id's bits become one or two more columns: one message instead of two.
        packed = torch.cat([grads_UD, rows_U.unsqueeze(1).view(grads_UD.dtype)], 1)
        parts = self._gather(functional.pad(packed, (0, 0, 0, max(nums) - len(packed)))).wait()
        joined = torch.cat([part[:num] for part, num in zip(parts, nums, strict=True)])
        dim = grads_UD.shape[1]
        grads = joined[:, :dim].float().contiguous()
        rows = joined[:, dim:].contiguous().view(torch.int32).squeeze(1)
        if not rows.is_cpu:
            all_U, slots = torch.unique(rows, return_inverse=True)
            sums = grads.new_zeros(len(all_U), dim)
            # index_add_ adds in random order on a GPU, and replicas would differ.
            for part, grad in zip(torch.split(slots, nums), torch.split(grads, nums), strict=True):
                sums[part] += grad
            return all_U, sums
        all_rows, slots_of = distinct(rows.numpy())
        sums = grads.new_zeros(len(all_rows), dim)
        add_rows(slots_of, grads.numpy(), sums.numpy())
        return torch.from_numpy(all_rows), sums

    def broadcast_first(self, values: list[float]) -> list[float]:
        """The values of worker 0, so that all workers decide equally."""
        found = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.broadcast(found, src=0)
        return [float(value) for value in found]

    def _gather(self, values: Tensor) -> PendingAllGather:
        self.num_bytes += values.nbytes
        found = values.new_empty(self.num_workers, *values.shape)
        return PendingAllGather(found, dist.all_gather(list(found), values, async_op=True))
