"""The steps of `label` for one shard: read, tokenise, score, write. No Ray.

Each step takes and returns the shard's item and bytes, so the steps may run in one process or in
three. The bytes are an Arrow stream of all pairs of the shard in order, one record batch a piece.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.config.teachers import LabelConfig
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.model_files import PinnedModel, load_model
from raydistill.files.pieces import PIECE_ROWS
from raydistill.files.schema import JUDGED, LOGITS, PAIRS, QUARANTINE, check_schema
from raydistill.files.stores.s3_options import split_options
from raydistill.teachers.cross_encoder import Teacher, load_pair_tokenizer
from raydistill.teachers.heads.class_gains import GivenGains
from raydistill.teachers.transformer.device import device_use
from raydistill.teachers.transformer.pair_tokenizer import PairTokenizer, Tokens
from raydistill.teachers.transformer.prompt_tokenizer import PromptTokenizer
from raydistill.teachers.transformer.token_budget import Counters

Item = dict[str, Any]
Step = Callable[[Item, bytes], tuple[Item, bytes]]  # as in cluster/tasks.py
_SHOWN_CHARS = 200  # of a text in quarantine/
# A shard with at most this many bad pairs does not stop the run, as a few may be a large share of a
# small shard. The bad pairs of all shards are counted at the end.
_FEW_BAD_PAIRS = 10
MARK = b"raydistill.logits"  # the key of the mark in a logits file
SCORED = LOGITS.append(pa.field("reason", pa.string()))  # reason: why there is no logit


def read_texts(item: Item, _: bytes) -> tuple[Item, bytes]:
    """Read id, query and title of the pairs of `item["folder"]/item["name"]`."""
    start_s = time.monotonic()
    columns = ["pair_id", "query", "title"]
    table = Folder(item["folder"]).read_table(item["name"], columns=columns)
    return {**item, "read_s": time.monotonic() - start_s}, to_bytes(table)


def read_tokens(
    item: Item, _: bytes, *, model: PinnedModel, max_length: int, prompt: str | None = None
) -> tuple[Item, bytes]:
    """Read the pairs of `item["folder"]/item["name"]` and tokenise them piece by piece."""
    return read_with(item, _tokenizer(model, max_length, prompt))


def read_with(item: Item, tokenise: PairTokenizer | PromptTokenizer) -> tuple[Item, bytes]:
    """`read_tokens` with a loaded tokenizer."""
    start_s = time.monotonic()
    packed = [_pack(pairs, tokenise) for pairs in _read_pieces(item)]
    # Each piece has the smallest types that hold its values; promotion uses the largest of them.
    table = pa.concat_tables(packed, promote_options="permissive")
    return {**item, "read_s": time.monotonic() - start_s}, to_bytes(table)


def _read_pieces(item: Item) -> Iterator[pa.Table]:
    """The pairs of a shard, `PIECE_ROWS` or fewer at a time; one empty table for an empty shard."""
    rows = Folder(item["folder"]).open_rows(item["name"], by_range=False)
    for start in range(0, max(rows.num_rows, 1), PIECE_ROWS):
        pairs = rows.read(start, start + PIECE_ROWS)
        expected = JUDGED if "label" in pairs.column_names else PAIRS
        check_schema(pairs.schema, expected, what=f"{item['folder']}/{item['name']}")
        yield pairs


def _pack(pairs: pa.Table, tokenise: PairTokenizer | PromptTokenizer) -> pa.Table:
    """The tokens of a piece, one row a pair, in the smallest types.

    `ids` are uint16 for vocabularies up to 65,536; `types` are uint8, or null if all are 0. A pair
    of 31 wordpieces takes at most 31 x 3 + 20 = 113 bytes.
    """
    tokens = tokenise(pairs["query"].to_pylist(), pairs["title"].to_pylist())
    edges = pa.array(np.concatenate([[0], np.cumsum(tokens.lengths_B)]), pa.int32())
    types = pa.nulls(pairs.num_rows)
    if tokens.types_T.any():
        types = pa.ListArray.from_arrays(edges, _narrowed(tokens.types_T))
    return pa.table(
        {
            "pair_id": pairs["pair_id"].combine_chunks(),
            "ids": pa.ListArray.from_arrays(edges, _narrowed(tokens.ids_T)),
            "types": types,
            "reason": pa.array([tokens.reasons.get(r) for r in range(len(edges) - 1)], pa.string()),
        }
    )


def _narrowed(values: NDArray[np.int32]) -> pa.Array:
    """The same non-negative numbers in the smallest type that holds them."""
    return pa.array(values.astype(np.min_scalar_type(int(values.max(initial=0)))))


@cache
def _tokenizer(
    model: PinnedModel, max_length: int, prompt: str | None
) -> PairTokenizer | PromptTokenizer:
    """The tokenizer, loaded once a process: a process runs many tasks."""
    tokenise = load_pair_tokenizer(
        load_model(model), max_length=max_length, prompt=prompt, trusts_code=model.trusts_code
    )
    load_model(model)  # verify that the files did not change during the load
    return tokenise


class ScoreTokens:
    """A teacher on one device: a tokenised shard to its logits."""

    def __init__(
        self,
        *,
        model: PinnedModel,
        settings: LabelConfig,
        device: str,
        worker: str = "",
        prompt: str | None = None,
        gains: GivenGains | None = None,
        pads: bool | None = None,
    ) -> None:
        """`worker` names this process, so that the number of working processes can be counted.

        `pads`: whether pairs may be padded, as tested on the driver; None: tested here.

        Raises:
            UserError: this machine's model differs from the one that the driver hashed.
        """
        self.worker, self.max_bad_fraction = worker, settings.max_bad_fraction
        self.teacher = Teacher(
            load_model(model),
            device=device,
            dtype=settings.dtype,
            max_length=settings.max_length,
            tokens_per_batch=settings.tokens_per_batch,
            prompt=prompt,
            gains=gains,
            trusts_code=model.trusts_code,
            pads=pads,
        )
        load_model(model)  # verify that the files did not change during the load

    @classmethod
    def of(cls, teacher: Teacher, *, settings: LabelConfig, worker: str = "") -> Self:
        """The step of a teacher that is loaded."""
        step = cls.__new__(cls)
        step.teacher, step.worker = teacher, worker
        step.max_bad_fraction = settings.max_bad_fraction
        return step

    def __call__(self, item: Item, data: bytes) -> tuple[Item, bytes]:
        """Score a shard; a pair without a finite logit gets null and a reason.

        Raises:
            UserError: more than `label.max_bad_fraction` of the pairs, and more than 10, are bad.
        """
        start_s = time.monotonic()
        table = from_bytes(data)
        self.teacher.counters = Counters()
        parts = [self.teacher.score(_unpack(batch)) for batch in table.to_batches()]
        logits = np.concatenate([np.empty(0, np.float32), *parts])
        ids, reasons = table["pair_id"], table["reason"].to_pylist()
        most = self.max_bad_fraction
        num_bad, scored = scored_shard(item, ids, logits, reasons, max_bad_fraction=most)
        done = done_with(self.teacher, num_rows=len(logits), num_bad=num_bad, start_s=start_s)
        return {**item, **done, "worker": self.worker}, scored


def done_with(teacher: Teacher, *, num_rows: int, num_bad: int, start_s: float) -> Item:
    """What a teacher's actor counted at a shard that it began at `start_s`."""
    counters = teacher.counters
    return {
        "rows": num_rows,
        "bad_rows": num_bad,
        "tokens": counters.num_tokens,
        "padded_tokens": counters.num_padded_tokens,
        "out_of_memory": counters.num_out_of_memory,
        "score_s": time.monotonic() - start_s,
        "use": device_use(teacher.device, dtype=teacher.dtype),
    }


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
        for at, piece in enumerate(_read_pieces(item))
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


def to_bytes(table: pa.Table) -> bytes:
    """The table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_bytes(data: bytes) -> pa.Table:
    """The inverse of `to_bytes`."""
    return pa.ipc.open_stream(data).read_all()


def _unpack(batch: pa.RecordBatch) -> Tokens:
    """The tokens of a piece that `_pack` made, without the reasons."""
    ids, types = batch.column("ids"), batch.column("types")
    ids_T = np.asarray(ids.flatten()).astype(np.int32)
    types_T = np.zeros_like(ids_T)
    if types.null_count < len(types):
        types_T = np.asarray(types.flatten()).astype(np.int32)
    return Tokens(ids_T, types_T, np.diff(np.asarray(ids.offsets)).astype(np.int64))
