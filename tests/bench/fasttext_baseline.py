"""Metrics of fastText trained on the judged labels of a run, to compare with the run's report.

    pip install fasttext-numpy2-wheel
    python tests/bench/fasttext_baseline.py --config RUN.TOML

The run is prepared. Words and bigrams with fastText's default settings; epochs and learning rate
are the best of a small grid on the dev split. Metrics on the test split, one thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raydistill.config.loading import load_config
from raydistill.evaluation.metrics.summary import measure
from raydistill.evaluation.metrics.thresholds import best_threshold
from raydistill.runs.run_folder import Run

EPOCHS, RATES, SEEDS = (5, 10, 25), (0.05, 0.1, 0.5), (0, 1, 2)


def read(run: Run, split: str) -> tuple[list[str], NDArray[np.float32]]:
    """Each query and title as one lower-case text, and the labels."""
    folder = run.judged(split)
    rows = [row for name in folder.shards() for row in folder.read_table(name).to_pylist()]
    texts = [f"{row['query']} {row['title']}".strip().lower() for row in rows]
    return texts, np.array([row["label"] for row in rows], np.float32)


def main() -> None:
    import fasttext

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    run = Run(load_config(arguments.config, overrides=arguments.set))
    at = run.config.judged_rules.relevant_at
    data = {split: read(run, split) for split in ("train", "dev", "test")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        lines = zip(*data["train"], strict=True)
        path.write_text("".join(f"__label__{int(y >= at)} {text}\n" for text, y in lines))

        def scores(epochs: int, rate: float, seed: int) -> dict[str, NDArray[np.float32]]:
            model = fasttext.train_supervised(
                str(path), epoch=epochs, lr=rate, wordNgrams=2, seed=seed, thread=1, verbose=0
            )
            found = {}
            for split in ("dev", "test"):
                labels, shares = model.predict(data[split][0], k=1)
                found[split] = np.array(
                    [p[0] if y[0] == "__label__1" else 1 - p[0]
                     for y, p in zip(labels, shares, strict=True)], np.float32,
                ).clip(0, 1)  # fmt: skip
            return found

        def figures(of: dict[str, NDArray[np.float32]], split: str) -> dict[str, float]:
            threshold = best_threshold(of["dev"], data["dev"][1], relevant_at=at)
            return measure(of[split], data[split][1], relevant_at=at, threshold=threshold).to_dict()

        grid = list(itertools.product(EPOCHS, RATES))
        best = max(grid, key=lambda both: figures(scores(*both, 0), "dev")["auc"])
        found = [figures(scores(*best, seed), "test") for seed in SEEDS]
    means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    print(json.dumps({"bench": "fasttext", "epochs, rate": best, "test": means}))


if __name__ == "__main__":
    main()
