"""Calls of Scorer.score by two checkouts, or with several bundles, in turns: µs a pair, one core.

    python tests/bench/calls.py --bundle BUNDLE [BUNDLE ...] --pairs FILE --before ../before

A process for each checkout and bundle; one pair alone, and one query with 100 titles. A call's time
is by the wall clock, or the CPU time of the process if that is less.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# `latency.py` and the pairs are of this checkout, the scorer of the one that is timed.
CODE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from raydistill import Scorer
from raydistill.evaluation.latency import in_process, make_calls
scorer = Scorer.load(sys.argv[2])
calls = make_calls(json.load(open(sys.argv[3])))
timed = in_process(scorer.score, calls)
for kind in calls:
    timed(kind, 0.1)
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(timed(line.strip(), float(sys.argv[4]))), flush=True)
"""


class Timed:
    """A process that times calls when it is told to."""

    def __init__(self, checkout: Path, bundle: str, pairs: Path, turn_s: float) -> None:
        self.name, self.times = f"{checkout.name}, {bundle}", {"alone": [], "batch": []}
        command = [sys.executable, "-c", CODE, str(checkout), bundle, str(pairs), str(turn_s)]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout.readline() == "ready\n"

    def take_turn(self, kind: str) -> None:
        self._process.stdin.write(f"{kind}\n")
        self._process.stdin.flush()
        self.times[kind] += json.loads(self._process.stdout.readline())

    def figures(self) -> dict[str, float]:
        alone, batch = (sorted(self.times[kind]) for kind in ("alone", "batch"))
        return {
            "alone_us": statistics.median(alone),
            "alone_p10_us": alone[len(alone) // 10],
            "batch_us": statistics.median(batch) / 100,
            "batch_p10_us": batch[len(batch) // 10] / 100,
        }


def main() -> None:
    from raydistill.stages.standalone.bench import read_pairs

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, nargs="+")
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--turn", type=float, default=0.2, help="seconds")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    file = Path(tempfile.mkdtemp()) / "pairs.json"
    file.write_text(json.dumps(read_pairs(given.pairs, query="query", title="title")))
    checkouts = [given.before.resolve(), ROOT] if given.before else [ROOT]
    processes = [Timed(one, b, file, given.turn) for b in given.bundle for one in checkouts]
    file.unlink()
    for _ in range(given.rounds):
        for kind in ("alone", "batch"):
            for each in processes:
                each.take_turn(kind)
    figures = {each.name: each.figures() for each in processes}
    for name, values in figures.items():
        print(f"{name:60}", *(f"{key} {value:7.3f}" for key, value in values.items()))
    print(json.dumps({"bench": "calls", "figures": figures}))


if __name__ == "__main__":
    main()
