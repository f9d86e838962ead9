"""What a device is called, and in which type it multiplies matrices: for teachers and students.

`cuda` is the GPU that torch uses when none is named. torch only, no Ray.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# What torch says where an allocation fails, besides torch.OutOfMemoryError: the runtime and the
# libraries allocate past torch's allocator. Their handles are made at the first call, and say
# NOT_INITIALIZED where no memory is left for them.
_NO_MEMORY = re.compile(
    r"\b(cuda|hip|xpu)(_error)?[\s_:,].*out.of.memory|\b(cuda|hip)_error_out_of_memory"
    r"|(cu|hip)(blas|solver|sparse)_status_(alloc_failed|not_initialized)"
    r"|cudnn_status_(alloc_failed|not_initialized|internal_error_\w+_allocation_failed)"
    r"|defaultcpuallocator: (can't allocate|not enough) memory",
    re.IGNORECASE,
)


def free_memory_bytes() -> int:
    """Memory that this process may still take: of the machine, or of its container if less."""
    info = Path("/proc/meminfo")
    if info.exists():
        lines = (line.split() for line in info.read_text().splitlines())
        free = next((int(line[1]) << 10 for line in lines if line[0] == "MemAvailable:"), 0)
    else:  # of a Mac half
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(used.read_text()))
    return free


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


def device_use(device: str, *, dtype: torch.dtype) -> dict[str, str]:
    """What a worker works on and in, as it stands in `_SUCCESS.json`."""
    return {
        "device": device,
        "device_name": device_name(device),
        "dtype": dtype_name(dtype),
    }


def merge_uses(uses: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Those of several workers: what they share once, else the distinct ones, ` + ` between them.

    `NVIDIA A10G + Tesla T4` with `bfloat16 + float16`: the values of a kind stand at one place.
    """
    names = ("device", "device_name", "dtype")
    kinds = sorted({tuple(use[name] for name in names) for use in uses})
    merged = {}
    for name, values in zip(names, zip(*kinds, strict=True), strict=False):
        merged[name] = values[0] if len(set(values)) == 1 else " + ".join(values)
    return merged


def use_text(use: Mapping[str, str]) -> str:
    """For a log line: `NVIDIA H100 80GB HBM3, bfloat16` or `cpu (AMD EPYC 9R14), float32`."""
    name = use["device_name"]
    return f"{f'cpu ({name})' if use['device'] == 'cpu' else name}, {use['dtype']}"


def why_no_gpu() -> str:
    """The likely causes, in one line, where torch sees no GPU that should be there."""
    causes = []
    if torch.version.cuda is None and torch.version.hip is None:
        causes.append(f"torch {torch.__version__} is built without CUDA: install a build with it")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        causes.append(f"CUDA_VISIBLE_DEVICES = {visible!r} hides every GPU")
    if torch.version.hip is None and not list(Path("/dev").glob("nvidia[0-9]*")):
        causes.append(
            "no /dev/nvidia*: no GPU or no NVIDIA driver, or a container that was started without "
            "its GPUs (--gpus all, the NVIDIA runtime)"
        )
    said = _init_error()
    if said and torch.version.cuda is not None:
        causes.append(f"torch says: {said}")
    return "; ".join(causes) or "the driver may be too old for this torch (nvidia-smi shows both)"


def _init_error() -> str:
    """What torch says when it is to use a GPU: a driver that is missing or too old is named."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # the latter of a build without CUDA
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ""
