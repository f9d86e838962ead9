"""What a device is called, and in which type it multiplies matrices: for teachers and students.

`cuda` is the GPU that torch uses when none is named. torch only, no Ray.
"""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# What torch says where an allocation fails, besides torch.OutOfMemoryError: the runtime and the
# libraries allocate past torch's allocator. Their handles are made at the first call, and say
# NOT_INITIALIZED where no memory is left for them.
_NO_MEMORY = re.compile(
    r"(cuda|hip|xpu)\b.*out of memory"
    r"|(cu|hip)blas_status_(alloc_failed|not_initialized)"
    r"|cudnn_status_(alloc_failed|not_initialized|internal_error_\w+_allocation_failed)"
    r"|defaultcpuallocator: (can't allocate|not enough) memory",
    re.IGNORECASE,
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a smaller batch may do: the device, or the CPU, had no memory to give."""
    return isinstance(error, torch.OutOfMemoryError) or bool(_NO_MEMORY.search(str(error)))


def has_bfloat16(device: str) -> bool:
    """Whether the hardware of `cuda` or `cpu` multiplies in bfloat16 itself.

    A T4 or a V100 emulates it in float32, at a fraction of the speed of their float16.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def teacher_dtype(name: str, *, device: str) -> torch.dtype:
    """`auto`: bfloat16 where the hardware has it, else float16 on a GPU and float32 on a CPU."""
    return _resolve(name, device=device, otherwise="float16" if device == "cuda" else "float32")


def student_dtype(name: str, *, device: str) -> torch.dtype:
    """`auto`: bfloat16 where the hardware has it, else float32: float16 needs scaled gradients."""
    return _resolve(name, device=device, otherwise="float32")


def _resolve(name: str, *, device: str, otherwise: str) -> torch.dtype:
    if name == "auto":
        name = "bfloat16" if has_bfloat16(device) else otherwise
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16`, as in the run file."""
    return str(dtype).removeprefix("torch.")


@cache
def device_name(device: str) -> str:
    """The model of the GPU or of the CPU, as its maker calls it."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return _cpu_name(Path("/proc/cpuinfo")) or platform.processor() or platform.machine()


def _cpu_name(info: Path) -> str:
    """`model name` of Linux's list of CPUs; "" where there is none, as on ARM and macOS."""
    if not info.exists():
        return ""
    lines = (line.partition(":") for line in info.read_text(errors="replace").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "model name"), "")
