"""The pairs that a teacher is fine-tuned on: judged pairs, or pairs with another teacher's logits.

Input: the run folder. Output: tables with query, title and label 0..1. No Ray, no torch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.pieces import PieceReader
from raydistill.files.prefetch import prefetch
from raydistill.files.schema import JUDGED
from raydistill.progress import Progress
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import pair_shards
from raydistill.teachers.selection import Selection, mixed, ranks
from raydistill.teachers.soft_labels import read_logits, scored_pieces, soft_labels

logger = logging.getLogger("raydistill")
# Shards hold random queries: 10 times the pairs that are needed give each query its share. Reading
# all of 10^9 pairs for 200,000 would take longer than the fit.
_ENOUGH = 10


def finetune_pairs(run: Run, name: str, split: str) -> Iterator[pa.Table]:
    """The pairs of a split that a teacher is fine-tuned on (train) or measured on (dev)."""
    teacher = run.config.teachers[name]
    if split == "train" and teacher.learns_from is not None:
        folder, file = learned_file(run, name)
        yield folder.read_table(file)
        return
    settings, judged, folder = run.config.finetune, run.config.judged_rules, run.judged(split)
    for shard in folder.shards():
        rows = folder.read_table(shard)
        if settings.target == "binary" and split == "train":
            labels = rows["label"].to_numpy() >= judged.relevant_at
            at = rows.column_names.index("label")
            rows = rows.set_column(at, "label", pa.array(labels.astype(np.float32)))
        yield rows


def learned_file(run: Run, name: str) -> tuple[Folder, str]:
    """The file of the pairs that a teacher learned from another one, beside its folder."""
    return run.root / "teachers", f"{name}-{run.finetune_fingerprint(name)}.parquet"


def write_learned(run: Run, name: str) -> int:
    """Write the pairs that a teacher learns from another one, if they are not there; their number.

    At most `finetune.max_pairs` pairs of the transfer set with a logit of the other teacher, in
    turns over the queries. The label is the sigmoid of the logit.

    Raises:
        UserError: the other teacher has no logit.
    """
    folder, file = learned_file(run, name)
    if not folder.exists(file):
        folder.write_table(file, _learned_pairs(run, name))
    return int(folder.open_table(file).metadata.num_rows)


def _learned_pairs(run: Run, name: str) -> pa.Table:
    source, settings = run.config.teachers[name].learns_from, run.config.finetune
    if source is None:
        raise ValueError(f"teacher {name} does not learn from another one")
    selection, num_known = Selection(settings.max_pairs), 0
    for pairs in prefetch(_known_pairs(run, source, seed=settings.seed), depth=1):
        keys = mixed(pairs["pair_id"].to_numpy(), seed=settings.seed)
        num_known += len(np.unique(keys))  # without copies
        none = np.zeros(len(keys), bool)
        places = ranks(_groups(pairs), keys, is_labeled_B=none)
        rows = np.flatnonzero(selection.may_enter(places, keys))
        selection.add(
            pairs.take(pa.array(rows)),
            passes_B=np.ones(len(rows), np.int64),
            ranks_B=places[rows],
            keys_B=keys[rows],
        )
        if num_known >= _ENOUGH * settings.max_pairs:
            break
    table = selection.table()
    if table is None or not table.num_rows:
        raise UserError(
            f"teacher {source} has a logit of no pair of the transfer set: {name} cannot learn "
            "from it; have it score some pairs, or leave `learns_from` out"
        )
    logger.info("finetune  %s learns from %s: %s pairs of %s queries", name, source,
                f"{table.num_rows:,}", f"{len(table['query'].unique()):,}")  # fmt: skip
    return table


def _known_pairs(run: Run, source: str, *, seed: int) -> Iterator[pa.Table]:
    """The pairs of each shard that a teacher has a logit for; the shards in random order.

    Texts are read of the row groups with a logit alone: 30,000 of 10^9 pairs may be known.
    """
    shards = pair_shards(run)
    names = sorted(shards)
    order = np.random.default_rng(seed).permutation(len(names))
    num_rows = sum(shards.values())
    progress = Progress("finetune", num_items=len(shards), num_rows=num_rows, unit="shards read")
    for name in (names[at] for at in order):
        known = _known_in(run.pairs, run.logits(source), name)
        if known is not None:
            yield known
        progress.add(rows=shards[name])


def _known_in(folder: Folder, logits: Folder, name: str) -> pa.Table | None:
    """The pairs of a shard that have a logit, with labels; None if there is none."""
    reader, tables = PieceReader(), []
    for piece in scored_pieces(logits, name):
        pairs = reader.read(folder, piece, columns=["pair_id", "query", "title", "weight"])
        margins = read_logits(logits, piece, pairs, reader=reader)
        known = np.flatnonzero(np.isfinite(margins))
        if len(known):
            labels = soft_labels(margins[known][:, None], weights_M=(1.0,))
            some = pairs.take(pa.array(known)).append_column("label", pa.array(labels))
            tables.append(some.cast(JUDGED))
    return pa.concat_tables(tables) if tables else None


def _groups(pairs: pa.Table) -> NDArray[np.int64]:
    """The number of each pair's query; for single texts, of its title."""
    has_query = bool(pairs["query"][0].as_py())
    text = pairs["query" if has_query else "title"].combine_chunks()
    return np.asarray(text.dictionary_encode().indices.to_numpy(), np.int64)
