"""A cascade: an encoder learns from a teacher's few logits and labels more; what a student gains.

    python tests/bench/cascade.py --config RUN.TOML --teacher minilm \
        --base models/paraphrase-minilm-l3-v2 --output FOLDER

RUN has logits of the teacher, who plays an expensive one; a part of the shards is enough. The
teacher's logits of 30,000 pairs, drawn in turns over the queries, are bought. The encoder is
fine-tuned on them by the code of `finetune` and scores 200,000 pairs, the bought ones among them.
Students are then trained with each seed: on the bought pairs alone; on the encoder's logits; on the
teacher's logits where they were bought and the encoder's elsewhere; and on the teacher's logits of
all pairs, the bound. FOLDER keeps the encoder and its logits: a second run goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pool import Array, Fitted, Pool, fit, read_pool
from scipy.special import expit
from selection import buy, cells, line

from raydistill.config.loading import load_config
from raydistill.config.run_config import RunConfig
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.runs.run_folder import Run
from raydistill.stages.finetune import BestCheckpointCallback, make_trainer
from raydistill.stages.fits.finetune_pairs import learned_file
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.teachers.cross_encoder import Teacher

SMALL = "small"
_LINKED = ("pairs", "judged", "logits", "prepare.json", "_RAYDISTILL.json")
Rows = NDArray[np.int64]


def with_small(run: Run, arguments: argparse.Namespace) -> Run:
    """A run folder beside RUN, which is only read, with the encoder as another teacher."""
    folder = arguments.output / "run"
    (folder / "teachers").mkdir(parents=True, exist_ok=True)
    for name in _LINKED:
        if not (folder / name).exists():
            os.symlink(Path(run.root.uri) / name, folder / name)
    given = run.config.model_dump(mode="json", exclude_none=True)
    given["run_dir"] = str(folder)
    given["teachers"][SMALL] = {"base": arguments.base, "learns_from": arguments.teacher}
    given["finetune"] |= {"epochs": arguments.epochs, "max_pairs": arguments.bought}
    return Run(RunConfig.model_validate(given))


def fine_tune(run: Run, pool: Pool, bought: Rows, *, folder: Path) -> None:
    """Fine-tune the encoder on the bought logits; writes its best epoch to `folder`/best."""
    table = pool.texts.take(pa.array(bought))
    ones = pa.array(np.ones(len(bought), np.float32))
    table = table.append_column("weight", ones)
    table = table.append_column("label", pa.array(expit(pool.logits_B[bought])))
    there, file = learned_file(run, SMALL)
    there.write_table(file, table)
    keeper = BestCheckpointCallback(
        folder / "best", is_first=True, log=lambda text: print(text, flush=True)
    )
    keeper.on_save = lambda *args, **kwargs: None  # type: ignore[method-assign] - no Ray here
    trainer = make_trainer(
        run, SMALL, output=folder / "checkpoints", num_workers=1, device="cpu", callbacks=[keeper]
    )
    keeper.model, keeper.tokenizer = trainer.model, trainer.processing_class
    trainer.train()
    keeper.finish()


def label(run: Run, pool: Pool, *, folder: Path) -> Array:
    """The encoder's logits of the pool and, in this order, of the judged test split."""
    settings = run.config.label
    model = Teacher(
        folder / "best", device="cpu", dtype=settings.dtype, max_length=settings.max_length
    )
    judged = run.judged("test")
    tables = [pool.texts, *(judged.read_table(name) for name in judged.shards())]
    texts = pa.concat_tables([table.select(["query", "title"]) for table in tables])
    return model.logits(texts["query"].to_pylist(), texts["title"].to_pylist())


def students(
    pool: Pool, bought: Rows, small_B: Array, *, num_seeds: int
) -> dict[str, tuple[int, list[Fitted]]]:
    """Number of pairs and students of each way."""
    rows = np.flatnonzero(~pool.is_held_B)
    mixed_B = small_B.copy()
    mixed_B[bought] = pool.logits_B[bought]
    ways = {
        "the bought pairs alone": (bought, pool.logits_B),
        "cascade: the encoder's logits": (rows, small_B),
        "cascade, bought logits where there are": (rows, mixed_B),
        "bound: the teacher's logits of all": (rows, pool.logits_B),
    }
    return {
        way: (len(some), [fit(pool, some, logits[some], seed=s) for s in range(num_seeds)])
        for way, (some, logits) in ways.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--teacher", default="minilm")
    parser.add_argument("--base", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bought", type=int, default=30_000)
    parser.add_argument("--pairs", type=int, default=200_000, help="that the encoder scores")
    parser.add_argument("--epochs", type=int, default=2, help="of the encoder")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    run = Run(load_config(arguments.config))
    write_lexicon(run)
    pool = read_pool(run, arguments.teacher, num_pairs=arguments.pairs)
    bought = buy(pool, np.empty(0, np.int64), None, way="random", size=arguments.bought, seed=0)
    file, start_s = arguments.output / "logits.npy", time.monotonic()
    cascade = with_small(run, arguments)
    if not (arguments.output / "best").exists():
        fine_tune(cascade, pool, bought, folder=arguments.output)
        print(f"fine-tuned in {time.monotonic() - start_s:.0f} s", flush=True)
    if not file.exists():
        start_s = time.monotonic()
        np.save(file, label(cascade, pool, folder=arguments.output))
        print(f"scored in {time.monotonic() - start_s:.0f} s", flush=True)
    scored_B = np.load(file)
    small_B, of_test = scored_B[: len(pool.logits_B)], scored_B[len(pool.logits_B) :]
    test = pool.judged["test"]
    teacher, small = (
        auc(logits, test.labels_B, relevant_at=pool.relevant_at)
        for logits in (test.teacher_B, of_test)
    )
    held = pool.is_held_B
    agreed = float(np.corrcoef(small_B[held], pool.logits_B[held])[0, 1])
    print(f"AUC of the teacher {teacher:.4f}, of the encoder {small:.4f}; correlation of their "
          f"logits on pairs of other queries {agreed:.3f}")  # fmt: skip
    print("| pairs | how | AUC | AUC retained | over the bought alone | correlation | distance |")
    print("|---:|---|---:|---:|---:|---:|---:|", flush=True)
    figures: dict[str, Any] = {"teacher": teacher, "encoder": small, "correlation": agreed}
    base: list[Fitted] = []
    found = students(pool, bought, small_B, num_seeds=arguments.seeds)
    for way, (num, group) in found.items():
        base = base or group
        figures[way] = cells(pool, group, base, teacher)
        print(line(num, way, figures[way]), flush=True)
    print(json.dumps({"bench": "cascade", "figures": figures}))


if __name__ == "__main__":
    main()
