"""Students of chosen pairs of a labeled run, in this process and on one core, and their figures.

Shared by the benches of bought labels. Features are computed once; a student reads some of the
pairs. The run may be labeled in part: its shards with logits are used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raydistill.config.student import StudentConfig, TrainConfig
from raydistill.data.pairs import features_of
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.files.model_files import load_model
from raydistill.files.pieces import Piece
from raydistill.runs.lexicon_file import load_lexicon, spec_of
from raydistill.runs.run_folder import Run
from raydistill.serving.feature_spec import Features, NgramSpec
from raydistill.student.batches import dense_scale
from raydistill.student.embedding_kernels import look_up
from raydistill.student.network import Student, predict, to_inputs
from raydistill.student.trainer import Trainer
from raydistill.teachers.cross_encoder import Teacher
from raydistill.teachers.soft_labels import read_logits

Array = NDArray[np.float32]
SPLITS = ("dev", "test")
_ROWS = 128  # of a batch
_STEPS = 300_000  # pairs that a student is trained on, in 3 to 20 passes over its pairs


@dataclass(frozen=True)
class Split:
    """A judged split: features, labels, query numbers and the teacher's logits."""

    features: Features
    labels_B: Array
    groups_B: NDArray[np.int64]
    teacher_B: Array


@dataclass(frozen=True)
class Pool:
    """Pairs that can be bought, with the logits that they would get, and the judged splits."""

    spec: NgramSpec
    relevant_at: float
    texts: pa.Table  # pair_id, query, title
    features: Features
    logits_B: Array
    groups_B: NDArray[np.int64]
    is_held_B: NDArray[np.bool_]  # pairs of a tenth of the queries, which nobody may buy
    judged: dict[str, Split]


def read_pool(run: Run, teacher: str, *, num_pairs: int) -> Pool:
    """The pairs of the first shards that a teacher has scored. The run has a lexicon."""
    tables, logits = [], []
    for name in run.logits(teacher).shards():
        table = run.pairs.read_table(name, columns=["pair_id", "query", "title"])
        logits.append(read_logits(run.logits(teacher), _whole(name, table), table))
        tables.append(table)
        if sum(part.num_rows for part in tables) >= num_pairs:
            break
    texts, logits_B = pa.concat_tables(tables), np.concatenate(logits)
    rows = np.flatnonzero(np.isfinite(logits_B))[:num_pairs]
    texts, logits_B = texts.take(pa.array(rows)), logits_B[rows]
    groups = groups_of(texts)
    is_held = np.random.default_rng(0).random(groups.max() + 1) < 0.1
    features = _features(run, texts)
    judged = {split: _split(run, teacher, split) for split in SPLITS}
    at = run.config.judged.relevant_at
    return Pool(spec_of(run), at, texts, features, logits_B, groups, is_held[groups], judged)


def _whole(name: str, table: pa.Table) -> Piece:
    return Piece(name, 0, table.num_rows, table.num_rows)


def _features(run: Run, texts: pa.Table) -> Features:
    return features_of(texts, spec=spec_of(run), lexicon=load_lexicon(run))


def groups_of(texts: pa.Table) -> NDArray[np.int64]:
    """The number of each pair's query."""
    codes = texts["query"].combine_chunks().dictionary_encode().indices
    return np.asarray(codes.to_numpy(), np.int64)


def _split(run: Run, teacher: str, split: str) -> Split:
    folder = run.judged(split)
    tables = {name: folder.read_table(name) for name in folder.shards()}
    rows = pa.concat_tables(tables.values())
    there = run.logits(teacher)
    if all(there.exists(f"judged/{split}/{name}") for name in tables):
        parts = [
            read_logits(there, _whole(f"judged/{split}/{name}", table), table)
            for name, table in tables.items()
        ]
        logits = np.concatenate(parts)
    else:
        logits = score(run, teacher, rows)
    labels = np.asarray(rows["label"].to_numpy())
    return Split(_features(run, rows), labels, groups_of(rows), logits)


def score(run: Run, teacher: str, rows: pa.Table) -> Array:
    """Logits of a fine-tuned teacher, computed here."""
    label = run.config.label
    model = Teacher(
        load_model(run.teacher_model(teacher)),
        device="cpu", dtype=label.dtype, max_length=label.max_length,
    )  # fmt: skip
    return model.logits(rows["query"].to_pylist(), rows["title"].to_pylist())


@dataclass(frozen=True)
class Fitted:
    """A student with the weights of its best epoch, and its logits of the judged splits."""

    student: Student
    logits: dict[str, Array]

    def auc(self, pool: Pool, split: str) -> float:
        """AUC on the human labels of a split."""
        judged = pool.judged[split]
        return auc(self.logits[split], judged.labels_B, relevant_at=pool.relevant_at)


def fit(
    pool: Pool,
    rows: NDArray[np.int64],
    targets_B: Array,
    *,
    seed: int,
    features: Features | None = None,
) -> Fitted:
    """A student of some pairs and their logits; the epoch with the best dev AUC."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    features = (features or pool.features).take(rows)
    student = Student(pool.spec, StudentConfig(), dtype=torch.bfloat16)
    scale = dense_scale(features.dense_BF)
    student.standardise(mean_F=scale["dense_mean"], std_F=scale["dense_std"])
    trainer = Trainer(student, TrainConfig(batch_rows=_ROWS), target="logit")
    best: dict[str, torch.Tensor] = {}
    best_auc = float("-inf")
    dev = pool.judged["dev"]
    for epoch in range(int(np.clip(_STEPS // len(rows), 3, 20))):
        order = np.random.default_rng([seed, epoch]).permutation(len(rows))
        for start, stop in pairwise([*range(0, len(rows), _ROWS), len(rows)]):
            batch = order[start:stop]
            part = features.take(batch)
            inputs = to_inputs(look_up(part.ids_N, part.offsets), part.dense_BF, device="cpu")
            trainer.step(inputs, torch.from_numpy(targets_B[batch]), num_global=len(batch))
        found = auc(predict(student, dev.features, device="cpu"), dev.labels_B,
                    relevant_at=pool.relevant_at)  # fmt: skip
        if found > best_auc:
            best_auc = found
            best = {name: value.clone() for name, value in student.arrays().items()}
    student.load(best)
    logits = {n: predict(student, s.features, device="cpu") for n, s in pool.judged.items()}
    return Fitted(student, logits)


def held_figures(pool: Pool, fitted: Fitted) -> dict[str, float]:
    """Correlation and root of the mean squared distance to the teacher on the held-out pairs."""
    rows = np.flatnonzero(pool.is_held_B)
    found, true = (
        predict(fitted.student, pool.features.take(rows), device="cpu"),
        pool.logits_B[rows],
    )
    return {
        "correlation": float(np.corrcoef(found, true)[0, 1]),
        "rmse": float(np.sqrt(np.mean((found - true) ** 2))),
    }


def interval(
    groups_B: NDArray[np.int64], figure: Callable[[NDArray[np.int64]], float], *, rounds: int = 300
) -> tuple[float, float]:
    """The central 95 % of a figure of rows, over resampled queries (bootstrap)."""
    order = np.argsort(groups_B, kind="stable")
    sizes = np.bincount(groups_B)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    by_query = [order[a:b] for a, b in pairwise(starts)]
    rng, found = np.random.default_rng(0), []
    for _ in range(rounds):
        drawn = rng.integers(len(by_query), size=len(by_query))
        found.append(figure(np.concatenate([by_query[at] for at in drawn])))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def gain(pool: Pool, ours: list[Fitted], others: list[Fitted]) -> tuple[float, float, float]:
    """Difference of mean test AUC between two groups of students, and its interval."""
    test = pool.judged["test"]

    def difference(rows: NDArray[np.int64]) -> float:
        labels = test.labels_B[rows]
        both = [
            np.mean([auc(f.logits["test"][rows], labels, relevant_at=pool.relevant_at) for f in g])
            for g in (ours, others)
        ]
        return float(both[0] - both[1])

    low, high = interval(test.groups_B, difference)
    return difference(np.arange(len(test.labels_B))), low, high
