"""Sum gradients over the parts of a batch; of the table only touched rows are sent (torch).

A batch has a fixed number of parts, and each worker computes a contiguous range of them: one each,
or several if fewer workers are there than parts. Gradients are added in the order of the parts,
whoever computed them, so the sums do not depend on the number of workers to the last bit. Works
with gloo and with NCCL, which has no sparse all-reduce.

Four messages a step. The row counts are sent during the forward and backward pass, the network's
gradients while the row gradients are computed and packed. Bytes that one of W workers sends, with k
parts of its own, P weights of s bytes (4 in float32, 2 in bfloat16) and rows of D:
- counts: 8 for each part of the worker that has most, to each other worker;
- network: (k + 1) s P / W to each other worker. Worker w receives the w-th of W pieces of every
  part's gradients, adds them, and sends the sum. With one part a worker that is 2 s P (W - 1) / W,
  as of a ring all-reduce. Two workers with a part each use the all-reduce itself: the sum of two
  numbers has one order;
- table: M (4 + s D) to each other worker, where M is the most rows that any worker's parts touched,
  counted once a part.
No term depends on the number of rows of the table. One worker sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from raydistill.student.batches import part_range
from raydistill.student.embedding_kernels import add_rows, distinct


@dataclass(frozen=True)
class PendingAllGather:
    """An all-gather of a tensor that is in progress."""

    found: Tensor
    work: dist.Work | None

    def wait(self) -> Tensor:
        """The tensors of all workers; the first dimension is the worker."""
        if self.work is not None:
            self.work.wait()
        return self.found


class GradientSync:
    """The sum of gradients over all parts, by the workers of torch's default process group."""

    def __init__(self, *, device: str = "cpu", num_parts: int | None = None) -> None:
        """Without a process group one worker computes all parts.

        `device` is the student's device; `num_parts` are the parts of a batch, by default one for
        each worker.
        """
        grouped = dist.is_available() and dist.is_initialized()
        self.num_workers, rank = (dist.get_world_size(), dist.get_rank()) if grouped else (1, 0)
        self.num_parts, self._device = num_parts or self.num_workers, device
        ranges = [
            part_range(self.num_parts, part=one, num_parts=self.num_workers)
            for one in range(self.num_workers)
        ]
        self.parts = range(*ranges[rank])  # those that this worker computes
        self._held = [stop - start for start, stop in ranges]  # number of parts of each worker
        self.num_bytes = 0  # sent by this worker so far

    def all_gather_counts(self, rows: Sequence[Tensor]) -> PendingAllGather:
        """Start sending each part's number of rows, which is available before the gradients."""
        counts = [len(rows_U) for rows_U in rows] + [0] * (max(self._held) - len(rows))
        return self._gather(torch.tensor(counts, device=self._device))

    def sum_dense(self, grads: Sequence[Tensor]) -> FlatSum:
        """Start summing the flat gradients of the own parts and of the others'."""
        if self.num_workers == 1:
            return LocalSum(grads)
        if self.num_workers == self.num_parts == 2:
            self.num_bytes += grads[0].nbytes
            return ReducedSum(grads[0], dist.all_reduce(grads[0], async_op=True))
        found = ScatteredSum(grads, held=self._held, gather=self._gather)
        self.num_bytes += found.num_bytes
        return found

    def sum_rows(
        self, rows: Sequence[tuple[Tensor, Tensor]], *, counts: PendingAllGather
    ) -> tuple[Tensor, Tensor]:
        """The distinct rows of all parts, and the sums of their gradients in float32.

        `rows`: the rows and gradients of each own part. `counts` is the result of
        `all_gather_counts` for the same rows.
        """
        nums = counts.wait().view(self.num_workers, -1).tolist()
        totals = [sum(num) for num in nums]
        # An id's bits become one or two more columns: one message instead of two.
        packed = torch.cat([torch.cat([g, r.unsqueeze(1).view(g.dtype)], 1) for r, g in rows])
        padded = functional.pad(packed, (0, 0, 0, max(totals) - len(packed)))
        gathered = self._gather(padded).wait()
        joined = torch.cat([one[:total] for one, total in zip(gathered, totals, strict=True)])
        dim = rows[0][1].shape[1]
        grads = joined[:, :dim].float().contiguous()
        ids = joined[:, dim:].contiguous().view(torch.int32).squeeze(1)
        return _sum_by_row(ids, grads, sizes=[num for one in nums for num in one if num])

    def broadcast_first(self, values: list[float]) -> list[float]:
        """The values of worker 0, so that all workers decide equally."""
        if self.num_workers == 1:
            return values
        found = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.broadcast(found, src=0)
        return [float(value) for value in found]

    def _gather(self, values: Tensor) -> PendingAllGather:
        if self.num_workers == 1:
            return PendingAllGather(values.unsqueeze(0), None)
        self.num_bytes += values.nbytes * (self.num_workers - 1)
        found = values.new_empty(self.num_workers, *values.shape)
        return PendingAllGather(found, dist.all_gather(list(found), values, async_op=True))


class FlatSum(Protocol):
    """The sum of all parts' flat gradients, in their type, in progress."""

    def send_sums(self) -> None:
        """Start the second message, if there is one."""

    def wait(self) -> Tensor:
        """The sum, on every worker."""


@dataclass(frozen=True)
class LocalSum:
    """One worker has all parts: nothing is sent."""

    grads: Sequence[Tensor]

    def send_sums(self) -> None:
        """Nothing to do."""

    def wait(self) -> Tensor:
        """The sum."""
        return _sum_in_order(self.grads)


@dataclass(frozen=True)
class ReducedSum:
    """Two workers have a part each: the all-reduce adds two numbers, in whatever order."""

    grads_P: Tensor
    work: dist.Work

    def send_sums(self) -> None:
        """Nothing to do."""

    def wait(self) -> Tensor:
        """The sum."""
        self.work.wait()
        return self.grads_P


class ScatteredSum:
    """Each worker adds its piece of the gradients of all parts, and sends the sum to the others."""

    def __init__(
        self,
        grads: Sequence[Tensor],
        *,
        held: Sequence[int],
        gather: Callable[..., PendingAllGather],
    ) -> None:
        """Start sending the pieces; `held` is the number of parts of each worker."""
        num_workers = len(held)
        self._size, self._gather = grads[0].numel(), gather
        width = -(-self._size // num_workers)
        padded = [functional.pad(grad, (0, width * num_workers - self._size)) for grad in grads]
        sent = torch.stack(padded).view(-1, num_workers, width).transpose(0, 1).reshape(-1)
        self._pieces_QL = sent.new_empty(sum(held), width)
        self._work = dist.all_to_all_single(
            self._pieces_QL.view(-1),
            sent,
            [num * width for num in held],
            [len(grads) * width] * num_workers,
            async_op=True,
        )
        self.num_bytes = sent.nbytes // num_workers * (num_workers - 1)
        self._sums: PendingAllGather | None = None

    def send_sums(self) -> None:
        """Add this worker's piece of all parts, and start sending the sum."""
        self._sent()

    def wait(self) -> Tensor:
        """The sum."""
        return self._sent().wait().view(-1)[: self._size]

    def _sent(self) -> PendingAllGather:
        if self._sums is None:
            self._work.wait()
            self._sums = self._gather(_sum_in_order(self._pieces_QL))
        return self._sums


def _sum_in_order(parts: Sequence[Tensor] | Tensor) -> Tensor:
    """The sum of the parts, added in float32 one after the other, in the type of the parts."""
    first, *others = parts
    total = first.float().clone() if others else first
    for other in others:
        total += other
    return total.to(first.dtype)


def _sum_by_row(rows: Tensor, grads: Tensor, *, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """The distinct rows, and the sum of each row's gradients in the given order of the parts.

    `sizes` are the rows of each part; within a part they are distinct.
    """
    if rows.is_cpu:
        all_rows, slots_of = distinct(rows.numpy())
        sums = grads.new_zeros(len(all_rows), grads.shape[1])
        add_rows(slots_of, grads.numpy(), sums.numpy())
        return torch.from_numpy(all_rows), sums
    all_U, slots = torch.unique(rows, return_inverse=True)
    sums = grads.new_zeros(len(all_U), grads.shape[1])
    # index_add_ adds in random order on a GPU, and replicas would differ.
    for part, grad in zip(torch.split(slots, sizes), torch.split(grads, sizes), strict=True):
        sums[part] += grad
    return all_U, sums
