"""Gradients between workers: of the embedding table only the touched rows travel (torch).

Works on gloo and on NCCL, which has no sparse all-reduce. Every worker adds up the same numbers in
the same order, so that replicas stay the same to the last bit.

Bytes that a worker hands over a step: s P for the network (P weights of s bytes: 4 in float32, 2 in
bfloat16), 8 for its count of rows, and M * (4 + s D) for M ids and rows of D, M being the most rows
that any worker touched. Nothing follows the rows of the table.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from raydistill.bags import add_rows, distinct


class Exchange:
    """The sum of gradients over the workers of torch's default process group."""

    def __init__(self, *, device: str = "cpu") -> None:
        """The process group must be there; `device` is where the student is."""
        self.num_workers, self._device = dist.get_world_size(), device
        self.num_bytes = 0  # handed over by this worker so far

    def sum_all(self, grads_P: Tensor) -> None:
        """Put the sum of all workers' flat gradients in the place of this one's."""
        self.num_bytes += grads_P.nbytes
        dist.all_reduce(grads_P)

    def sum_rows(self, rows_U: Tensor, grads_UD: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct rows of all workers, and the sums of their gradients in float32."""
        gathered = self._gather(torch.tensor([len(rows_U)], device=rows_U.device))
        counts = gathered.flatten().tolist()
        rows = self._gather_padded(rows_U, counts)
        grads = self._gather_padded(grads_UD, counts).float()
        if not rows.is_cpu:
            all_U, slots = torch.unique(rows, return_inverse=True)
            sums = grads.new_zeros(len(all_U), grads.shape[1])
            # Not index_add_, which adds in any order on a GPU: replicas would part.
            for part, grad in zip(
                torch.split(slots, counts), torch.split(grads, counts), strict=True
            ):
                sums[part] += grad
            return all_U, sums
        all_rows, slots_of = distinct(rows.numpy())
        sums = grads.new_zeros(len(all_rows), grads.shape[1])
        add_rows(slots_of, grads.numpy(), sums.numpy())
        return torch.from_numpy(all_rows), sums

    def first(self, values: list[float]) -> list[float]:
        """The values of the first worker, so that all decide alike."""
        found = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.broadcast(found, src=0)
        return [float(value) for value in found]

    def _gather_padded(self, values: Tensor, counts: list[int]) -> Tensor:
        """The values of all workers, one after the other, without the padding they travel with."""
        short = max(counts) - len(values)
        padded = functional.pad(values, (0, 0) * (values.dim() - 1) + (0, short))
        found = self._gather(padded)
        return torch.cat([part[:num] for part, num in zip(found, counts, strict=True)])

    def _gather(self, values: Tensor) -> Tensor:
        self.num_bytes += values.nbytes
        found = values.new_empty(self.num_workers, *values.shape)
        dist.all_gather(list(found), values.contiguous())
        return found
