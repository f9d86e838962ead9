"""Cores, memory, GPUs and what they multiply natively."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from raydistill.machine.check import GIB, Check, first_line, missing, ok, warning

_NAME = "devices"
_LEAST_MEMORY_BYTES = 4 * GIB  # Ray takes 1 to 2 GiB, a worker with a small BERT 0.6 GiB


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """The memory of the machine, or of its container."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        found = min(found, int(text))
    return found


def check_memory() -> Check:
    """Cores and memory."""
    size = memory_bytes()
    text = f"{num_cores()} cores, {size / GIB:.1f} GiB of memory"
    if size < _LEAST_MEMORY_BYTES:
        return warning("machine", text, mend="use a machine with 4 GiB or more for a run")
    return ok("machine", text)


def check_devices(*, needs_torch: bool) -> Iterator[Check]:
    """GPUs as torch sees them, and whether bfloat16 is native."""
    try:
        import torch

        from raydistill.teachers.transformer.device import device_name, has_bfloat16, why_no_gpu
    except ImportError as error:
        if needs_torch:
            mend = "pip install 'raydistill[distill]'"
            yield missing("torch", f"cannot be imported: {first_line(error)}", mend=mend)
        return
    except OSError as error:  # a library of CUDA that is not there
        mend = "pip install --force-reinstall torch"
        yield missing("torch", f"cannot be loaded: {first_line(error)}", mend=mend)
        return
    yield ok("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}")
    if not torch.cuda.is_available():
        yield _check_no_gpu(why_no_gpu())
    else:
        for at in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(at)
            name = torch.cuda.get_device_name(at)
            yield ok(_NAME, f"GPU {at}: {name}, {free / GIB:.0f} of {total / GIB:.0f} GiB free")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = "bfloat16 is native" if has_bfloat16(device) else "bfloat16 is not native"
    other = "float16" if device == "cuda" else "float32"
    what = "" if has_bfloat16(device) else f': dtype = "auto" takes {other}'
    yield ok(_NAME, f"{device_name(device) or device}: {kind}{what}")


def _check_no_gpu(reason: str) -> Check:
    """No GPU is right where there is none; wrong where the driver shows one."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return missing(_NAME, f"torch sees no GPU: {reason}", mend="nvidia-smi")
    return ok(_NAME, "no GPU: teachers score on the cores")
