"""SIGTERM to a stage that works: seconds until its lease is released, its last line, its end.

python tests/bench/stop.py --config run.toml --stage train --rounds 3

`ray job stop` kills a driver 3 s after SIGTERM, which comes here when the log says that the stage's
workers have done something. The run is prepared (and labeled, for train), in a
local folder, with work of some minutes left for the stage. `--ray ADDRESS`: of a cluster that is
there, else each round starts a Ray of its own.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from raydistill.config.loading import load_config  # noqa: E402

LAST_LINE = "raydistill: stopped by SIGTERM"
POLL_S, START_S = 0.01, 300.0
OF_WORKERS = {"label": " shards  ", "train": " epoch "}  # in the first line that says that they run


def stop_once(config: str, stage: str, *, ray: str) -> dict[str, float]:
    """Seconds since SIGTERM; nan: not before the process had ended."""
    leases = Path(load_config(config).run_dir) / "_leases"
    variables = {**os.environ, **({"RAY_ADDRESS": ray} if ray else {}), "PYTHONPATH": str(ROOT)}
    with tempfile.NamedTemporaryFile("w+") as said:
        command = [sys.executable, "-m", "raydistill", stage, "--config", config]
        job = subprocess.Popen(command, env=variables, stderr=said, stdout=subprocess.DEVNULL)
        until_s = time.monotonic() + START_S
        while not says(said.name, OF_WORKERS[stage]) or not any(leases.glob("*.json")):
            if job.poll() is not None or time.monotonic() > until_s:
                job.kill()
                raise SystemExit(f"no work of {stage}: {Path(said.name).read_text()[-500:]}")
            time.sleep(POLL_S)
        job.send_signal(signal.SIGTERM)
        start_s, found = time.monotonic(), {"lease": math.nan, "line": math.nan}
        while job.poll() is None:
            is_there = {"lease": any(leases.glob("*.json")), "line": not says(said.name, LAST_LINE)}
            for name, waits in is_there.items():
                if not waits and math.isnan(found[name]):
                    found[name] = time.monotonic() - start_s
            time.sleep(POLL_S)
        return {**found, "end": time.monotonic() - start_s}


def says(log: str, text: str) -> bool:
    return text in Path(log).read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description="SIGTERM to a stage that works")
    parser.add_argument("--config", required=True)
    parser.add_argument("--stage", choices=("label", "train"), required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", default="", metavar="ADDRESS")
    given = parser.parse_args()
    rounds = [stop_once(given.config, given.stage, ray=given.ray) for _ in range(given.rounds)]
    for name in ("lease", "line", "end"):
        values = sorted(one[name] for one in rounds)
        print(f"{name:<6} median {statistics.median(values):.2f} s, most {values[-1]:.2f} s")


if __name__ == "__main__":
    main()
