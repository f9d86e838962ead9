"""The device of a worker of a fit, and what all workers of a fit agree on."""

from __future__ import annotations

import logging
import os

import ray
import ray.train
import torch
import torch.distributed as dist

from raydistill.cluster.workers.assigned_gpu import has_gpu
from raydistill.errors import UserError
from raydistill.teachers.transformer.device import device_use, merge_uses

logger = logging.getLogger("raydistill")

_SOON_S = 10.0
_MOST_WAIT_S = 900.0  # a cloud's GPU machine takes 3 to 8 minutes to start


def device_of_worker() -> str:
    """`cuda` if Ray assigned this worker a GPU, else `cpu` with a share of the machine's cores.

    Raises:
        UserError: see `has_gpu`.
    """
    if has_gpu():
        return "cuda"
    # Ray sets one thread for each CPU that was requested, which leaves the other cores idle.
    workers_here = ray.train.get_context().get_local_world_size()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers_here))
    return "cpu"


def check_gpu(*, gpus_each: float) -> None:
    """Check the GPU in one task with `gpus_each` GPUs, before the workers are started.

    Raises:
        UserError: torch does not see the GPU, or no GPU is free within 910 s.
    """
    look = ray.remote(num_gpus=gpus_each, num_cpus=0)(_gpu_problem).remote()
    if not ray.wait([look], timeout=_SOON_S)[0]:
        logger.info("waiting for a GPU: none is free, or its machine has not started")
    if not ray.wait([look], timeout=_MOST_WAIT_S)[0]:
        ray.cancel(look)
        raise UserError(
            f"no GPU was available within {_SOON_S + _MOST_WAIT_S:.0f} s; correct cluster.gpus "
            "where the cluster cannot start that many, or set finetune.num_gpus or train.num_gpus "
            "= 0 to work on CPUs"
        )
    problem: str = ray.get(look)
    if problem:
        raise UserError(problem)


def _gpu_problem() -> str:
    """The text of `has_gpu`'s error, or "": Ray would add pages of its own stack to an error."""
    try:
        has_gpu()
    except UserError as error:
        return str(error)
    return ""


def common_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of all workers, float32 if their machines differ; a collective call.

    Gradients are sent in this type: with two types the messages would not fit together.
    """
    if not dist.is_initialized():
        return dtype
    dtypes = [dtype] * dist.get_world_size()
    dist.all_gather_object(dtypes, dtype)
    return dtype if len(set(dtypes)) == 1 else torch.float32


def workers_use(device: str, *, dtype: torch.dtype) -> dict[str, str]:
    """Devices and dtypes of all workers of a fit, for `_SUCCESS.json`; a collective call."""
    use = device_use(device, dtype=dtype)
    if not dist.is_initialized():
        return use
    uses: list[dict[str, str]] = [{}] * dist.get_world_size()
    dist.all_gather_object(uses, use)
    return merge_uses(uses)
