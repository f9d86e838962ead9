"""Distilled student against the baseline on judged labels only, by number of judged pairs.

    python tests/bench/judged_sizes.py --config RUN.TOML --output FOLDER \
        --sizes 2000 5000 20000 --epochs 8 5 3

RUN is prepared. For each size, a BERT (fine-tuned for the given epochs) and the trees are fitted on
that many judged pairs of random queries; dev and test are RUN's. They label the same share of the
transfer pairs, drawn over all queries. Then students with the same features are fitted with each
seed, on one core each: on the soft labels of the stack, on those of the BERT, and on the judged
pairs alone (10 epochs). Metrics are those of the weights that are best on dev. For all judged pairs
use `raydistill evaluate --curve` with RUN.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from students import metrics_of

from raydistill.config.loading import load_config
from raydistill.config.run_config import RunConfig
from raydistill.evaluation.learning_curve import in_share
from raydistill.runs.run_folder import Run
from raydistill.search.space import with_settings
from raydistill.stages.evaluation.scorers import teacher_scores
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.stages.measured import entry_of
from raydistill.student.fit_files import student_fit
from raydistill.teachers.judged_logits import read_judged

METRICS = ("auc", "accuracy", "log_loss")
_COLUMNS = ["query", "title", "label"]
WAYS: dict[str, tuple[str, dict[str, Any]]] = {  # role and settings of each student
    "student": ("student", {}),
    "student of the BERT alone": ("student", {"trees.enabled": False}),
    "baseline on judged labels only": ("judged_only", {}),
}


def cut(run: Run, *, size: int, epochs: int, percent: float, folder: Path) -> Path:
    """Write the inputs of a run like `run` with `size` judged train pairs; its run file."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = []
    for split in ("train", "dev", "test"):
        judged = run.judged(split)
        rows = pa.concat_tables([judged.read_table(n, columns=_COLUMNS) for n in judged.shards()])
        pq.write_table(
            some_queries(rows, size) if split == "train" else rows, folder / f"{split}.parquet"
        )
        inputs.append({"path": str(folder / f"{split}.parquet"), "split": split})
    pq.write_table(some_pairs(run, percent), folder / "pairs.parquet")
    given = run.config.model_dump(mode="json", exclude_none=True)
    given["run_dir"] = str(folder / "run")
    given["pairs"] |= {"input": [str(folder / "pairs.parquet")], "query": "query", "title": "title"}
    given["judged"] |= {"input": inputs, "query": "query", "title": "title", "label": "label"}
    given["finetune"]["epochs"] = epochs
    file = folder / "run.toml"
    file.write_text(RunConfig.model_validate(given).to_toml())
    return file


def some_pairs(run: Run, percent: float) -> pa.Table:
    """The transfer pairs whose id is in the lowest share, as in `evaluate --curve`."""
    parts = []
    for name in run.pairs.shards():
        rows = run.pairs.read_table(name, columns=["query", "title", "pair_id"])
        parts.append(rows.filter(pa.array(in_share(rows["pair_id"].to_numpy(), percent / 100))))
    return pa.concat_tables(parts)


def some_queries(rows: pa.Table, size: int) -> pa.Table:
    """`size` pairs of random queries; some pairs of the last query may be missing."""
    queries = np.random.default_rng(0).permutation(pc.unique(rows["query"]).to_pylist())
    place = {query: at for at, query in enumerate(queries.tolist())}
    places = np.array([place[query] for query in rows["query"].to_pylist()])
    return rows.take(pa.array(np.argsort(places, kind="stable")[:size]))


def fit(task: tuple[str, str, int]) -> dict[str, Any]:
    """One student and its metrics."""
    path, way, seed = task
    base = Run(load_config(path))
    role, settings = WAYS[way]
    run = replace(base, config=with_settings(base.config, {"train.seed": seed, **settings}))
    return metrics_of(student_fit(run, role))


def teacher_entries(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Metrics of the teachers and of their stack."""
    labels = {split: read_judged(run, split).labels_B for split in ("dev", "test")}
    found = teacher_scores(run)
    return {name: [entry_of(run, scores, labels)] for name, scores in found.items()}


def compare(path: str, *, seeds: int) -> dict[str, Any]:
    """Metrics of the teachers, and of the students with each seed."""
    run = Run(load_config(path))
    write_lexicon(run)
    tasks = [(path, way, seed) for way in WAYS for seed in range(seeds)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        found = pool.map(fit, tasks, chunksize=1)
    by_way = {way: found[at * seeds : (at + 1) * seeds] for at, way in enumerate(WAYS)}
    return {**teacher_entries(run), **by_way}


def table_rows(size: int, found: dict[str, Any]) -> list[str]:
    """Lines of the table: teachers, then students."""
    lines = []
    for name, entries in found.items():
        values = [np.array([entry[m] for entry in entries]) for m in METRICS]
        cells = [
            f"{v.mean():.4f}" + (f" +- {v.std(ddof=1):.4f}" if len(v) > 1 else "") for v in values
        ]
        lines.append(f"| {size:,} | {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 5_000, 20_000])
    parser.add_argument("--epochs", type=int, nargs="+", default=[8, 5, 3])
    parser.add_argument("--percent", type=float, default=10, help="of the transfer pairs")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    run, figures = Run(load_config(arguments.config)), {}
    for size, epochs in zip(arguments.sizes, arguments.epochs, strict=True):
        folder = arguments.output / str(size)
        file = cut(run, size=size, epochs=epochs, percent=arguments.percent, folder=folder)
        for stage in ("prepare", "finetune", "label"):
            command = [sys.executable, "-m", "raydistill", stage, "--config", str(file)]
            subprocess.run(command, check=True)
        figures[size] = compare(str(file), seeds=arguments.seeds)
        print("\n".join(table_rows(size, figures[size])), flush=True)
    print(json.dumps({"bench": "judged_sizes", "figures": figures}))


if __name__ == "__main__":
    main()
