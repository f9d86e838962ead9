"""`score` over files of made-up pairs, beside a plain read and write of the same files.

python tests/bench/score.py --bundle BUNDLE --pairs 10_000_000 --repeats 3

Makes files of a million pairs (id, query, title; with `--columns 10` seven more), then in turns:
`raydistill score` of them into a new folder, and a read and write of them by pyarrow in as many
processes as there are cores. At the end the command is killed with signal 9 when half of the pieces
are done, submitted again, and its outputs are compared with those of before, byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from raydistill.demo.shop import Shop  # noqa: E402 - the project is found by the line above
from raydistill.stages.scoring.text_rows import json_lines  # noqa: E402

FILE_ROWS = 1_000_000


def main() -> None:
    """Run the benchmark and print its figures."""
    given = _arguments()
    folder = Path(given.folder or tempfile.mkdtemp(prefix="score-"))
    source = folder / f"in-{given.kind}-{given.columns}"
    num_pairs = _make(source, given)
    rates: dict[str, list[float]] = {"score": [], "score_with_start": [], "plain": []}
    core_us: dict[str, list[float]] = {"score": [], "plain": []}
    for turn in range(given.repeats):
        output = folder / f"out-{turn}"
        shutil.rmtree(output, ignore_errors=True)
        start_s = time.monotonic()
        subprocess.run(_command(source, output, given), check=True)
        rates["score_with_start"].append(num_pairs / (time.monotonic() - start_s))
        rates["score"].append(num_pairs / _done(output)["seconds"])
        seconds, core_s = _plain(source, folder / "plain", given)
        rates["plain"].append(num_pairs / seconds)
        core_us["score"].append(_done(output)["core_us_per_pair"])
        core_us["plain"].append(1e6 * core_s / num_pairs)
    figures: dict[str, Any] = {}
    for name, values in rates.items() if given.repeats else ():
        figures[name] = round(statistics.median(values))
    for name, values in core_us.items() if given.repeats else ():
        figures[f"{name}_core_us"] = round(statistics.median(values), 2)
    figures |= {"pairs": num_pairs, "cores": os.cpu_count(), "format": given.kind}
    figures |= {"columns": given.columns, "ids_only": given.ids_only, "all": [rates, core_us]}
    if given.kill:
        figures |= _kill(source, folder / "killed", given, hashes=_hashes(folder / "out-0"))
    print(json.dumps({"bench": "score", "figures": figures}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--pairs", type=lambda text: int(text.replace("_", "")), default=10**7)
    parser.add_argument("--folder", help="default: a temporary one")
    parser.add_argument("--kind", choices=("parquet", "csv", "jsonl"), default="parquet")
    parser.add_argument("--columns", type=int, choices=(3, 10), default=3)
    parser.add_argument("--ids-only", action="store_true", help="write id and score alone")
    text = "0: with --kill, whose bytes are compared with those of an earlier command in the folder"
    parser.add_argument("--repeats", type=int, default=3, help=text)
    parser.add_argument("--kill", action="store_true", help="kill half way and submit again")
    return parser.parse_args()


def _command(source: Path, output: Path, given: argparse.Namespace) -> list[str]:
    return [
        *(sys.executable, "-m", "raydistill", "score", "--bundle", given.bundle),
        *("--input", str(source), "--output", str(output), "--format", given.kind),
        *(("--columns", "id") if given.ids_only else ()),
    ]


def _make(source: Path, given: argparse.Namespace) -> int:
    """Write the input files that are not there; returns the number of pairs."""
    source.mkdir(parents=True, exist_ok=True)
    shop: Shop | None = None
    for number in range(-(-given.pairs // FILE_ROWS)):
        path = source / f"part-{number:03d}.{given.kind}"
        if path.exists():
            continue
        shop = shop or Shop.build(seed=0)
        num_rows = min(FILE_ROWS, given.pairs - number * FILE_ROWS)
        table = _with_more(shop.transfer_pairs(number, num_rows=num_rows), number, given.columns)
        partial = path.with_suffix(".partial")
        _write(table, partial, given.kind)
        partial.rename(path)
    return int(given.pairs)


def _with_more(pairs: pa.Table, number: int, num_columns: int) -> pa.Table:
    """The pairs with ids, and with other columns as a catalogue has."""
    ids = pa.array(np.arange(pairs.num_rows) + number * FILE_ROWS)
    table = pairs.add_column(0, "id", ids)
    rng = np.random.default_rng(number)
    for at in range(num_columns - 3):
        drawn = rng.integers(0, 10**6, pairs.num_rows)
        values = pa.array(drawn if at % 2 else drawn / 100)
        table = table.append_column(f"more_{at}", values)
    return table


def _plain(source: Path, output: Path, given: argparse.Namespace) -> tuple[float, float]:
    """Seconds of a read and write of all files, a process a core, and seconds of the cores."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    files = [(path, output / path.name, given.kind) for path in sorted(source.iterdir())]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.map(_nothing, range(os.cpu_count() or 1))  # the start of the processes
        start_s = time.monotonic()
        core_s = sum(pool.starmap(_copy, files, chunksize=1))
        return time.monotonic() - start_s, core_s


def _nothing(_: int) -> None:
    time.sleep(0.2)


def _copy(source: Path, target: Path, kind: str) -> float:
    """Read a file and write it; returns the seconds of the core."""
    pa.set_cpu_count(1)
    start_s = time.process_time()
    if kind == "parquet":
        with pq.ParquetFile(source) as file, pq.ParquetWriter(target, file.schema_arrow) as writer:
            for batch in file.iter_batches(batch_size=131_072):
                writer.write_batch(batch)
    else:
        read = pacsv.read_csv if kind == "csv" else pajson.read_json
        _write(read(source), target, kind)
    return time.process_time() - start_s


def _write(table: pa.Table, path: Path, kind: str) -> None:
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=131_072)
    elif kind == "csv":
        pacsv.write_csv(table, path)
    else:
        path.write_bytes(json_lines(table))


def _kill(
    source: Path, output: Path, given: argparse.Namespace, *, hashes: dict[str, str]
) -> dict[str, Any]:
    """Kill the command half way and submit it again; what of its outputs is as without a kill."""
    shutil.rmtree(output, ignore_errors=True)
    driver = subprocess.Popen(_command(source, output, given))
    _wait_for(lambda: (output / "_plan.json").exists(), driver)
    num_items = len(json.loads((output / "_plan.json").read_bytes())["items"])
    _wait_for(lambda: len(list((output / "_done").glob("*.json"))) >= num_items // 2, driver)
    driver.kill()
    driver.wait()
    time.sleep(2)  # Ray's processes notice that
    kept = {path: path.stat().st_mtime_ns for path in (output / "_done").glob("*.json")}
    subprocess.run(_command(source, output, given), check=True)
    scored_again = sum(path.stat().st_mtime_ns != ns for path, ns in kept.items())
    return {
        "pieces": num_items,
        "done_before_the_kill": len(kept),
        "scored_again": scored_again,
        "same_bytes": _hashes(output) == hashes,
    }


def _wait_for(is_due: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
    while not is_due():
        if driver.poll() is not None:
            raise RuntimeError(f"score ended with {driver.returncode} before it was killed")
        time.sleep(0.01)


def _done(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / "_SUCCESS.json").read_bytes()))


def _hashes(output: Path) -> dict[str, str]:
    found = {}
    for name in _done(output)["outputs"]:
        with (output / name).open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


if __name__ == "__main__":
    main()
