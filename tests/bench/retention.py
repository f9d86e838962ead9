"""What students of several seeds retain of the teachers, with intervals over queries.

    python tests/bench/retention.py --config RUN.TOML --output FOLDER --seeds 3

RUN is labeled and has judged pairs; it is only read. Students and baselines on judged labels only
are fitted with each seed, one core each; FOLDER keeps their scores, so that a second call only
measures. Output: each metric of teachers, student and baseline (mean of the seeds), retention and
differences with 95 % intervals. A resample draws queries, the same for every scorer and seed, and
takes the mean over the seeds: the interval is that of these students, over queries. The difference
to the baseline is given with the spread of new seeds too, as the verdict of `tune` has it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prepared import rows_of
from scipy.special import expit
from students import fitted

from raydistill.config.loading import load_config
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.evaluation.metrics.resampling import Resampled
from raydistill.evaluation.metrics.thresholds import best_threshold
from raydistill.evaluation.scoreboard.intervals import (
    difference_figures,
    metric_figures,
    retention_figures,
)
from raydistill.evaluation.scoreboard.scoreboard import Measurements
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import Run
from raydistill.search.space import with_settings
from raydistill.search.verdict import gain_of
from raydistill.stages.evaluation.scorers import reference_of, teacher_scores
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.student.batches import Loader
from raydistill.student.fit_files import student_fit
from raydistill.student.network import predict
from raydistill.teachers.judged_logits import read_judged
from raydistill.teachers.soft_labels import Targets

ROLES = {"student": "student", "judged_only": "baseline on judged labels only"}
SPLITS = ("dev", "test")
Scores = dict[str, NDArray[np.float32]]


def fit(task: tuple[str, str, str, int]) -> None:
    """Fit a student and write its scores of dev and test."""
    path, output, role, seed = task
    file = Path(output) / f"{role}-{seed}.npz"
    if file.exists():
        return
    base = Run(load_config(path))
    run = replace(base, config=with_settings(base.config, {"train.seed": seed}))
    one, lexicon, scores = student_fit(run, role), load_lexicon(run), {}
    student = fitted(one)
    for split in SPLITS:
        judged = Loader(run.judged(split), Targets(), spec=one.spec, lexicon=lexicon)
        features = judged.read_all(rows_of(judged.folder))[0]
        logits = predict(student, features, device="cpu")
        scores[split] = expit(logits * np.float32(one.targets.temperature))
    np.savez(file, **scores)  # type: ignore[arg-type]


def scored_pairs(run: Run, scored: Mapping[str, Scores]) -> ScoredPairs:
    """The test pairs, with thresholds of dev."""
    judged = {split: read_judged(run, split) for split in SPLITS}
    at = run.config.judged_rules.relevant_at
    thresholds = {
        name: best_threshold(scores["dev"], judged["dev"].labels_B, relevant_at=at)
        for name, scores in scored.items()
    }
    test = judged["test"]
    tests = {name: scores["test"] for name, scores in scored.items()}
    return ScoredPairs(test.labels_B, test.groups_B, at, tests, thresholds)


def mean(seeds: list[Resampled]) -> Resampled:
    """The mean over the seeds, of the value and of each resample."""
    keys = seeds[0].value
    return Resampled(
        {key: float(np.mean([one.value[key] for one in seeds])) for key in keys},
        {key: np.mean([one.resampled[key] for one in seeds], axis=0) for key in keys},
    )


def cell(figure: Mapping[str, float | None] | None, write: Callable[[float], str]) -> str:
    if figure is None or figure["value"] is None:
        return ""
    text = write(figure["value"])
    if figure["low"] is not None and figure["high"] is not None:
        text += f" ({write(figure['low'])} to {write(figure['high'])})"
    p = figure.get("p")
    return text if p is None else f"{text}, p {p:.3f}"


def measure(scored: ScoredPairs, *, teacher: str, num_seeds: int, draws: Draws) -> dict[str, Any]:
    """Metrics, retention and differences of teachers and of the mean students."""
    found, keys = Measurements(scored, draws=draws), list(METRICS)
    students = {
        name: [found.alone(f"{name} {seed}") for seed in range(num_seeds)]
        for name in ROLES.values()
    }
    means = {name: mean(seeds) for name, seeds in students.items()}
    teachers = {name: found.alone(name) for name in scored.scores if name.startswith("teacher")}
    every = {**teachers, **means}
    spread = {
        name: {key: float(np.std([one.value[key] for one in seeds], ddof=1)) for key in keys}
        for name, seeds in students.items()
    }
    student = means["student"]
    own, baseline = ROLES.values()
    new_seeds = {
        key: asdict(
            gain_of(
                *(np.array([one.value[key] for one in students[name]]) for name in (own, baseline)),
                means[own].resampled[key] - means[baseline].resampled[key],
                num_queries=scored.num_queries,
            )
        )
        for key in keys
    }
    return {
        "metrics": {name: metric_figures(one, keys) for name, one in every.items()},
        "deviation": spread,
        "retention": {
            name: retention_figures(one, teachers[teacher], keys) for name, one in means.items()
        },
        "student minus baseline, of new seeds": new_seeds,
        "student minus": {
            name: difference_figures(student, one, keys)
            for name, one in every.items()
            if name != "student"
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resamples", type=int, default=2_000)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    run = Run(load_config(given.config))
    write_lexicon(run)
    tasks = [
        (given.config, str(given.output), role, s) for role in ROLES for s in range(given.seeds)
    ]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.map(fit, tasks, chunksize=1)
    scored = teacher_scores(run)
    for _, output, role, seed in tasks:
        with np.load(Path(output) / f"{role}-{seed}.npz") as arrays:
            scored[f"{ROLES[role]} {seed}"] = {split: arrays[split] for split in SPLITS}
    pairs = scored_pairs(run, scored)
    found = measure(
        pairs, teacher=reference_of(run), num_seeds=given.seeds, draws=Draws(given.resamples)
    )
    for part in ("metrics", "retention", "student minus"):
        print(f"\n{part}")
        write = "{:.1%}".format if part == "retention" else "{:.4f}".format
        for name, figures in found[part].items():
            for key, figure in figures.items():
                print(f"| {name} | {key} | {cell(figure, write)} |")
    for key, gain in found["student minus baseline, of new seeds"].items():
        print(f"| new seeds | {key} | {cell({'value': gain['mean'], **gain}, '{:.4f}'.format)} |")
    figures = {**found, "num_pairs": len(pairs.labels_B), "num_queries": pairs.num_queries}
    print(json.dumps({"bench": "retention", "figures": figures}))


if __name__ == "__main__":
    main()
