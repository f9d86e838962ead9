"""Which metric on dev should choose the weights of a student: `train.metric` measured.

    python tests/bench/best_epoch.py --config RUN.TOML --output FOLDER --percent 10 --seeds 4

RUN is prepared and labeled, and only read. A student of each seed is fitted on a share of the
transfer pairs and evaluated several times an epoch. For each metric the evaluation that is best on
dev is taken, and its weights are measured on test. Output: the mean of the seeds for each choice,
and its difference to the choice by AUC with a 95 % interval over queries and seeds. FOLDER keeps
the pairs and the logits of each evaluation: a second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cosine import read_pairs, read_rows, write_soft
from numpy.typing import NDArray
from prepared import rows_of
from scipy.special import expit

from raydistill.config.loading import load_config
from raydistill.evaluation.metrics.bootstrap import Draws
from raydistill.evaluation.metrics.catalogue import METRICS
from raydistill.evaluation.scoreboard.scoreboard import Measurements
from raydistill.evaluation.scoreboard.scored_pairs import ScoredPairs
from raydistill.files.folder import Folder
from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import Run
from raydistill.search.space import with_settings
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.student.batches import Loader, scale_features
from raydistill.student.dev_split import BEST, figures_of
from raydistill.student.fit import FitCallbacks, StudentFit, fit_student, new_state
from raydistill.student.network import predict
from raydistill.teachers.judged_logits import read_groups, stack_of
from raydistill.teachers.soft_labels import Targets, soft_logits

SPLITS = ("dev", "test")
CHOICES = ("auc", "ndcg_10", "query_auc", "spearman", "log_loss", "last")
SHOWN = ("ndcg_10", "query_auc", "auc", "log_loss")
Evaluations = dict[str, NDArray[np.float32]]  # by split: evaluations x pairs


def write_pairs(run: Run, share: float, folder: Path) -> None:
    """A share of the pairs with the ensemble's soft logits as labels."""
    if (folder / "whole").exists():
        return
    pairs, logits_BM = read_pairs(run, share)
    stack = stack_of(run)
    weights = [stack.weights[name] for name in run.config.teacher_names]
    soft_B = soft_logits(logits_BM, weights_M=weights, bias=stack.bias)
    write_soft(folder, pairs, soft_B, rows=run.config.pairs.shard_rows)
    (folder / "whole").touch()


def evaluations_of(seed: int, *, path: str, settings: dict[str, Any], folder: Path) -> Evaluations:
    """Logits of dev and test at each evaluation of a fit."""
    file = folder / f"seed-{seed}.npz"
    if file.exists():
        with np.load(file) as found:
            return dict(found)
    torch.set_num_threads(1)
    run = Run(with_settings(load_config(path), {**settings, "train.seed": seed}))
    pairs = Folder(str(folder / "pairs"))
    targets = Targets(target=run.config.target, holds_logits=True)
    fit = StudentFit(run, "student", pairs, rows_of(pairs), targets, run.config.train.epochs)
    loader = Loader(pairs, targets, spec=fit.spec, lexicon=load_lexicon(run))
    state = new_state(fit, scale_features(loader, fit.shards), device="cpu")
    judged = {split: run.judged(split) for split in SPLITS}
    loaders = {
        split: Loader(there, Targets(), spec=fit.spec, lexicon=loader.lexicon)
        for split, there in judged.items()
    }
    features = {s: loaders[s].read_all(rows_of(judged[s]))[0] for s in SPLITS}
    found: dict[str, list[NDArray[np.float32]]] = {split: [] for split in SPLITS}

    def record(entry: dict[str, float]) -> None:
        for split in SPLITS:
            found[split].append(predict(state.student, features[split], device="cpu"))

    callbacks = FitCallbacks(save=lambda _: None, log=lambda _: None, record=record)
    fit_student(fit, state, loader, callbacks=callbacks)
    arrays = {split: np.stack(rows) for split, rows in found.items()}
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return arrays


def chosen(logits_EB: NDArray[np.float32], run: Run) -> dict[str, int]:
    """The evaluation that each metric on dev chooses."""
    labels_B = read_rows(run, "dev", ["label"])["label"].to_numpy()
    groups_B, at = read_groups(run, "dev"), run.config.relevant_at("dev")
    figures = [
        figures_of(expit(logits_B), labels_B, groups_B, relevant_at=at) for logits_B in logits_EB
    ]
    best = {
        key: (max if BEST[key] == "max" else min)(
            range(len(figures)), key=lambda at: figures[at][key]
        )
        for key in CHOICES
        if key != "last"
    }
    return {**best, "last": len(figures) - 1}


def paired_interval(
    differences_S: NDArray[np.float64], resampled_R: NDArray[np.float64]
) -> tuple[float, float]:
    """As `search.verdict`, but of two choices from the same fits: seeds are paired."""
    num_seeds = len(differences_S)
    errors_R = np.random.default_rng(0).standard_t(num_seeds - 1, size=len(resampled_R))
    replicates_R = resampled_R + errors_R * differences_S.std(ddof=1) / num_seeds**0.5
    low, high = np.quantile(replicates_R, [0.025, 0.975])
    return float(low), float(high)


def report(run: Run, evaluations: list[Evaluations]) -> dict[str, Any]:
    """Print a row for each choice; its test figures, and their differences to those of AUC."""
    choices = [chosen(one["dev"], run) for one in evaluations]
    scores = {
        f"{choice} {seed}": expit(one["test"][choices[seed][choice]])
        for choice in CHOICES
        for seed, one in enumerate(evaluations)
    }
    labels_B = read_rows(run, "test", ["label"])["label"].to_numpy()
    scored = ScoredPairs(labels_B, read_groups(run, "test"), run.config.relevant_at("test"), scores)
    found = Measurements(scored, draws=Draws(resamples=2_000), keys=SHOWN)
    print(f"| chosen by | evaluation | {' | '.join(METRICS[key].name for key in SHOWN)} |")
    figures: dict[str, Any] = {}
    for choice in CHOICES:
        cells, figures[choice] = [], {}
        for key in SHOWN:
            arms = [
                [found.alone(f"{name} {seed}") for seed in range(len(evaluations))]
                for name in (choice, "auc")
            ]
            one_S, auc_S = (np.array([one.value[key] for one in arm]) for arm in arms)
            one_R, auc_R = (np.mean([one.resampled[key] for one in arm], axis=0) for arm in arms)
            low, high = paired_interval(one_S - auc_S, one_R - auc_R)
            mean = float(one_S.mean() - auc_S.mean())
            figures[choice][key] = [float(one_S.mean()), mean, low, high]
            cell = f"{one_S.mean():.4f}"
            if choice != "auc":
                cell += f", {mean:+.4f} ({low:+.4f} to {high:+.4f})"
            cells.append(cell)
        epochs = " ".join(str(one[choice] + 1) for one in choices)
        print(f"| {choice} | {epochs} | {' | '.join(cells)} |", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--percent", type=float, default=10, help="of the transfer pairs")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--every", type=int, default=46_000, help="pairs between two evaluations")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    given = parser.parse_args()
    run = Run(load_config(given.config))
    write_lexicon(run)
    write_pairs(run, given.percent / 100, given.output / "pairs")
    settings = {"train.epochs": given.epochs, "train.evaluate_every_pairs": given.every}
    work = partial(evaluations_of, path=given.config, settings=settings, folder=given.output)
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        evaluations = pool.map(work, range(given.seeds), chunksize=1)
    print(json.dumps({"bench": "best_epoch", "figures": report(run, evaluations)}))


if __name__ == "__main__":
    main()
