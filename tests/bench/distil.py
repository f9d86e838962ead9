"""Compare ways to distil: margins, judged labels, filters, mean weights, spellings of units.

    python tests/bench/distil.py --config RUN.TOML --pairs 300000

The run is labeled. A way that needs two teachers is skipped if the run has one. Each row changes
one thing of the defaults of `match` (loss on logits, batches of 512). Students are trained on the
same pairs with each seed, in one process on one core. Output: AUC on unseen queries, at the
evaluation that is best on dev.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raydistill.config.loading import load_config
from raydistill.config.student import StudentConfig, TrainConfig
from raydistill.data.pairs import features_of
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.files.pieces import Piece
from raydistill.runs.lexicon_file import load_lexicon, spec_of
from raydistill.runs.run_folder import Run
from raydistill.serving.feature_spec import Features, concatenate
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.text.arrow_text import to_texts
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.student.batches import dense_scale
from raydistill.student.embedding_kernels import look_up
from raydistill.student.fit import Average
from raydistill.student.lexicon.document_counts import document_counts, idf
from raydistill.student.network import Student, predict, to_inputs
from raydistill.student.trainer import Trainer
from raydistill.teachers.soft_labels import read_logits

_ROWS, _EVALUATIONS = 512, 4  # rows of a batch; evaluations an epoch
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Way:
    """One row of the table: what differs from the default."""

    name: str
    whole_queries: bool = False  # a batch has all titles of some queries
    margin: float = 0.0  # a pair's error minus this share of its query's mean error
    judged: float = 0.0  # weight of a judged pair, with cross-entropy loss
    counts: bool = False  # weight of a pair: its number of rows in the input
    kept: str = "all"  # pairs: all, 80 % with the best teacher agreement, 80 % at random
    mean: bool = False  # mean of the weights at evaluations of the second half
    units: bool = True  # normalise sizes and units to one spelling


WAYS = [
    Way("as it is"),
    Way("whole queries in a batch", whole_queries=True),
    Way("half margins", whole_queries=True, margin=0.5),
    Way("margins", whole_queries=True, margin=0.95),
    Way("judged pairs too", judged=1.0),
    Way("judged pairs too, weight 1/4", judged=0.25),
    Way("pairs weigh as often as they came", counts=True),
    Way("the 80 % that teachers agree on", kept="agreed"),
    Way("80 % at random", kept="random"),
    Way("mean of the weights", mean=True),
    Way("units as they are written", units=False),
]


@dataclass
class Data:
    """Features, targets and query numbers of the pairs; features and labels of judged splits."""

    lexicon: Lexicon
    pairs: Features
    logits: Array
    queries: NDArray[np.int64]
    weights: Array  # number of rows of each pair, divided by the mean
    gaps: Array | None  # absolute difference between the logits of two teachers
    judged: dict[str, tuple[Features, Array]]
    relevant_at: float


def read(run: Run, *, num_pairs: int, units: bool) -> Data:
    """The first `num_pairs` pairs of a run that all teachers scored, and its judged splits."""
    tables, logits = [], []
    for name in run.pairs.shards():
        table = run.pairs.read_table(name, columns=["pair_id", "query", "title", "weight"])
        whole = Piece(name, 0, table.num_rows, table.num_rows)
        columns = [read_logits(run.logits(t), whole, table) for t in run.config.teachers]
        tables.append(table)
        logits.append(np.stack(columns, axis=1))
        if sum(table.num_rows for table in tables) >= num_pairs:
            break
    pairs, logits_BM = pa.concat_tables(tables), np.concatenate(logits)
    kept = np.flatnonzero(np.isfinite(logits_BM).all(axis=1))[:num_pairs]
    pairs, logits_BM = pairs.take(pa.array(kept)), logits_BM[kept]
    spec, lexicon = replace(spec_of(run), units=units and spec_of(run).has_match), load_lexicon(run)
    titles = to_texts(pairs["title"])
    rarity = idf(document_counts(titles, units=units), num_documents=len(titles[1]) - 1)
    lexicon = lexicon._replace(idf_I=rarity)

    def features(table: pa.Table) -> Features:
        return features_of(table, spec=spec, lexicon=lexicon)

    judged = {}
    for split in ("train", "dev", "test"):
        folder = run.judged(split)
        table = pa.concat_tables([folder.read_table(name) for name in folder.shards()])
        judged[split] = features(table), np.asarray(table["label"].to_numpy())
    _, queries = np.unique(pairs["query"].to_numpy(zero_copy_only=False), return_inverse=True)
    weights = np.asarray(pairs["weight"].to_numpy(), np.float32)
    gaps = np.abs(logits_BM[:, 0] - logits_BM[:, 1]) if logits_BM.shape[1] > 1 else None
    weights, relevant_at = weights / weights.mean(), run.config.judged_rules.relevant_at
    return Data(
        lexicon, features(pairs), logits_BM[:, 0], queries, weights, gaps, judged, relevant_at
    )


class _Trainer(Trainer):
    """A Trainer whose residuals depend on queries, judged pairs and weights."""

    way: Way
    queries_B: Tensor
    is_judged_B: Tensor
    weights_B: Tensor

    def residuals(self, logits_B: Tensor, targets_B: Tensor) -> Tensor:
        errors_B = super().residuals(logits_B, targets_B)
        if self.way.margin:
            # Margin-MSE (Hofstaetter et al. 2020, arXiv 2010.02666): half the mean square of the
            # differences between the errors of a query's pairs has gradient error - mean error.
            _, slots_B = torch.unique(self.queries_B, return_inverse=True)
            counts = torch.bincount(slots_B).float()
            means = torch.zeros_like(counts).index_add_(0, slots_B, errors_B) / counts
            errors_B = errors_B - self.way.margin * means[slots_B]
        if self.way.judged:
            crossed_B = self.way.judged * (logits_B.sigmoid() - targets_B)
            errors_B = torch.where(self.is_judged_B, crossed_B, errors_B)
        return errors_B * self.weights_B if self.way.counts else errors_B


def pairs_of(
    way: Way, data: Data, *, seed: int
) -> tuple[Features, Array, NDArray[np.int64], NDArray[np.bool_], Array]:
    """Features, targets, query numbers, is_judged and weights of a way's training rows."""
    rows = np.arange(len(data.logits))
    if way.kept == "agreed":
        assert data.gaps is not None
        rows = np.flatnonzero(data.gaps <= np.quantile(data.gaps, 0.8))
    elif way.kept == "random":
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[: int(0.8 * len(rows))])
    features, targets, queries = data.pairs.take(rows), data.logits[rows], data.queries[rows]
    is_judged, weights = np.zeros(len(rows), bool), data.weights[rows]
    if way.judged:
        more, labels = data.judged["train"]
        features = concatenate([features, more])
        targets = np.concatenate([targets, labels])
        queries = np.concatenate([queries, np.arange(len(labels)) + queries.max() + 1])
        is_judged = np.concatenate([is_judged, np.ones(len(labels), bool)])
        weights = np.concatenate([weights, np.ones(len(labels), np.float32)])
    return features, targets, queries, is_judged, weights


def order_of(way: Way, queries: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order of the rows; with `whole_queries`, the rows of a query are adjacent."""
    if not way.whole_queries:
        return rng.permutation(len(queries))
    places = rng.permutation(queries.max() + 1)[queries]
    return np.lexsort((rng.random(len(queries)), places))


def batches(order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for at in range(0, len(order) - _ROWS + 1, _ROWS):
        yield order[at : at + _ROWS]


def fit(way: Way, run: Run, data: Data, *, seed: int, epochs: int) -> list[dict[str, float]]:
    """AUCs of one student at each evaluation."""
    torch.manual_seed(seed)
    student = Student(spec_of(run), StudentConfig(), dtype=torch.bfloat16)
    mean = Average(Student(spec_of(run), StudentConfig(), dtype=torch.bfloat16))
    scale = dense_scale(data.pairs.dense_BF)
    for one in (student, mean.student):
        one.standardise(mean_F=scale["dense_mean"], std_F=scale["dense_std"])
    trainer = _Trainer(student, TrainConfig(batch_rows=_ROWS), target="logit")
    trainer.way = way
    features, targets, queries, is_judged, weights = pairs_of(way, data, seed=seed)
    num_steps, found = len(targets) // _ROWS, []
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        for step, batch in enumerate(batches(order_of(way, queries, rng)), 1):
            part = features.take(batch)
            inputs = to_inputs(look_up(part.ids_N, part.offsets), part.dense_BF, device="cpu")
            trainer.queries_B = torch.from_numpy(queries[batch])
            trainer.weights_B = torch.from_numpy(weights[batch])
            trainer.is_judged_B = torch.from_numpy(is_judged[batch])
            trainer.step(inputs, torch.from_numpy(targets[batch]), num_global=_ROWS)
            if step % (num_steps // _EVALUATIONS) == 0:
                if 2 * (epoch + step / num_steps) > epochs:
                    mean.add(student.arrays())
                found.append(measure(mean.student if way.mean and mean.num else student, data))
    return found


def measure(student: Student, data: Data) -> dict[str, float]:
    """AUC on dev and test."""
    return {
        split: auc(predict(student, features, device="cpu"), labels, relevant_at=data.relevant_at)
        for split, (features, labels) in data.judged.items()
        if split != "train"
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--pairs", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="names of rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = Run(load_config(arguments.config))
    write_lexicon(run)
    data, spelled, figures = None, True, {}
    for way in WAYS:
        if arguments.only and way.name not in arguments.only:
            continue
        if data is None or spelled != way.units:
            data, spelled = read(run, num_pairs=arguments.pairs, units=way.units), way.units
        if way.kept == "agreed" and data.gaps is None:
            continue
        runs = [
            fit(way, run, data, seed=seed, epochs=arguments.epochs)
            for seed in range(arguments.seeds)
        ]
        best = [max(found, key=lambda entry: entry["dev"]) for found in runs]
        dev, test = (np.array([entry[split] for entry in best]) for split in ("dev", "test"))
        print(
            f"| {way.name} | {dev.mean():.4f} | {test.mean():.4f} +- {test.std(ddof=1):.4f} |",
            flush=True,
        )
        figures[way.name] = {"dev": dev.tolist(), "test": test.tolist()}
    print(json.dumps({"bench": "distil", "figures": figures}))


if __name__ == "__main__":
    main()
