"""Seconds that a new worker of each kind takes to import what it runs, here and elsewhere.

    python tests/bench/imports.py [--before OTHER_CHECKOUT] [--times 5]

Ray is imported first and not counted: its worker process has it already. The checkouts take turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[2]
KINDS = "raydistill.teachers.kinds"
# The modules that hold the functions which Ray sends to the worker.
WORKERS = {
    "label, trees": [f"{KINDS}.trees"],
    "label, scores": [f"{KINDS}.scores"],
    "label, cross-encoder": [f"{KINDS}.cross_encoder"],
    "train": ["raydistill.stages.train"],
    "train, n-grams": ["raydistill.stages.fits.lexicon"],
}
CODE = """
import ray, sys, time
start_s = time.perf_counter()
for name in sys.argv[1:]:
    __import__(name)
print(time.perf_counter() - start_s)
"""


def import_s(checkout: Path, modules: list[str]) -> float:
    """Seconds in a new process."""
    command = [sys.executable, "-c", CODE, *modules]
    out = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    return float(out.stdout)


def modules_of(checkout: Path, worker: str) -> list[str]:
    """With the module of the function that makes an actor's step."""
    light = checkout / "raydistill/cluster/workers/assigned_gpu.py"
    maker = "cluster.workers.assigned_gpu" if light.exists() else "stages.label"
    return [*WORKERS[worker], *([f"raydistill.{maker}"] if "label" in worker else [])]


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path)
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    checkouts = [HERE, *([args.before] if args.before else [])]
    for worker in WORKERS:
        found: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
        for _ in range(args.times + 1):
            for checkout in checkouts:
                found[checkout].append(import_s(checkout, modules_of(checkout, worker)))
        medians = [statistics.median(times[1:]) for times in found.values()]  # the first compiles
        print(f"{worker:<24}", *(f"{median:6.2f} s" for median in medians))


if __name__ == "__main__":
    main()
