"""prepare must give the same bytes for any number of workers, names, order of files and kill -9.

Two kinds of run: all files at once, and half of them with an increment of the others.

python tests/bench/same_bytes.py --pairs 'DATA/*.parquet' --judged JUDGED.parquet --label label
"""

import argparse
import glob
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

RUN = """
run_dir = "{folder}/{name}"
[pairs]
input = {inputs}
shard_rows = {shard_rows}
[judged]
input = "{judged}"
label = "{label}"
relevant_at = 0.75
[teachers.none]
model = "{folder}"
"""
# Ray runs as many tasks at once as it has CPUs: one worker is a Ray cluster of one CPU.
WITH_WORKERS = """
import sys, ray, raydistill.cluster.connection
ray.init(num_cpus=int(sys.argv[1]), include_dashboard=False, log_to_driver=False,
         logging_level="error", object_store_memory=300 << 20)
from raydistill.cli.main import main
sys.exit(main(["prepare", "--config", sys.argv[2]]))
"""


def digest(run_dir: Path) -> str:
    """Hash of the names and bytes of all shards and weights, and of the row counts."""
    found = hashlib.sha256()
    places = ("pairs/*.parquet", "pairs/_weights/*.parquet", "judged/*/*.parquet")
    for file in sorted(path for place in places for path in run_dir.glob(place)):
        found.update(file.relative_to(run_dir).as_posix().encode() + file.read_bytes())
    for name in ("pairs", "judged"):
        done = json.loads((run_dir / name / "_SUCCESS.json").read_text())
        counts = [done[n] for n in ("rows_in", "rows_out", "duplicates", "quarantined", "held_out")]
        assert counts[0] == sum(counts[1:]), counts
        found.update(str(counts).encode())
    return found.hexdigest()[:16]


def run_killed(config: Path, *, chance: random.Random, most_s: float) -> int:
    """Run prepare and kill its processes after a random time, until it finishes; the kills."""
    command = [sys.executable, "-m", "raydistill", "prepare", "--config", str(config)]
    for num_kills in range(100):
        child = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        wait_s = chance.uniform(0.25, 1.0) * most_s
        try:
            if child.wait(timeout=wait_s) == 0:
                return num_kills
            raise SystemExit(f"prepare failed with {child.returncode}")
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            time.sleep(1)
    raise SystemExit("never finished: give more --kill-after seconds")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--judged", type=Path, required=True)
    parser.add_argument("--label", default="label")
    parser.add_argument("--shard-rows", type=int, default=65_536)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--kill-after", type=float, default=15, help="at most so many seconds")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-same"))
    given = parser.parse_args()
    folder = given.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "renamed").mkdir(parents=True)
    files = sorted(str(Path(name).absolute()) for name in glob.glob(given.pairs))
    renamed = []
    for at, file in enumerate(files):  # reverses the order of the names
        renamed.append(folder / "renamed" / f"{len(files) - at:05d}{''.join(Path(file).suffixes)}")
        renamed[-1].symlink_to(file)

    def config(name: str, inputs: list[str]) -> Path:
        path = folder / f"{name}.toml"
        path.write_text(
            RUN.format(
                folder=folder,
                name=name,
                inputs=json.dumps(inputs),
                shard_rows=given.shard_rows,
                judged=given.judged.absolute(),
                label=given.label,
            )
        )
        return path

    found: dict[str, str] = {}
    for num in given.workers:
        name = f"workers-{num}"
        path = str(config(name, files))
        subprocess.run([sys.executable, "-c", WITH_WORKERS, str(num), path], check=True)
        found[name] = digest(folder / name)
    path = str(config("renamed-run", [str(file) for file in renamed]))
    command = [sys.executable, "-m", "raydistill", "prepare", "--config"]
    subprocess.run([*command, path], check=True)
    found["files in reverse"] = digest(folder / "renamed-run")
    chance = random.Random(0)
    num_kills = run_killed(config("killed", files), chance=chance, most_s=given.kill_after)
    found[f"killed {num_kills} times"] = digest(folder / "killed")
    grown: dict[str, str] = {}
    for inputs in (files[::2], files):
        subprocess.run([*command, str(config("grown", inputs))], check=True)
    grown["an increment"] = digest(folder / "grown")
    num_kills = 0
    for inputs in (files[::2], files):
        path = config("grown-killed", inputs)
        num_kills += run_killed(path, chance=chance, most_s=given.kill_after)
    grown[f"an increment, killed {num_kills} times"] = digest(folder / "grown-killed")
    num_results = len(set(found.values())) + len(set(grown.values())) - 1
    found |= grown
    for name, value in found.items():
        print(f"{name:32}{value}")
    print(json.dumps({"bench": "same_bytes", "figures": {"num_results": num_results}}))


if __name__ == "__main__":
    main()
