"""Wall time and memory of a search: 50 trials on 100,000 pairs on 2 cores.

python tests/bench/tune.py --run RUN_FOLDER            a run that is prepared and labeled
python tests/bench/tune.py --run RUN_FOLDER --trials 12 --pairs 20000 --epochs 1

The trials run in `stages/search.py`, as in `raydistill tune`; final fits are skipped. Overhead a
trial: (wall x cores - seconds inside trials) / trials; it includes start-up of actors, steps of the
driver and idle cores. Memory is sampled every 2 s: the driver, Ray's GCS, the largest trial actor,
and the bytes used in the object store.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from raydistill.cluster.connection import connect
from raydistill.cluster.tune_trials import search
from raydistill.config.loading import load_config
from raydistill.files.folder import Folder
from raydistill.runs.run_folder import Run
from raydistill.stages.tune import search_context

SPACE = (
    '{"soft_labels.temperature" = {low = 0.5, high = 8.0, log = true}, '
    '"train.learning_rate" = {low = 0.002, high = 0.05, log = true}, '
    '"train.batch_rows" = {choices = [128, 256]}, '
    '"student.dropout" = {low = 0.0, high = 0.3}, '
    '"student.embedding_dim" = {choices = [32, 64]}, '
    '"student.hidden" = {choices = [[1024, 512, 128, 64], [512, 128, 64], [256, 64]]}, '
    '"ngrams.preset" = {choices = ["match", "bert2dnn"]}}'
)


class Memory:
    """Samples every 2 s the memory of driver, GCS, largest trial actor and object store."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(2.0):
            self.rows.append(self.look())

    @staticmethod
    def look() -> dict[str, float]:
        """The current memory of each, in MiB."""
        me = psutil.Process()
        found = {"s": time.monotonic(), "driver": me.memory_info().rss, "gcs": 0.0, "trials": 0.0}
        for child in me.children(recursive=True):
            try:
                name = " ".join(child.cmdline()[:1])
                rss = child.memory_info().rss
            except psutil.Error:
                continue
            if "gcs_server" in name:
                found["gcs"] += rss
            elif "ImplicitFunc" in name or "_trial" in name:
                found["trials"] = max(found["trials"], rss)
        found["store"] = store_bytes()
        return {
            key: value if key == "s" else round(value / 2**20, 1) for key, value in found.items()
        }

    def end(self) -> list[dict[str, float]]:
        self._over.set()
        self._thread.join()
        return self.rows


def store_bytes() -> float:
    """Bytes used in the object store, from Ray's memory info."""
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address
    from ray._private.worker import global_worker

    reply = get_memory_info_reply(get_state_from_address(global_worker.node.gcs_address))
    return float(reply.store_stats.object_store_bytes_used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="a run folder, prepared and labeled")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    config = load_config(
        f"{arguments.run}/run.toml",
        overrides=[
            f"run_dir={Path(arguments.run).absolute()}",
            f"tune.space={SPACE}",
            f"tune.num_trials={arguments.trials}",
            f"tune.sample_pairs={arguments.pairs}",
            f"tune.max_epochs={arguments.epochs}",
        ],
    )
    load_before = os.getloadavg()[0]
    cluster = connect(config.cluster)
    task = search_context(Run(config))
    start_s, memory = time.monotonic(), Memory()
    with tempfile.TemporaryDirectory() as folder:
        trials = search(task, cluster, storage=Folder(folder), name="bench")
    wall_s, rows = time.monotonic() - start_s, memory.end()
    report(trials, rows, wall_s=wall_s, cores=cluster.num_cores, load=load_before)


def report(trials, rows, *, wall_s: float, cores: int, load: float) -> None:  # noqa: ANN001
    inside_s = sum(trial.seconds for trial in trials)
    quarter = max(1, len(rows) // 4)
    start, end = rows[quarter : 2 * quarter] or rows, rows[-quarter:]
    figures = {
        "num_trials": len(trials),
        "states": {s: sum(t.state == s for t in trials) for s in {t.state for t in trials}},
        "wall_s": round(wall_s, 1),
        "trial_s_median": round(float(np.median([trial.seconds for trial in trials])), 1),
        "pairs_trained": sum(trial.metrics.get("pairs", 0) for trial in trials),
        "overhead_s_per_trial": round((wall_s * cores - inside_s) / len(trials), 2),
        "load_before": round(load, 1),
    }
    for name in ("driver", "gcs", "trials", "store"):
        early, late = (float(np.median([row[name] for row in some])) for some in (start, end))
        figures |= {f"{name}_mb_second_quarter": early, f"{name}_mb_last_quarter": late}
    for name, value in figures.items():
        print(f"{name:<28} {value}")
    print(json.dumps({"bench": "tune", "figures": figures}))


if __name__ == "__main__":
    main()
