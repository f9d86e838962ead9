"""The contribution of each kind of feature, target and layer: students of a labeled run without it.

    python tests/bench/ablate.py RUN_DIR --logits minilm-fd4b6693 --encoder BASE --pairs 300000

Each variant is trained on the same pairs with each seed, in one process on one core. Output: AUC
on the judged splits, whose queries are unseen, and µs/pair of the bundle in batches of 1,024.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from prepared import rows_of

from raydistill.config.student import StudentConfig, TrainConfig
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.files.folder import Folder
from raydistill.serving.feature_spec import Features, NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.match_features import DENSE_NAMES, NUM_DENSE
from raydistill.serving.text.arrow_text import to_texts
from raydistill.student.batches import Loader
from raydistill.student.embedding_kernels import look_up
from raydistill.student.export.student_bundle import scorer_of
from raydistill.student.lexicon.builder import make_lexicon
from raydistill.student.network import Student, predict, to_inputs
from raydistill.student.trainer import Trainer, rate_at
from raydistill.teachers.soft_labels import Targets

NEAR = [at for at, name in enumerate(DENSE_NAMES) if "near" in name or name == "cosine"]
PARTS = [at for at, name in enumerate(DENSE_NAMES) if "part_found" in name]
RARITY = [at for at, n in enumerate(DENSE_NAMES) if n.startswith("rarest") or "idf" in n]
VECTORS = list(range(NUM_DENSE, NUM_DENSE + 128))


@dataclass(frozen=True)
class Variant:
    """One row of the table: changes of settings, and features that are set to 0."""

    name: str
    spec: dict[str, Any] = field(default_factory=dict)
    student: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    without: Sequence[int] = ()  # columns of the dense features that are set to 0
    num_pairs: int | None = None


VARIANTS = [
    Variant("match, cross-entropy"),
    Variant("without mean vectors", without=VECTORS),
    Variant("without near words", without=NEAR),
    Variant("without both", without=[*NEAR, *VECTORS]),
    Variant("without parts of words", without=PARTS),
    Variant("without rarity", without=RARITY),
    Variant("one bag, no dense features", without=range(NUM_DENSE + 128)),
    Variant("character 4-grams", spec={"char_ngrams": 4}),
    Variant("2^20 rows", spec={"hash_bits": 20}),
    Variant("hidden 1024-512-128-64", student={"hidden": (1024, 512, 128, 64)}),
    Variant("hidden 128", student={"hidden": (128,)}),
    Variant("embedding 32", student={"embedding_dim": 32}),
    Variant("loss on logits", train={"target": "logit"}),
    Variant("linear schedule", train={"schedule": "linear"}),
    Variant("linear, loss on logits", train={"schedule": "linear", "target": "logit"}),
    Variant("dropout 0.1", student={"dropout": 0.1}),
    Variant("batches of 128", train={"batch_rows": 128}),
    Variant("bert2dnn", spec={"preset": "bert2dnn", "word_dim": 0},
            student={"hidden": (1024, 512, 128, 64)}),
]  # fmt: skip


class Data:
    """Features and targets of a run's pairs and judged splits; the last spec is cached."""

    def __init__(self, run: Folder, logits: str, lexicon: Lexicon, *, num_pairs: int) -> None:
        self.run, self.lexicon, self.num_pairs = run, lexicon, num_pairs
        self.logits = run / "logits" / logits
        self._made: tuple[NgramSpec, dict[str, tuple[Features, NDArray[np.float32]]]] | None = None

    def of(self, spec: NgramSpec) -> dict[str, tuple[Features, NDArray[np.float32]]]:
        """Train with the teacher's logits as targets; dev and test with their labels."""
        if self._made is None or self._made[0] != spec:
            self._made = None
            targets = Targets((self.logits,), (1.0,), target="logit")
            self._made = (spec, {"train": self._pairs(spec, targets)})
            for split in ("dev", "test"):
                loader = Loader(
                    self.run / "judged" / split, Targets(), spec=spec, lexicon=self.lexicon
                )
                self._made[1][split] = loader.read_all(rows_of(loader.folder))
        return self._made[1]

    def _pairs(self, spec: NgramSpec, targets: Targets) -> tuple[Features, NDArray[np.float32]]:
        loader = Loader(self.run / "pairs", targets, spec=spec, lexicon=self.lexicon)
        shards: dict[str, int] = {}
        for name, rows in rows_of(loader.folder).items():
            if sum(shards.values()) < self.num_pairs:
                shards[name] = rows
        features, logits = loader.read_all(shards)
        kept = np.flatnonzero(~np.isnan(logits))[: self.num_pairs]
        return features.take(kept), logits[kept]


def without(features: Features, columns: Sequence[int]) -> Features:
    """The features with some dense columns set to 0."""
    dense = features.dense_BF.copy()
    dense[:, [c for c in columns if c < dense.shape[1]]] = 0
    return Features(features.ids_N, features.offsets, dense)


def fit(
    variant: Variant,
    spec: NgramSpec,
    data: dict[str, tuple[Features, NDArray[np.float32]]],
    *,
    seed: int,
    epochs: int,
) -> tuple[Student, list[dict[str, float]]]:
    """One student, and its AUCs after each epoch."""
    config = TrainConfig(**{"batch_rows": 512, **variant.train})
    torch.manual_seed(seed)
    student = Student(spec, StudentConfig(**variant.student), dtype=torch.bfloat16)
    splits = {s: (without(f, variant.without), t) for s, (f, t) in data.items()}
    features, logits = splits["train"]
    std = features.dense_BF.std(axis=0)
    mean = features.dense_BF.mean(axis=0)
    student.standardise(mean_F=mean, std_F=np.where(std > 1e-6, std, 1).astype(np.float32))
    target = config.target or "probability"
    targets = logits if target == "logit" else 1 / (1 + np.exp(-logits))
    trainer, found = Trainer(student, config, target=target), []
    num_steps, rows = len(targets) // config.batch_rows, config.batch_rows
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(targets))
        for step in range(num_steps):
            batch = order[step * rows : (step + 1) * rows]
            part = features.take(batch)
            inputs = to_inputs(look_up(part.ids_N, part.offsets), part.dense_BF, device="cpu")
            done = (epoch + (step + 0.5) / num_steps) / epochs
            goal = torch.from_numpy(targets[batch])
            trainer.step(inputs, goal, num_global=rows, rate=rate_at(config, done_share=done))
        found.append({s: _auc(student, *splits[s]) for s in ("dev", "test")})
    return student, found


def _auc(student: Student, features: Features, labels: NDArray[np.float32]) -> float:
    return auc(predict(student, features, device="cpu"), labels, relevant_at=0.75)


def microseconds(student: Student, lexicon: Lexicon, rows: pa.Table) -> float:
    """µs/pair of the student's bundle, from raw text, one thread: the minimum of five."""
    settings = {
        "ngrams": vars(student.spec), "temperature": 1.0, "threshold": 0.5,
        "max_query_chars": 200, "max_title_chars": 1000,
    }  # fmt: skip
    arrays = {name: value.numpy() for name, value in student.arrays().items()}
    scorer = scorer_of(settings, {**arrays, **lexicon.to_arrays()})
    texts = [to_texts(rows[name]) for name in ("query", "title")]
    times = []
    for _ in range(6):
        start_s = time.perf_counter()
        scorer.score_texts(*texts)
        times.append(time.perf_counter() - start_s)
    return min(times[1:]) / len(rows) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir")
    parser.add_argument("--logits", required=True, help="the teacher's folder")
    parser.add_argument("--encoder", required=True, help="folder of the encoder of word vectors")
    parser.add_argument("--pairs", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="names of variants")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = Folder(arguments.run_dir)
    shards = {name: 0 for name in (run / "pairs").shards()}
    lexicon = make_lexicon(
        run / "pairs", shards, encoder=Path(arguments.encoder), num_words=65_536, dim=64,
        units=True, device="cpu",
    )  # fmt: skip
    data = Data(run, arguments.logits, lexicon, num_pairs=arguments.pairs)
    sample = (run / "judged" / "test").read_table((run / "judged" / "test").shards()[0])
    figures = {}
    for variant in VARIANTS:
        if arguments.only and variant.name not in arguments.only:
            continue
        fields: dict[str, Any]
        fields = {"preset": "match", "hash_bits": 18, "word_dim": 64, "units": True}
        spec = NgramSpec(**{**fields, **variant.spec})
        runs = [
            fit(variant, spec, data.of(spec), seed=seed, epochs=arguments.epochs)
            for seed in range(arguments.seeds)
        ]
        # The epoch with the best dev AUC, as in training.
        best = [max(found, key=lambda entry: entry["dev"]) for _, found in runs]
        test = np.array([entry["test"] for entry in best])
        dev = np.array([entry["dev"] for entry in best])
        word = lexicon if spec.word_dim else Lexicon.from_idf(lexicon.idf_I)
        us = microseconds(runs[0][0], word, sample)
        figures[variant.name] = {"dev": dev.mean(), "test": test.mean(), "us": us}
        spread = test.std(ddof=1) if len(test) > 1 else float("nan")
        print(
            f"| {variant.name} | {dev.mean():.4f} | {test.mean():.4f} +- {spread:.4f} | {us:.1f} |",
            flush=True,
        )
    print(json.dumps({"bench": "ablate", "figures": figures}))


if __name__ == "__main__":
    main()
