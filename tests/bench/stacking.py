"""The effect of several teachers and of the temperature on the student, on unseen queries.

    python tests/bench/stacking.py --config RUN.TOML --temperatures 1 2 4 3.1

The run is prepared and labeled by two or more teachers. Students of each teacher, of their mean and
of the fitted stack, with soft labels at each temperature and with the loss on logits, are trained
by `fit_student` on the same pairs with each seed, one process a core, one thread each. Metrics are
those of the report, on the test split, for the weights that are best on dev.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from students import metrics_of, some_shards

from raydistill.config.loading import load_config
from raydistill.runs.run_folder import Run
from raydistill.search.space import Settings, with_settings
from raydistill.stages.evaluation.scorers import teacher_scores
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.stages.measured import entry_of
from raydistill.student.fit import StudentFit
from raydistill.teachers.judged_logits import fitted_stack, read_judged, stack_of, targets_of

METRICS = ("auc", "accuracy", "log_loss", "ece")


def students(run: Run, *, temperatures: list[float]) -> Iterator[tuple[str, str, Settings]]:
    """Name of the stack, name of the loss, and settings of each student."""
    names = list(run.config.teachers)
    fitted = fitted_stack(run)
    stacks: dict[str, tuple[dict[str, float], float]] = {
        name: ({other: float(other == name) for other in names}, 0.0) for name in names
    }
    stacks["mean"] = dict.fromkeys(names, 1.0), 0.0
    stacks["fitted"] = fitted.weights, fitted.bias
    for stack, (weights, bias) in stacks.items():
        given: Settings = {"soft_labels.weights": weights, "soft_labels.bias": bias}
        yield stack, "logits", {**given, "train.target": "logit"}
        for temperature in temperatures:
            soft = {"train.target": "probability", "soft_labels.temperature": temperature}
            yield stack, f"temperature {temperature:g}", {**given, **soft}


def fit(task: tuple[str, Settings, int, int, int]) -> dict[str, Any]:
    """One student and its metrics on the test split."""
    path, settings, seed, epochs, num_pairs = task
    base = Run(load_config(path))
    config = with_settings(base.config, {**settings, "train.seed": seed, "train.epochs": epochs})
    run = replace(base, config=config)
    targets = targets_of(run, stack_of(run))
    shards = some_shards(run, num_pairs)
    return metrics_of(StudentFit(run, "student", run.pairs, shards, targets, epochs))


def teachers(run: Run) -> None:
    """Print the rows of the teachers."""
    labels = {split: read_judged(run, split).labels_B for split in ("dev", "test")}
    for name, scores in teacher_scores(run, fitted_stack(run)).items():
        entry = entry_of(run, scores, labels)
        print(f"| {name} | {' | '.join(f'{entry[m]:.4f}' for m in METRICS)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--pairs", type=int, default=10**12)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    run = Run(load_config(arguments.config))
    write_lexicon(run)
    teachers(run)
    print(json.dumps(fitted_stack(run).to_dict()), flush=True)
    rows = list(students(run, temperatures=arguments.temperatures))
    tasks = [
        (arguments.config, settings, seed, arguments.epochs, arguments.pairs)
        for _, _, settings in rows
        for seed in range(arguments.seeds)
    ]
    figures, start_s = [], time.monotonic()
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        found = pool.imap(fit, tasks)
        for stack, loss, _ in rows:
            entries = [next(found) for _ in range(arguments.seeds)]
            values = {m: np.array([entry[m] for entry in entries]) for m in METRICS}
            cells = [f"{v.mean():.4f} +- {v.std(ddof=1):.4f}" for v in values.values()]
            print(f"| {stack} | {loss} | {' | '.join(cells)} |", flush=True)
            figures.append({"stack": stack, "loss": loss, "entries": entries})
    seconds = round(time.monotonic() - start_s)
    print(json.dumps({"bench": "stacking", "seconds": seconds, "figures": figures}))


if __name__ == "__main__":
    main()
