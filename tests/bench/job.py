"""Wall time and peak memory of a command and all its processes.

python tests/bench/job.py raydistill distill --config jobs/demo.toml
"""

import json
import subprocess
import sys
import time

import psutil

_EVERY_S = 2.0  # a sample of 12 processes takes 50 ms of a core


def sample(root: psutil.Process) -> dict[str, int]:
    """Proportional memory (shared pages counted once) of each process below `root`, in bytes."""
    found: dict[str, int] = {}
    for process in [root, *root.children(recursive=True)]:
        try:
            name = process.name()
            found[f"{name} {process.pid}"] = process.memory_full_info().pss
        except psutil.Error:  # the process has ended
            continue
    return found


def main() -> int:
    start_s = time.monotonic()
    child = subprocess.Popen(sys.argv[1:])
    root = psutil.Process(child.pid)
    peak_all, peaks = 0, {}
    while child.poll() is None:
        found = sample(root)
        peak_all = max(peak_all, sum(found.values()))
        for name, size in found.items():
            peaks[name] = max(peaks.get(name, 0), size)
        time.sleep(_EVERY_S)
    wall_s = time.monotonic() - start_s
    largest = sorted(peaks.items(), key=lambda item: -item[1])[:5]
    print(
        f"\nwall {wall_s:.0f} s, peak memory {peak_all / 2**20:,.0f} MB in all; largest processes:"
    )
    for name, size in largest:
        print(f"  {size / 2**20:7,.0f} MB  {name}")
    figures = {"wall_s": round(wall_s, 1), "peak_mb": round(peak_all / 2**20)}
    figures["largest_process_mb"] = round(largest[0][1] / 2**20) if largest else 0
    print(json.dumps({"bench": "job", "figures": figures}))
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
