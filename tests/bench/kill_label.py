"""`label` under random kill -9 of driver, actors and raylet: the logits must be byte-identical.

python tests/bench/kill_label.py --kills 20

A first run without kills writes the expected files. Then `label` is started repeatedly on a second
run folder, and one of its processes is killed at a random moment, until `--kills` is reached; the
last start runs to its end. A file that existed before a kill must exist unchanged afterwards: the
shard is not scored again.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from prepared import prepared_run

from raydistill.demo.shop import Shop

_VICTIMS = ("driver", "actor", "raylet")
_PATIENCE_S = 120.0


class Job:
    """One `label` process and its descendants."""

    def __init__(self, config: Path) -> None:
        command = [sys.executable, "-m", "raydistill", "label", "--config", str(config)]
        quiet = subprocess.DEVNULL
        self.driver = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        self.family: dict[int, psutil.Process] = {}

    def look(self) -> None:
        """Record the processes of the job: an orphan cannot be found through its parent."""
        try:
            for process in psutil.Process(self.driver.pid).children(recursive=True):
                self.family[process.pid] = process
        except psutil.NoSuchProcess:
            return

    def find(self, victim: str) -> list[psutil.Process]:
        """The live processes of a kind: driver, actor or raylet."""
        if victim == "driver":
            return [psutil.Process(self.driver.pid)] if self.driver.poll() is None else []
        mark = "::StepActor" if victim == "actor" else "raylet/raylet"
        found = []
        for process in self.family.values():
            try:
                if mark in process.cmdline()[0] and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, IndexError):
                continue
        return found

    def end(self) -> int:
        """Wait for the driver, at most 120 s, and kill all other processes; the exit code."""
        try:
            code = self.driver.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.driver.kill()
            code = self.driver.wait()
        for process in self.family.values():
            try:
                process.kill()
            except psutil.Error:
                continue
        return code


def files(folder: Path) -> dict[str, int]:
    """Name and modification time of each logits file."""
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*/part-*.parquet")}


def wait_for_new(job: Job, folder: Path, *, num: int) -> bool:
    """Wait for `num` new files; False if the job ends first or after 120 s."""
    before, start_s = len(files(folder)), time.monotonic()
    while job.driver.poll() is None and time.monotonic() - start_s < _PATIENCE_S:
        if len(files(folder)) >= before + num:
            return True
        job.look()
        time.sleep(0.1)
    return False


def one_job(config: Path, folder: Path, rng: random.Random, *, most_kills: int) -> Counter[str]:
    """Start a job and kill its processes until it ends; the number of kills by kind."""
    killed: Counter[str] = Counter()
    job = Job(config)
    while killed.total() < most_kills and wait_for_new(job, folder, num=rng.choice((1, 2))):
        time.sleep(rng.random() * 0.5)
        victims = job.find(victim := rng.choice(_VICTIMS))
        if not victims:
            continue
        rng.choice(victims).kill()
        killed[victim] += 1
        print(f"killed {victim} after {len(files(folder))} files", flush=True)
        if victim != "actor":
            break
    job.end()
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teacher", type=Path, required=True, help="a cross-encoder's folder")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    table = Shop.build(seed=0, num_products=2_000, num_queries=400).transfer_pairs(
        0, num_rows=30 * 512
    )
    pairs = (table["query"].to_pylist(), table["title"].to_pylist())
    with tempfile.TemporaryDirectory() as scratch:
        left_alone, tortured = Path(scratch, "alone"), Path(scratch, "killed")
        for folder in (left_alone, tortured):
            config, shards = prepared_run(folder, given.teacher, pairs, shard_rows=256)
        assert Job(left_alone / "bench.toml").end() == 0
        expected = {f.name: f.read_bytes() for f in (left_alone / "logits").glob("*/part-*")}
        assert sorted(expected) == shards
        killed: Counter[str] = Counter()
        logits, num_again, num_jobs = tortured / "logits", 0, 0
        while killed.total() < given.kills:
            before = files(logits)
            killed += one_job(config, logits, rng, most_kills=given.kills - killed.total())
            num_jobs += 1
            after = files(logits)
            num_again += sum(after.get(name) != written for name, written in before.items())
            if len(after) > 0.7 * len(shards) and killed.total() < given.kills:
                for file in rng.sample(sorted(logits.glob("*/part-*")), len(after) // 2):
                    file.unlink()  # as if lost; otherwise too few shards remain for the kills
        before = files(logits)
        code = Job(config).end()
        after = files(logits)
        num_again += sum(after.get(name) != written for name, written in before.items())
        found = {f.name: f.read_bytes() for f in logits.glob("*/part-*")}
        leftovers = list(logits.glob("**/.*.tmp"))
    print(f"{killed.total()} kills ({dict(killed)}) of {num_jobs} jobs; the last ended with {code}")
    figures = {
        "kills": killed.total(),
        "same_bytes": found == expected,
        "shards_scored_again": num_again,
        "temporary_files_left": len(leftovers),
    }
    print(json.dumps({"bench": "kill_label", "figures": figures}))


if __name__ == "__main__":
    main()
