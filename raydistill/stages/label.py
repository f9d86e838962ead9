"""label: every teacher scores the shards it has not scored yet; one logits file a shard.

A shard is the unit of commit: its logits are there, whole, or not at all. What is left is the list
of shards minus the list of logits files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import torch

from raydistill.cluster import Cluster
from raydistill.config import LabelConfig
from raydistill.errors import UserError
from raydistill.progress import Progress
from raydistill.run import Run
from raydistill.schema import JUDGED, LOGITS, PAIRS, check_schema
from raydistill.stages.tasks import Item, run_actors
from raydistill.storage import SUCCESS, Folder
from raydistill.teacher import Teacher, check_model

logger = logging.getLogger("raydistill")
SCORED_SPLITS = ("dev", "test")  # what tune and evaluate compare the teachers on


def run(run: Run, cluster: Cluster) -> bool:
    """Score the missing shards of every teacher; False if none was missing.

    Raises:
        UserError: no pairs yet, a teacher that is not fine-tuned yet or is no cross-encoder.
    """
    shards = all_shards(run)
    for name in run.config.teachers:  # every teacher is looked at before the first one works
        _check_teacher(run, name)
    return any([_label(run, name, shards, cluster) for name in run.config.teachers])


def all_shards(run: Run) -> dict[str, tuple[Folder, str, int]]:
    """Name of each logits file to the shard it is for: folder, name, rows."""
    pairs, judged = run.pairs.success(), (run.root / "judged").success()
    if pairs is None or judged is None:
        raise UserError(f"{run.root} has no pairs yet: run `prepare` first")
    found = {name: (run.pairs, name, rows) for name, rows in pairs["shards"].items()}
    for path, rows in judged["shards"].items():
        split, _, name = path.partition("/")
        if split in SCORED_SPLITS:
            found[f"judged/{path}"] = (run.judged(split), name, rows)
    return found


def _check_teacher(run: Run, name: str) -> None:
    folder = run.teacher(name)
    if run.config.teachers[name].base is not None and folder.success() is None:
        raise UserError(f"teacher {name} is not fine-tuned yet: run `finetune` first")
    check_model(folder.download())


def missing_shards(
    shards: Mapping[str, tuple[Folder, str, int]], logits: Folder
) -> list[tuple[str, Folder, str, int]]:
    """The shards without a logits file, by one listing of each folder."""
    there = set(logits.shards())
    for split in SCORED_SPLITS:
        there |= {f"judged/{split}/{name}" for name in (logits / "judged" / split).shards()}
    return [(target, *place) for target, place in shards.items() if target not in there]


def _label(
    run: Run, name: str, shards: Mapping[str, tuple[Folder, str, int]], cluster: Cluster
) -> bool:
    logits, settings = run.logits(name), run.config.label
    left = missing_shards(shards, logits)
    if not left and logits.success() is not None:
        return False
    if 0 < len(left) < len(shards):
        logger.info(
            "label     %s: %d of %d shards are there", name, len(shards) - len(left), len(shards)
        )
    items = [
        {"target": target, "folder": folder.uri, "shard": shard, "rows": rows}
        for target, folder, shard, rows in left
    ]
    gpus = settings.num_gpus if cluster.num_gpus else 0.0
    num_actors = settings.num_actors or cluster.num_actors(gpus_each=settings.num_gpus)
    make = partial(
        Labeler,
        model=run.teacher(name).uri,
        logits=logits.uri,
        settings=settings,
        num_threads=cluster.threads_per_actor,
    )
    totals = _score(name, items, make, num_actors=num_actors, gpus=gpus)
    num_rows = sum(rows for _, _, rows in shards.values())
    summary = {
        "fingerprint": run.label_fingerprint(name),
        "rows_in": num_rows,
        "rows_out": num_rows,
        "quarantined": 0,
        "shards": len(shards),
        **totals,
    }
    logits.write_json(SUCCESS, summary)
    return True


def _score(
    name: str,
    items: list[Item],
    make: Callable[[], Callable[[Item], Item]],
    *,
    num_actors: int,
    gpus: float,
) -> dict[str, Any]:
    """Score the items; what this attempt did."""
    start_s = time.monotonic()
    rows = sum(item["rows"] for item in items)
    progress = Progress("label", num_items=len(items), num_rows=rows, unit="shards")
    tokens = padded = 0
    busy_s = 0.0
    for result in run_actors(items, make, num_actors=num_actors, gpus=gpus):
        tokens += result["tokens"]
        padded += result["padded_tokens"]
        busy_s += result["busy_s"]
        padding = 1 - tokens / max(padded, 1)
        progress.add(
            rows=result["rows"], note=f"{name}, {padding:.1%} padding, {num_actors} actors"
        )
    return {
        "seconds": round(time.monotonic() - start_s, 1),
        "rows_scored": rows,
        "rows_per_s": round(progress.rate()) if items else 0,
        "actor_us_per_pair": round(1e6 * busy_s / max(rows, 1), 1),
        "tokens": tokens,
        "padding": round(1 - tokens / max(padded, 1), 4),
    }


class Labeler:
    """An actor that holds a teacher: a shard's name in, its logits file written."""

    def __init__(self, *, model: str, logits: str, settings: LabelConfig, num_threads: int) -> None:
        """Load the teacher on the GPU that Ray gave this actor, else on `num_threads` cores."""
        device = "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"
        if device == "cpu":
            torch.set_num_threads(num_threads)
        self.logits = Folder(logits)
        self.teacher = Teacher(
            Folder(model).download(),
            device=device,
            dtype=settings.dtype,
            max_length=settings.max_length,
            tokens_per_batch=settings.tokens_per_batch,
        )

    def __call__(self, item: Item) -> Item:
        """Score one shard; rows, tokens and padding of it."""
        start_s = time.monotonic()
        pairs = Folder(item["folder"]).read_table(item["shard"])
        expected = JUDGED if "label" in pairs.column_names else PAIRS
        check_schema(pairs.schema, expected, what=f"{item['folder']}/{item['shard']}")
        before = (self.teacher.counters.num_tokens, self.teacher.counters.num_padded_tokens)
        logits = self.teacher.logits(pairs["query"].to_pylist(), pairs["title"].to_pylist())
        table = pa.table([pairs["pair_id"], pa.array(logits)], schema=LOGITS)
        self.logits.write_table(item["target"], table)
        after = (self.teacher.counters.num_tokens, self.teacher.counters.num_padded_tokens)
        return {
            "rows": len(logits),
            "tokens": after[0] - before[0],
            "padded_tokens": after[1] - before[1],
            "busy_s": time.monotonic() - start_s,
        }
