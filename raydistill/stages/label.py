"""label: every teacher scores the shards it has not scored yet; one logits file a shard.

A shard is the unit of commit: its logits are there, whole, or not at all. What is left is the list
of shards minus the list of logits files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raydistill.cluster import Cluster
from raydistill.config import LabelConfig
from raydistill.errors import UserError
from raydistill.progress import Progress
from raydistill.run import Run, model_folder
from raydistill.schema import JUDGED, LOGITS, PAIRS, check_schema
from raydistill.shards import Shard, missing_shards, shards_to_score
from raydistill.stages.fit import has_gpu
from raydistill.stages.tasks import Item, run_actors
from raydistill.storage import SUCCESS, Folder
from raydistill.teacher import Teacher, check_model

logger = logging.getLogger("raydistill")


def run(run: Run, cluster: Cluster) -> bool:
    """Score the missing shards of every teacher; False if none was missing.

    Raises:
        UserError: no pairs yet, a teacher that is not fine-tuned yet or is no cross-encoder.
    """
    shards_to_score(run)  # prepare is complete
    for name in run.config.teachers:  # every teacher is looked at before the first one works
        check_teacher(run, name)
    return any([_label(run, name, cluster) for name in run.config.teachers])


def check_teacher(run: Run, name: str) -> None:
    """Raise UserError unless the teacher is there and can score pairs."""
    folder = run.teacher(name)
    if run.config.teachers[name].base is not None and folder.success() is None:
        raise UserError(f"teacher {name} is not fine-tuned yet: run `finetune` first")
    check_model(folder.download(), max_length=run.config.label.max_length)


def _label(run: Run, name: str, cluster: Cluster) -> bool:
    shards, left = shards_to_score(run), missing_shards(run, name)
    logits, settings = run.logits(name), run.config.label
    if not left and logits.success() is not None:
        return False
    if 0 < len(left) < len(shards):
        done = len(shards) - len(left)
        logger.info("label     %s: %d of %d shards are there", name, done, len(shards))
    gpus = settings.num_gpus if cluster.num_gpus else 0.0
    num_actors = settings.num_actors or cluster.num_actors(gpus_each=settings.num_gpus)
    # A ready-made teacher goes by its name: another machine has it in another folder.
    model = run.config.teachers[name].model or run.teacher(name).uri
    make = partial(Labeler, model=model, logits=logits.uri, settings=settings)
    totals = _score(name, left, make, num_actors=num_actors, gpus=gpus)
    still = missing_shards(run, name)
    if still:
        raise RuntimeError(
            f"{len(still)} shards were scored but are not in {logits}, {still[0].target} among "
            "them; do all machines see the run folder?"
        )
    num_rows = sum(shard.num_rows for shard in shards)
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
    shards: list[Shard],
    make: Callable[[], Callable[[Item], Item]],
    *,
    num_actors: int,
    gpus: float,
) -> dict[str, Any]:
    """Score the items; what this attempt did."""
    start_s = time.monotonic()
    rows = sum(shard.num_rows for shard in shards)
    items = [{"folder": s.folder.uri, "name": s.name, "target": s.target} for s in shards]
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
        "actor_us_per_pair": round(1e6 * busy_s / rows, 1) if rows else None,
        "tokens": tokens,
        "padding": round(1 - tokens / max(padded, 1), 4),
    }


class Labeler:
    """An actor that holds a teacher: a shard's name in, its logits file written."""

    def __init__(self, *, model: str, logits: str, settings: LabelConfig) -> None:
        """Load the teacher on the GPU that Ray gave this actor, else on one core."""
        device = "cuda" if has_gpu() else "cpu"
        if device == "cpu":
            torch.set_num_threads(1)  # an actor a core does more than one actor on all of them
        self.logits = Folder(logits)
        self.teacher = Teacher(
            model_folder(model).download(),
            device=device,
            dtype=settings.dtype,
            max_length=settings.max_length,
            tokens_per_batch=settings.tokens_per_batch,
        )

    def __call__(self, item: Item) -> Item:
        """Score one shard; rows, tokens and padding of it."""
        start_s = time.monotonic()
        pairs = Folder(item["folder"]).read_table(item["name"])
        expected = JUDGED if "label" in pairs.column_names else PAIRS
        check_schema(pairs.schema, expected, what=f"{item['folder']}/{item['name']}")
        before = (self.teacher.counters.num_tokens, self.teacher.counters.num_padded_tokens)
        logits = self.teacher.logits(pairs["query"].to_pylist(), pairs["title"].to_pylist())
        if not np.isfinite(logits).all():
            bad = int(np.flatnonzero(~np.isfinite(logits))[0])
            raise UserError(
                f"the teacher gave {logits[bad]} for {pairs.slice(bad, 1).to_pylist()[0]}; "
                'set label.dtype = "float32", or mend the teacher'
            )
        table = pa.table([pairs["pair_id"], pa.array(logits)], schema=LOGITS)
        self.logits.write_table(item["target"], table)
        after = (self.teacher.counters.num_tokens, self.teacher.counters.num_padded_tokens)
        return {
            "rows": len(logits),
            "tokens": after[0] - before[0],
            "padded_tokens": after[1] - before[1],
            "busy_s": time.monotonic() - start_s,
        }
