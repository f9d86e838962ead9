"""Features and sizes of the trees, compared alone and stacked with the BERT of a run.

    python tests/bench/trees.py --config RUN.TOML

RUN is labeled. Each way is fitted with three seeds on RUN's judged train split, and stacked with
the BERT's logits by a fit on dev. Output, means over the seeds: AUC of the trees and of the stack,
loss on the held-out folds, seconds of a fit, and µs/pair of the trees without the features, on one
core.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prepared import rows_of
from scipy.special import log_expit

from raydistill.config.loading import load_config
from raydistill.config.teachers import TreesConfig
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.runs.lexicon_file import load_lexicon, spec_of
from raydistill.runs.run_folder import Run
from raydistill.serving.feature_spec import Features
from raydistill.serving.match_features import DENSE_NAMES, NUM_DENSE
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.student.batches import Loader
from raydistill.teachers.judged_logits import read_groups, read_judged
from raydistill.teachers.soft_labels import Targets
from raydistill.teachers.stacking import fit_stack
from raydistill.teachers.trees import fit_trees, split_folds

MATCH = list(range(NUM_DENSE))
HEAD = [at for at, name in enumerate(DENSE_NAMES) if "head" in name]
NEAR = [at for at, name in enumerate(DENSE_NAMES) if "near" in name or name == "cosine"]
Split = tuple[Features, NDArray[np.float32]]


def ways(num_dense: int) -> dict[str, tuple[list[int], dict[str, Any]]]:
    """The feature columns and the settings of each way, by name."""
    return {
        "match features": (MATCH, {}),
        "and mean word vectors": (list(range(num_dense)), {}),
        "without those of heads": ([at for at in MATCH if at not in HEAD], {}),
        "without those of word vectors": ([at for at in MATCH if at not in NEAR], {}),
        "twice the rate": (MATCH, {"learning_rate": 0.1}),
        "15 leaves": (MATCH, {"num_leaves": 15}),
        "two folds": (MATCH, {"num_folds": 2}),
    }


def read(run: Run, split: str) -> Split:
    lexicon = load_lexicon(run.for_trees)
    spec = spec_of(run.for_trees)
    loader = Loader(run.judged(split), Targets(), spec=spec, lexicon=lexicon)
    return loader.read_all(rows_of(loader.folder))


def measure(
    run: Run, data: dict[str, Split], columns: list[int], settings: TreesConfig
) -> dict[str, float]:
    at, groups = run.config.judged_rules.relevant_at, read_groups(run, "train")
    dense = {split: np.ascontiguousarray(f.dense_BF[:, columns]) for split, (f, _) in data.items()}
    labels = data["train"][1]
    start_s = time.perf_counter()
    trees = fit_trees(dense["train"], labels, groups_B=groups, settings=settings, num_threads=1)
    found = {"fit_s": time.perf_counter() - start_s, "trees": trees.num_trees}
    folds = split_folds(groups, num_folds=len(trees.models), seed=settings.seed)
    losses = []
    for model, (_, own) in zip(trees.models, folds, strict=True):
        z = type(trees)((model,)).logits(dense["train"][own])
        losses.append(-np.mean(labels[own] * log_expit(z) + (1 - labels[own]) * log_expit(-z)))
    found["loss"] = float(np.mean(losses))
    start_s = time.perf_counter()
    scored = {split: trees.logits(dense[split]) for split in ("dev", "test")}
    found["score_us"] = 1e6 * (time.perf_counter() - start_s) / sum(map(len, scored.values()))
    logits = {}
    for split, own in scored.items():
        bert = read_judged(run, split).logits_BM[:, 0]
        logits[split] = np.stack([bert, own], axis=1)
        found[f"{split}_alone"] = auc(own, data[split][1], relevant_at=at)
    stack = fit_stack(logits["dev"], data["dev"][1], names=["bert", "trees"])
    for split, both in logits.items():
        scores = both @ np.array(list(stack.weights.values()))
        found[f"{split}_stack"] = auc(scores, data[split][1], relevant_at=at)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    run = Run(load_config(arguments.config))
    write_lexicon(run.for_trees)
    data = {split: read(run, split) for split in ("train", "dev", "test")}
    names = ("dev_alone", "test_alone", "dev_stack", "test_stack", "loss", "trees", "fit_s")
    print("| | " + " | ".join((*names, "score_us")) + " |")
    figures = {}
    for way, (columns, settings) in ways(data["dev"][0].dense_BF.shape[1]).items():
        each = [
            measure(run, data, columns, TreesConfig(**{**settings, "seed": seed}))
            for seed in range(arguments.seeds)
        ]
        found = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
        figures[way] = found
        cells = [f"{found[n]:.4f}" for n in names[:5]] + [f"{found[n]:.0f}" for n in names[5:]]
        print(f"| {way} | {' | '.join(cells)} | {found['score_us']:.0f} |", flush=True)
    print(json.dumps({"bench": "trees", "figures": figures}))


if __name__ == "__main__":
    main()
