"""One core: the latency of a bundle beside other models, its cold start, memory and size.

    pip install 'raydistill[bench]'
    python tests/bench/serve.py --bundle BUNDLE [--teacher MODEL] [--pairs FILE] [--seconds 60]

`raydistill bench` in full, and new processes that load the bundle: the first score with an empty
cache, the time to load with a full one, and the memory of a second process. One run, medians; what
is timed takes turns.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from raydistill.serving.bundle import current_bundle
from raydistill.serving.native.build import GIVEN, found_library
from raydistill.stages.standalone.bench import Bench, golden_pairs, read_pairs, run
from raydistill.teachers.transformer.runtimes import RUNTIMES

# A process: memory after NumPy is imported and after the pairs are scored; then it waits.
CODE = """
import json, sys, time
import numpy
def memory():
    fields = dict(line.split(":") for line in open("/proc/self/smaps_rollup").readlines()[1:])
    kib = {name: int(value.split()[0]) for name, value in fields.items()}
    return {"rss": kib["Rss"], "private": kib["Private_Clean"] + kib["Private_Dirty"]}
before = memory()
from raydistill import Scorer
pairs = json.loads(sys.argv[2])
started = time.perf_counter()
scorer = Scorer.load(sys.argv[1])
load_ms = 1_000 * (time.perf_counter() - started)
scorer.score(pairs[0][0], [pairs[0][1]])
print("scored", flush=True)
for query, title in pairs:
    scorer.score(query, [title])
after = memory()
grown = {name: (after[name] - before[name]) * 1_024 / 1e6 for name in after}
print(json.dumps({"load_ms": load_ms, **grown}), flush=True)
sys.stdin.readline()
"""


class Started:
    """A new process that scores pairs, and stays until it is told to end."""

    def __init__(self, bundle: Path, pairs: list[tuple[str, str]], caches: str | None) -> None:
        environment = dict(os.environ)
        if caches:
            environment |= {"XDG_CACHE_HOME": caches, "NUMBA_CACHE_DIR": caches}
        if (library := found_library()[0]) is not None:
            environment[GIVEN] = str(library)  # as in a wheel
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(bundle), json.dumps(pairs)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout.readline() == "scored\n"
        self.first_score_s = time.perf_counter() - started
        self.figures = json.loads(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate("\n")


def starts(bundle: Path, pairs: list[tuple[str, str]], *, num: int) -> dict[str, float]:
    """Figures of new processes."""
    cold_s = []
    while len(cold_s) < num and sum(cold_s) < 20:  # compiling takes half a minute
        with tempfile.TemporaryDirectory() as caches:
            process = Started(bundle, pairs, caches)
            cold_s.append(process.first_score_s)
            process.end()
    Started(bundle, pairs, None).end()  # fills the cache
    first = Started(bundle, pairs, None)
    later = []
    for _ in range(num):
        later.append(Started(bundle, pairs, None))
        later[-1].end()
    first.end()
    return {
        "cold_start_s": statistics.median(cold_s),
        "warm_start_s": statistics.median(one.first_score_s for one in later),
        "load_ms": statistics.median(one.figures["load_ms"] for one in later),
        "second_process_rss_mb": statistics.median(one.figures["rss"] for one in later),
        "second_process_private_mb": statistics.median(one.figures["private"] for one in later),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, type=Path)
    parser.add_argument("--teacher")
    parser.add_argument("--pairs", help="a file with columns query, title")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runtimes", default=",".join(RUNTIMES))
    parser.add_argument("--starts", type=int, default=5)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if given.pairs:
        pairs = read_pairs(given.pairs, query="query", title="title")
    else:
        pairs = golden_pairs(given.bundle)
    new = starts(given.bundle, pairs[:64], num=given.starts)
    names = tuple(given.runtimes.split(","))
    found = run(Bench(given.bundle, given.teacher, given.seconds, names), pairs)
    files = current_bundle(given.bundle).iterdir()
    new["bundle_mb"] = sum(file.stat().st_size for file in files) / 1e6
    print(found.text())
    for name, value in new.items():
        print(f"{name}: {value:,.2f}")
    whole = found.to_dict()
    whole["figures"] |= {name: round(value, 3) for name, value in new.items()}
    print(json.dumps({"bench": "serve", **whole}))


if __name__ == "__main__":
    main()
