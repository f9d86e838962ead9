"""Names and matrix dtypes of the devices that teachers and students use.

`cuda` means torch's current GPU. Uses torch; no Ray.
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

# Texts of failed allocations that are not a torch.OutOfMemoryError: the CUDA runtime and its
# libraries allocate outside torch's allocator. A library creates its handle at the first call and
# reports NOT_INITIALIZED where no memory is free for the handle.
_NO_MEMORY = re.compile(
    r"\b(cuda|hip|xpu)(_error)?[\s_:,].*out.of.memory|\b(cuda|hip)_error_out_of_memory"
    r"|(cu|hip)(blas|solver|sparse)_status_(alloc_failed|not_initialized)"
    r"|cudnn_status_(alloc_failed|not_initialized|internal_error_\w+_allocation_failed)"
    r"|defaultcpuallocator: (can't allocate|not enough) memory",
    re.IGNORECASE,
)


def free_memory_bytes() -> int:
    """Free memory for this process: the machine's, or the rest of the cgroup limit if smaller."""
    info = Path("/proc/meminfo")
    if info.exists():
        lines = (line.split() for line in info.read_text().splitlines())
        free = next((int(line[1]) << 10 for line in lines if line[0] == "MemAvailable:"), 0)
    else:  # macOS has no /proc/meminfo: half of the physical memory
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(used.read_text()))
    return free


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocation on the device or the CPU failed: a smaller batch may fit."""
    return isinstance(error, torch.OutOfMemoryError) or bool(_NO_MEMORY.search(str(error)))


def has_bfloat16(device: str) -> bool:
    """Whether the hardware of `cuda` or `cpu` multiplies bfloat16 natively.

    A T4 or a V100 emulates bfloat16 in float32, at a fraction of its float16 speed.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def set_up_attention(device: str) -> None:
    """Keep torch from cuDNN's attention, which plans anew for each shape of a batch.

    Batches of real pairs have a new shape nearly always. On an H200 (torch 2.11) 8,192 pairs took
    4.3 to 7.9 s with it and 0.06 s without; of a shape that repeats, 0.035 and 0.032 s.
    """
    if device == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def teacher_dtype(name: str, *, device: str) -> torch.dtype:
    """`auto`: bfloat16 where native, else float16 on a GPU and float32 on a CPU."""
    return _resolve(name, device=device, otherwise="float16" if device == "cuda" else "float32")


def student_dtype(name: str, *, device: str) -> torch.dtype:
    """`auto`: bfloat16 where native, else float32: float16 needs scaled gradients."""
    return _resolve(name, device=device, otherwise="float32")


def _resolve(name: str, *, device: str, otherwise: str) -> torch.dtype:
    if name == "auto":
        name = "bfloat16" if has_bfloat16(device) else otherwise
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The dtype as the run file writes it: `bfloat16`."""
    return str(dtype).removeprefix("torch.")


@cache
def device_name(device: str) -> str:
    """The product name of the GPU or the CPU."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return _cpu_name(Path("/proc/cpuinfo")) or platform.processor() or platform.machine()


def _cpu_name(info: Path) -> str:
    """The first `model name` of /proc/cpuinfo; "" without one, as on ARM and macOS."""
    if not info.exists():
        return ""
    lines = (line.partition(":") for line in info.read_text(errors="replace").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "model name"), "")


def device_use(device: str, *, dtype: torch.dtype) -> dict[str, str]:
    """A worker's device and dtype, in the form of `_SUCCESS.json`."""
    return {
        "device": device,
        "device_name": device_name(device),
        "dtype": dtype_name(dtype),
    }


def merge_uses(uses: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The device use of several workers: a value that all share once, else all joined by ` + `.

    `NVIDIA A10G + Tesla T4` with `bfloat16 + float16`: the i-th parts of the values are the
    i-th distinct combination.
    """
    names = ("device", "device_name", "dtype")
    kinds = sorted({tuple(use[name] for name in names) for use in uses})
    merged = {}
    for name, values in zip(names, zip(*kinds, strict=True), strict=False):
        merged[name] = values[0] if len(set(values)) == 1 else " + ".join(values)
    return merged


def use_text(use: Mapping[str, str]) -> str:
    """A log line's form: `NVIDIA H100 80GB HBM3, bfloat16` or `cpu (AMD EPYC 9R14), float32`."""
    name = use["device_name"]
    return f"{f'cpu ({name})' if use['device'] == 'cpu' else name}, {use['dtype']}"


def why_no_gpu() -> str:
    """The likely causes, in one line, of torch seeing no GPU."""
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
        causes.append(f"torch's error: {said}")
    return "; ".join(causes) or "the driver may be too old for this torch (nvidia-smi shows both)"


def _init_error() -> str:
    """Torch's error when it initialises CUDA, which names a missing or old driver; else ""."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # AssertionError: a build without CUDA
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ""
