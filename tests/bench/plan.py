"""Plan a run, run it, and compare: seconds of each stage, shards, output bytes.

    raydistill synthesize --output runs/shop --pairs 20000 --judged 6000
    python tests/bench/plan.py --config jobs/demo.toml --folder runs/planned --set finetune.epochs=1

The plan is made before anything is prepared; stages that only a finished run tells are left out.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from raydistill.config.loading import load_config
from raydistill.runs.run_folder import Run
from raydistill.stages.planning.stage_times import finished_stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--folder", required=True, help="the run folder; deleted first")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--again", action="store_true", help="compare a run that is finished")
    given = parser.parse_args()
    folder = Path(given.folder).absolute()
    sets = [f"run_dir={folder}", *given.overrides]
    options = ["--config", given.config, *(word for one in sets for word in ("--set", one))]
    if not given.again:
        shutil.rmtree(folder, ignore_errors=True)
        (folder.parent).mkdir(parents=True, exist_ok=True)
        text = command("plan", *options, "--json")
        folder.with_suffix(".plan.json").write_text(text)
        command("distill", *options)
    plan = json.loads(folder.with_suffix(".plan.json").read_text())
    run = Run(load_config(given.config, overlays=[], overrides=sets))
    show(plan, run)


def command(*arguments: str) -> str:
    whole = [sys.executable, "-m", "raydistill", *arguments]
    return subprocess.run(whole, check=True, stdout=subprocess.PIPE, text=True).stdout


def show(plan: dict[str, Any], run: Run) -> None:
    """A table of planned and real figures, and the ratios planned / real."""
    planned = {one["stage"]: one["seconds"] for one in plan["plans"][-1]["stages"]}
    real: dict[str, float] = {}
    for name, done in finished_stages(run).items():
        stage = "prepare" if name.startswith("prepare") else name
        real[stage] = real.get(stage, 0.0) + done["seconds"]
    ratios = {}
    print(f"{'':<18} {'planned':>9} {'real':>9} {'planned / real':>15}")
    for stage, seconds in planned.items():
        if seconds is not None and real.get(stage):
            ratios[f"{stage.replace(' ', '_')}_ratio"] = seconds / real[stage]
            print(
                f"{stage:<18} {seconds:7.1f} s {real[stage]:7.1f} s {seconds / real[stage]:15.2f}"
            )
    counts = {
        "pairs": (plan["sizes"]["num_pairs"], (run.pairs.success() or {})["rows_out"]),
        "shards": (plan["sizes"]["num_shards"], len(run.pairs.shards())),
        "bytes": (sum(plan["output_bytes"].values()), output_bytes(run)),
    }
    for name, (wanted, found) in counts.items():
        ratios[f"{name}_ratio"] = wanted / found
        print(f"{name:<18} {wanted:9,.0f} {found:9,.0f} {wanted / found:15.2f}")
    print(json.dumps({"bench": "plan", "figures": ratios}))


def output_bytes(run: Run) -> int:
    """The bytes of pairs and logits."""
    root = Path(run.root.uri)
    return sum(p.stat().st_size for name in ("pairs", "logits")
               for p in (root / name).rglob("*.parquet"))  # fmt: skip


if __name__ == "__main__":
    main()
