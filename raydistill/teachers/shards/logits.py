"""The logits of a shard, checked and written; pairs without one go to quarantine. No Ray."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.pieces import PIECE_ROWS
from raydistill.files.schema import LOGITS, QUARANTINE
from raydistill.files.stores.s3_options import split_options
from raydistill.teachers.shards.texts import Item, from_bytes, shard_pieces, to_bytes

_SHOWN_CHARS = 200  # of a text in quarantine/
# A shard with at most this many bad pairs does not stop the run, as a few may be a large share of a
# small shard. The bad pairs of all shards are counted at the end.
_FEW_BAD_PAIRS = 10
MARK = b"raydistill.logits"  # the key of the mark in a logits file
SCORED = LOGITS.append(pa.field("reason", pa.string()))  # reason: why there is no logit


def scored_shard(
    item: Item,
    pair_ids: pa.ChunkedArray,
    logits: NDArray[np.float32],
    reasons: list[str | None],
    *,
    max_bad_fraction: float,
) -> tuple[int, bytes]:
    """The number of pairs without a finite logit, and the shard's logits for `write_logits`.

    `reasons`: of pairs that were not scored; other pairs without a finite logit get one here.

    Raises:
        UserError: more than `max_bad_fraction` of the pairs, and more than 10, are bad.
    """
    bad = np.flatnonzero(~np.isfinite(logits))
    for row in bad:
        reasons[row] = reasons[row] or f"the teacher gave {logits[row]}"
    if len(bad) > max(_FEW_BAD_PAIRS, max_bad_fraction * len(logits)):
        raise UserError(
            too_many_bad(len(bad), len(logits), max_bad_fraction)
            + f", the first in {item['target']}, row {bad[0]}: {reasons[bad[0]]}"
        )
    scored = pa.array(logits, mask=~np.isfinite(logits))
    table = pa.table([pair_ids, scored, pa.array(reasons, pa.string())], schema=SCORED)
    return len(bad), to_bytes(table)


def write_logits(
    item: Item, data: bytes, *, logits: Folder, quarantine: Folder
) -> tuple[Item, bytes]:
    """Write a shard's logits. Its bad pairs are written first: logits mark the shard complete."""
    table = from_bytes(data)
    if item["bad_rows"]:
        quarantine.write_table(item["target"], _bad_pairs(item, table))
    scored = table.select(LOGITS.names).replace_schema_metadata(logits_mark(logits))
    logits.write_table(item["target"], scored)
    return item, b""


def logits_mark(logits: Folder) -> dict[bytes, bytes]:
    """The schema metadata of the files in a teacher's folder: its name, teacher and fingerprint.

    All teachers have files of the same names and pairs; `verify` finds one in another's folder.
    """
    return {MARK: split_options(logits.uri)[0].rpartition("/")[2].encode()}


def _bad_pairs(item: Item, table: pa.Table) -> pa.Table:
    rows = np.flatnonzero(table["logit"].is_null().to_numpy())
    edges = np.searchsorted(rows, np.arange(0, table.num_rows + PIECE_ROWS, PIECE_ROWS))
    pairs = pa.concat_tables(
        piece.take(pa.array(rows[edges[at] : edges[at + 1]] - at * PIECE_ROWS))
        for at, piece in enumerate(shard_pieces(item))
    )
    texts = [
        pa.array([text[:_SHOWN_CHARS] for text in pairs[name].to_pylist()], pa.string())
        for name in ("query", "title")
    ]
    source = pa.repeat(pa.scalar(f"{item['folder']}/{item['name']}"), len(rows))
    reasons = table["reason"].take(rows)
    return pa.table([source, pa.array(rows), reasons, *texts], schema=QUARANTINE)


def too_many_bad(num_bad: int, num_rows: int, max_bad_fraction: float) -> str:
    """The message about pairs without a logit, with the remedies."""
    return (
        f"{num_bad:,} of {num_rows:,} pairs got no logit, label.max_bad_fraction allows "
        f'{math.floor(max_bad_fraction * num_rows):,}; set label.dtype = "float32", repair the '
        "teacher, or raise label.max_bad_fraction"
    )


def count_bad(quarantine: Folder, targets: list[str]) -> int:
    """The number of pairs of all shards in quarantine/; most shards have none."""
    folders = {target.rpartition("/")[0] for target in targets}
    found = [
        f"{folder}/{name}".removeprefix("/")
        for folder in sorted(folders)
        for name in (quarantine / folder if folder else quarantine).shards()
    ]
    wanted = set(targets)
    return sum(quarantine.read_table(n, columns=["row"]).num_rows for n in found if n in wanted)
