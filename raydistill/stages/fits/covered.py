"""Copies of the scored pairs, where no teacher scores every pair: see runs/covered.py."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from functools import partial

import numpy as np
import pyarrow as pa

from raydistill.cluster.tasks import Item, run_tasks
from raydistill.files.folder import SUCCESS, Folder
from raydistill.files.pieces import PieceReader, pieces_of
from raydistill.files.schema import LOGITS, PAIRS
from raydistill.progress import Progress
from raydistill.runs.covered import covered_folder, is_sparse
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import pair_shards
from raydistill.stages.fits.lexicon import groups_of
from raydistill.teachers.judged_logits import stack_of
from raydistill.teachers.soft_labels import read_logits

logger = logging.getLogger("raydistill")


def copy_scored(run: Run) -> None:
    """Copy the scored pairs that the run's student learns from, if it does not learn from all."""
    if any(run.config.is_partial(name) for name in run.config.teachers):
        write_covered(run, stack_of(run).counted)


def write_covered(run: Run, names: Collection[str]) -> None:
    """Copy the pairs that have a logit of one of these teachers, unless one scores every pair."""
    if not is_sparse(run, names):
        return
    folder = covered_folder(run, names)
    if folder.success() is not None:
        return
    start_s, shards = time.monotonic(), pair_shards(run)
    items: list[Item] = [{"shards": group} for group in groups_of(shards)]
    progress = Progress("train", num_items=len(items), num_rows=None, unit="groups of shards")
    copied: dict[str, int] = {}
    copy = partial(_copy, run=run, folder=folder, names=tuple(names))
    for result in run_tasks(items, copy, cpus=1):
        if result["rows"]:
            copied[result["name"]] = result["rows"]
        progress.add(rows=result["read"], note="scored pairs copied")
    num_pairs, num_copied = sum(shards.values()), sum(copied.values())
    summary = {
        "fingerprint": folder.uri.rpartition("/")[2],
        "rows_in": num_pairs,
        "rows_out": num_copied,
        "seconds": round(time.monotonic() - start_s, 1),
        "shards": dict(sorted(copied.items())),
    }
    folder.write_json(SUCCESS, summary)
    logger.info("train     %s of %s pairs have a logit", f"{num_copied:,}", f"{num_pairs:,}")


def _copy(item: Item, *, run: Run, folder: Folder, names: tuple[str, ...]) -> Item:
    """Write the scored pairs of some shards, and their logits, as shards named after the first."""
    name, pairs_to = min(item["shards"]), folder / "pairs"
    result = {"name": name, "read": sum(item["shards"].values())}
    if pairs_to.exists(name):  # written last
        return {**result, "rows": pairs_to.metadata(name).num_rows}
    reader, parts = PieceReader(), [PAIRS.empty_table()]
    columns = [np.empty((0, len(names)), np.float32)]
    for piece in pieces_of(item["shards"]):
        pairs = reader.read(run.pairs, piece, columns=PAIRS.names)
        logits_BM = np.stack(
            [read_logits(run.logits(each), piece, pairs, reader=reader) for each in names], axis=1
        )
        is_scored = np.isfinite(logits_BM).any(axis=1)
        parts.append(pairs.filter(pa.array(is_scored)))
        columns.append(logits_BM[is_scored])
    scored, logits_BM = pa.concat_tables(parts), np.concatenate(columns)
    if scored.num_rows:
        for at, each in enumerate(names):
            logits = pa.array(logits_BM[:, at], mask=~np.isfinite(logits_BM[:, at]))
            table = pa.table([scored["pair_id"], logits], schema=LOGITS)
            (folder / each).write_table(name, table)
        pairs_to.write_table(name, scored)
    return {**result, "rows": scored.num_rows}
