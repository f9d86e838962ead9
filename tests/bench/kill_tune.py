"""`tune` under kill -9 of its driver while trials run: finished trials must be kept.

python tests/bench/kill_tune.py --run RUN_FOLDER --kills 2

RUN_FOLDER is prepared and labeled; its tune/ is written. A small search is started, killed when at
least two more trials have finished, and started again; the last start runs to its end. Every trial
that is finished in the saved state after a kill must be in trials.parquet with the same metric.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq

SETTINGS = [
    'tune.space={"soft_labels.temperature" = {low = 0.5, high = 8.0, log = true}, '
    '"train.seed" = {low = 0, high = 999}}',
    *("tune.sample_pairs=5000", "tune.max_epochs=1", "tune.num_final=1", "tune.final_seeds=1"),
    *("train.epochs=1", "student.hidden=[16]", "student.embedding_dim=8", "ngrams.hash_bits=12"),
]


def finished(run: Path) -> dict[str, float]:
    """Log loss of each trial that is finished in the newest saved state."""
    states = sorted(run.glob("tune/search/*/experiment_state-*.json"), key=os.path.getmtime)
    found = {}
    for one in states[-1:]:
        for text, metadata in json.loads(one.read_text())["trial_data"]:
            trial = json.loads(text)
            if trial["status"] == "TERMINATED":
                found[trial["trial_id"]] = json.loads(metadata)["last_result"]["log_loss"]
    return found


def start(run: Path, num_trials: int) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "raydistill",
        "tune",
        "--config",
        str(run / "run.toml"),
    ]
    settings = [f"run_dir={run}", f"tune.num_trials={num_trials}", *SETTINGS]
    for setting in settings:
        command += ["--set", setting]
    return subprocess.Popen(command)


def kill(driver: subprocess.Popen) -> None:
    """Kill the driver first, then its descendants."""
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    for process in family:
        try:
            process.kill()
        except psutil.Error:
            continue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--trials", type=int, default=12)
    arguments = parser.parse_args()
    run, kept = arguments.run.absolute(), {}
    for _ in range(arguments.kills):
        driver = start(run, arguments.trials)
        while len(finished(run)) < len(kept) + 2 and driver.poll() is None:
            time.sleep(0.2)
        kill(driver)
        kept |= finished(run)
        print(f"killed with {len(kept)} trials finished", flush=True)
    assert start(run, arguments.trials).wait() == 0
    rows = {row["name"]: row for row in pq.read_table(run / "tune" / "trials.parquet").to_pylist()}
    lost = [name for name, loss in kept.items() if rows.get(name, {}).get("log_loss") != loss]
    print(json.dumps({"bench": "kill_tune", "figures": {
        "kills": arguments.kills, "finished_before_kills": len(kept), "lost": len(lost),
        "trials": len(rows)}}))  # fmt: skip
    assert not lost and len(rows) == arguments.trials, (lost, len(rows))


if __name__ == "__main__":
    main()
