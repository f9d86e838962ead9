"""Pairs a second and memory of prepare on a made-up log, against DuckDB.

python tests/bench/prepare.py --pairs 10_000_000 --rounds 3     (DuckDB: pip install duckdb)

Interleaved rounds, medians. Seconds are those of the stage, from _SUCCESS.json; for DuckDB those of
its query, with the same cleaning but NFC in place of NFKC and no entities, grouped, not sorted.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
from job import sample

from raydistill.demo.shop import Shop

FILE_ROWS = 250_000
RUN = """
run_dir = "{folder}/run"
[pairs]
input = "{folder}/raw-{num}/*.parquet"
[judged]
input = "{folder}/judged.parquet"
[teachers.none]
model = "{folder}"
"""
SQL = """
SET threads = {threads}; SET preserve_insertion_order = false;
COPY (
  SELECT hash(query, title) AS pair_id, query, title, count(*)::FLOAT AS weight FROM (
    SELECT {query} AS query, {title} AS title FROM read_parquet('{folder}/raw-{num}/*.parquet')
  ) WHERE query <> '' AND title <> '' AND length(query) <= 200 AND length(title) <= 1000
  GROUP BY query, title
) TO '{folder}/duckdb.parquet' (FORMAT parquet, COMPRESSION zstd);
"""
CLEAN = r"trim(regexp_replace(nfc_normalize({0}), '\s+', ' ', 'g'))"


def make_log(folder: Path, *, num: int) -> None:
    """Write `num` pairs of a shop of 400,000 products; among 10^7, one in seven is a duplicate."""
    target = folder / f"raw-{num}"
    if (target / "done").exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    shop = Shop.build(num_products=400_000, num_queries=120_000)
    pq.write_table(shop.judged_pairs(num_rows=4_000), folder / "judged.parquet")
    for at in range(-(-num // FILE_ROWS)):
        rows = min(FILE_ROWS, num - at * FILE_ROWS)
        pq.write_table(shop.transfer_pairs(at, num_rows=rows), target / f"part-{at:05d}.parquet")
    (target / "done").touch()


def watch(command: list[str]) -> dict[str, int]:
    """Run a command; the peak memory of each of its processes, in bytes."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    root, peaks = psutil.Process(child.pid), dict[str, int]()
    while child.poll() is None:
        for name, size in sample(root).items():
            peaks[name] = max(peaks.get(name, 0), size)
        time.sleep(0.5)
    if child.returncode:
        raise SystemExit(child.stderr.read().decode() if child.stderr else "")
    return peaks


def prepare(folder: Path, *, num: int, dedupe: bool) -> dict[str, float]:
    shutil.rmtree(folder / "run", ignore_errors=True)
    (folder / "run.toml").write_text(RUN.format(folder=folder, num=num))
    start_s = time.perf_counter()
    command = [sys.executable, "-m", "raydistill", "prepare"]
    command += ["--config", str(folder / "run.toml")]
    peaks = watch([*command, "--set", f"pairs.dedupe={str(dedupe).lower()}"])
    wall_s = time.perf_counter() - start_s
    done = json.loads((folder / "run" / "pairs" / "_SUCCESS.json").read_text())
    size = sum(p.stat().st_size for p in (folder / "run" / "pairs").glob("*.parquet"))
    return {
        "pairs_per_s": num / done["seconds"],
        "wall_s": wall_s,
        "largest_mb": max(peaks.values()) / 2**20,
        "bytes_a_pair": size / done["rows_out"],
        "rows_out": done["rows_out"],
    }


def duckdb(folder: Path, *, num: int) -> dict[str, float]:
    fields = {name: CLEAN.format(name) for name in ("query", "title")}
    sql = SQL.format(folder=folder, num=num, threads=os.cpu_count(), **fields)
    start_s = time.perf_counter()
    peaks = watch([sys.executable, "-c", f"import duckdb; duckdb.sql({sql!r})"])
    wall_s = time.perf_counter() - start_s
    num_rows = pq.read_metadata(folder / "duckdb.parquet").num_rows
    return {
        "pairs_per_s": num / wall_s,
        "wall_s": wall_s,
        "largest_mb": max(peaks.values()) / 2**20,
        "bytes_a_pair": (folder / "duckdb.parquet").stat().st_size / num_rows,
        "rows_out": num_rows,
    }


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=lambda text: int(text.replace("_", "")), default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-prepare"))
    arguments = parser.parse_args()
    folder, num = arguments.folder.absolute(), arguments.pairs
    sizes = (num // 10, num)
    for size in sizes:
        make_log(folder, num=size)
    ways = {
        f"dedupe, {sizes[0]:,}": lambda: prepare(folder, num=sizes[0], dedupe=True),
        f"dedupe, {num:,}": lambda: prepare(folder, num=num, dedupe=True),
        f"no dedupe, {num:,}": lambda: prepare(folder, num=num, dedupe=False),
    }
    try:
        import duckdb as library

        print("DuckDB", library.__version__)
        ways[f"DuckDB, {num:,}"] = lambda: duckdb(folder, num=num)
    except ImportError:
        print("no DuckDB here: not compared")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            runs[name].append(way())
            print(name, {key: round(value, 1) for key, value in runs[name][-1].items()}, flush=True)
    found = {name: median(those) for name, those in runs.items()}
    print(f"\n{'':26}{'pairs/s':>12}{'wall s':>9}{'largest MB':>12}{'bytes/pair':>12}{'out':>12}")
    for name, one in found.items():
        print(
            f"{name:26}{one['pairs_per_s']:12,.0f}{one['wall_s']:9.1f}{one['largest_mb']:12,.0f}"
            f"{one['bytes_a_pair']:12.1f}{one['rows_out']:12,.0f}"
        )
    small, full, streamed = (found[name] for name in list(ways)[:3])
    figures = {
        "pairs_per_s_dedupe": round(full["pairs_per_s"]),
        "pairs_per_s": round(streamed["pairs_per_s"]),
        "bytes_a_pair": round(full["bytes_a_pair"], 1),
        "largest_mb": round(full["largest_mb"]),
        "largest_mb_of_a_tenth": round(small["largest_mb"]),
    }
    if f"DuckDB, {num:,}" in found:
        # Wall time of complete jobs, with the start of Ray and of DuckDB.
        figures["vs_duckdb"] = round(found[f"DuckDB, {num:,}"]["wall_s"] / full["wall_s"], 2)
    print(json.dumps({"bench": "prepare", "figures": figures}))


if __name__ == "__main__":
    main()
