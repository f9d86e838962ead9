"""The GPU that Ray assigned to this worker; a worker without one answers without torch."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import ray

from raydistill.errors import UserError

if TYPE_CHECKING:
    from raydistill.cluster.pools.steps import Step
    from raydistill.teachers.base import Steps

# For GPUs that are only declared (`ray start --num-gpus=2` on a machine without any), as in tests
# of placement: with value 1 a worker with such a GPU works on the CPU.
ALLOW_CPU = "RAYDISTILL_ALLOW_CPU_AS_GPU"


def has_gpu() -> bool:
    """Whether Ray assigned a GPU to this worker, actor or task.

    An assigned GPU that torch does not see is an error: otherwise the work runs on one core of a
    machine that is paid for its GPU.

    Raises:
        UserError: Ray assigned a GPU and torch sees none.
    """
    # Without a cluster get_gpu_ids would start one.
    gpus = ray.get_gpu_ids() if ray.is_initialized() else []
    if not gpus:
        return False
    import torch  # 1 s

    from raydistill.teachers.transformer.device import why_no_gpu

    if torch.cuda.is_available():
        return True
    if os.environ.get(ALLOW_CPU) == "1":
        return False
    raise UserError(
        f"Ray gave a worker on {socket.gethostname()} the GPU {', '.join(map(str, gpus))}, but "
        f"torch sees no GPU there: {why_no_gpu()}; repair that machine, or set label.num_gpus, "
        "finetune.num_gpus or train.num_gpus = 0 to work on CPUs"
    )


def make_step(steps: Steps) -> Step:
    """The scoring step of an actor: on the GPU that Ray assigned, else on one core.

    Raises:
        UserError: see `has_gpu`.
    """
    return steps.make("cuda" if has_gpu() else "cpu")
