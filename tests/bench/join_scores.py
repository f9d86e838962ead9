"""Pairs a second and memory of joining scores from files to the pairs of a run.

python tests/bench/join_scores.py --pairs 10_000_000 --scores 1_000_000

Made-up texts, 20 titles a query; the scores are of random pairs, in one Parquet file. The seconds
are those of making the index and of looking all shards up; prepare is not counted.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from job import sample

FILE_ROWS = 500_000
TITLES = 20  # a query
RUN = """
run_dir = "{folder}/run-{num}"
[pairs]
input = "{folder}/raw-{num}/*.parquet"
[judged]
input = "{folder}/judged.parquet"
[teachers.llm]
scores = "{folder}/scores-{num}.parquet"
[trees]
enabled = false
"""


def texts(rows: np.ndarray) -> dict[str, pa.Array]:
    queries = [f"query {row // TITLES} of a made-up shop" for row in rows.tolist()]
    titles = [f"a title of {row} with some more words, as products have" for row in rows.tolist()]
    return {"query": pa.array(queries), "title": pa.array(titles)}


def make_files(folder: Path, *, num: int, num_scores: int) -> None:
    target, rng = folder / f"raw-{num}", np.random.default_rng(0)
    target.mkdir(parents=True, exist_ok=True)
    for at in range(0, num, FILE_ROWS):
        rows = np.arange(at, min(at + FILE_ROWS, num))
        pq.write_table(pa.table(texts(rows)), target / f"part-{at:010d}.parquet")
    judged = np.arange(num, num + 4_000)
    labels = {"label": rng.integers(0, 2, len(judged)).astype(float)}
    pq.write_table(pa.table({**texts(judged), **labels}), folder / "judged.parquet")
    scored = rng.choice(num, num_scores, replace=False)
    score = {"score": rng.random(num_scores)}
    pq.write_table(pa.table({**texts(scored), **score}), folder / f"scores-{num}.parquet")


def run(stage: str, config: Path) -> tuple[float, dict[str, int]]:
    """Seconds of a stage, and the peak memory of its processes by kind, in bytes."""
    child = subprocess.Popen([sys.executable, "-m", "raydistill", stage, "--config", str(config)])
    root, peaks, start_s = psutil.Process(child.pid), dict[str, int](), time.monotonic()
    driver = f"{root.name()} {root.pid}"
    while child.poll() is None:
        for name, size in sample(root).items():
            kind = "driver" if name == driver else "worker" if name.startswith("ray::") else "ray"
            peaks[kind] = max(peaks.get(kind, 0), size)
        time.sleep(0.5)
    if child.returncode:
        raise SystemExit(child.returncode)
    return time.monotonic() - start_s, peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    count = {"type": lambda text: int(text.replace("_", ""))}
    parser.add_argument("--pairs", default=10_000_000, **count)
    parser.add_argument("--scores", default=1_000_000, **count)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-join-scores"))
    given = parser.parse_args()
    folder, num = given.folder.absolute(), given.pairs
    config = folder / f"run-{num}.toml"
    if not (folder / f"run-{num}" / "pairs" / "_SUCCESS.json").exists():
        make_files(folder, num=num, num_scores=given.scores)
        config.write_text(RUN.format(folder=folder, num=num))
        run("prepare", config)
    wall_s, peaks = run("label", config)
    (index,) = (folder / f"run-{num}" / "teachers").glob("llm-*/_SUCCESS.json")
    (logits,) = (folder / f"run-{num}" / "logits").glob("llm-*/_SUCCESS.json")
    made, joined = json.loads(index.read_text()), json.loads(logits.read_text())
    figures = {
        "num_pairs": joined["rows_in"],
        "num_scored": joined["rows_in"] - joined["absent"],
        "num_unmatched": joined["unmatched"],
        "index_s": made["seconds"],
        "join_s": joined["seconds"],
        "pairs_per_s": round(joined["rows_in"] / (made["seconds"] + joined["seconds"])),
        "wall_s": round(wall_s, 1),
        **{f"{kind}_mb": round(size / 2**20) for kind, size in sorted(peaks.items())},
    }
    for name, value in figures.items():
        print(f"{name:16}{value:>14,}")
    print(json.dumps({"bench": "join_scores", "figures": figures}))


if __name__ == "__main__":
    main()
