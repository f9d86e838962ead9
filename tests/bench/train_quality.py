"""Dev AUC of our training step against plain float32 PyTorch, on the same batches of a real run.

    python tests/bench/train_quality.py RUN_DIR --logits minilm-fd4b6693 --seed 0

Plain: autograd, EmbeddingBag(sparse=True), torch.optim.Adagrad on every weight, from the same
random weights. Ours: `Trainer.step` in float32 and in bfloat16.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
import torch
from prepared import rows_of
from torch import Tensor, nn
from torch.nn import functional

from raydistill.config.student import StudentConfig, TrainConfig
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.files.folder import Folder
from raydistill.files.pieces import PIECE_ROWS
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.student.batches import Batch, Loader, plan_windows
from raydistill.student.lexicon.builder import count_idf
from raydistill.student.network import Student, predict, to_inputs
from raydistill.student.trainer import Trainer
from raydistill.teachers.soft_labels import Targets


class Plain:
    """The same student built of torch modules; it shares the weights of `student`."""

    def __init__(self, student: Student, *, learning_rate: float) -> None:
        self.student = student
        self.bag = nn.EmbeddingBag.from_pretrained(
            student.table_VD, freeze=False, mode="sum", sparse=True, include_last_offset=True
        )
        layers = student.layers(student.weights_P)
        self.layers = [[nn.Parameter(part) for part in layer] for layer in layers]
        flat = [part for layer in self.layers for part in layer]
        self.optimizer = torch.optim.Adagrad([self.bag.weight, *flat], lr=learning_rate)

    def step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        ids = torch.from_numpy(batch.lookup.rows_U[batch.lookup.slots_N])
        offsets = torch.from_numpy(batch.lookup.offsets)
        counts = offsets.diff().clamp(min=1).unsqueeze(1)
        x = (self.bag(ids, offsets) / counts.sqrt()).view(len(batch.targets_B), -1)
        dense = torch.from_numpy(batch.dense_BF)
        x = torch.cat([x, (dense - self.student.dense_mean) / self.student.dense_std], dim=1)
        *hidden, last = self.layers
        for weight, bias in hidden:
            x = functional.linear(x, weight, bias).relu()
        logits = functional.linear(x, *last).squeeze(1)
        targets = torch.from_numpy(batch.targets_B)
        functional.binary_cross_entropy_with_logits(logits, targets).backward()
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir")
    parser.add_argument("--logits", required=True, help="the teacher's folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-rows", type=int, default=1_024)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--relevant-at", type=float, default=0.75)
    parser.add_argument("--steps", nargs="+", default=["plain", "float32", "bfloat16"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = Folder(arguments.run_dir)
    shards = rows_of(run / "pairs")
    spec = NgramSpec("match", 18)
    lexicon = Lexicon.from_idf(count_idf(run / "pairs", shards, units=False))
    targets = Targets((run / "logits" / arguments.logits,), (1.0,))
    loader = Loader(run / "pairs", targets, spec=spec, lexicon=lexicon)
    judged = Loader(run / "judged" / "dev", Targets(), spec=spec, lexicon=lexicon)
    dev, labels = judged.read_all(rows_of(judged.folder))
    name, rows = next(iter(shards.items()))
    sample, _ = loader.read_all({name: rows})
    mean, std = sample.dense_BF.mean(0), sample.dense_BF.std(0)

    def student_of(dtype: torch.dtype) -> Student:
        torch.manual_seed(arguments.seed)
        student = Student(spec, StudentConfig(), dtype=dtype)
        student.standardise(mean_F=mean, std_F=np.where(std > 1e-6, std, 1).astype(np.float32))
        return student

    def measure(student: Student, step: Callable[[Batch], object]) -> list[float]:
        found = []
        for epoch in range(arguments.epochs):
            rows = 8 * PIECE_ROWS
            windows = plan_windows(shards, seed=arguments.seed, epoch=epoch, window_rows=rows)
            for batch in loader.batches(
                windows, part=0, num_parts=1, batch_rows=arguments.batch_rows, seed=0
            ):
                step(batch)
            logits = predict(student, dev, device="cpu")
            found.append(auc(logits, labels, relevant_at=arguments.relevant_at))
        return found

    def ours(trainer: Trainer) -> Callable[[Batch], Tensor]:
        return lambda batch: trainer.step(
            to_inputs(batch.lookup, batch.dense_BF, device="cpu"),
            torch.from_numpy(batch.targets_B),
            num_global=batch.num_global,
        )

    rate = arguments.learning_rate
    settings = TrainConfig(learning_rate=rate, table_learning_rate=rate)
    for name in arguments.steps:
        if name == "plain":
            student = student_of(torch.float32)
            step = Plain(student, learning_rate=arguments.learning_rate).step
        else:
            student = student_of(getattr(torch, name))
            step = ours(Trainer(student, settings))
        entry = {"step": name, "seed": arguments.seed, "dev_auc": measure(student, step)}
        print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main()
