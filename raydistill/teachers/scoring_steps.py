"""The steps of `label` for a teacher that reads tokens: tokenise a shard, score it. No Ray."""

from __future__ import annotations

import time
from functools import cache
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.config.teachers import LabelConfig
from raydistill.files.model_files import PinnedModel, load_model
from raydistill.teachers.cross_encoder import Teacher, load_pair_tokenizer
from raydistill.teachers.heads.class_gains import GivenGains
from raydistill.teachers.shards.logits import scored_shard
from raydistill.teachers.shards.texts import Item, from_bytes, shard_pieces, to_bytes
from raydistill.teachers.transformer.device import device_use
from raydistill.teachers.transformer.pair_tokenizer import PairTokenizer, Tokens
from raydistill.teachers.transformer.prompt_tokenizer import PromptTokenizer
from raydistill.teachers.transformer.token_budget import Counters


def read_tokens(
    item: Item, _: bytes, *, model: PinnedModel, max_length: int, prompt: str | None = None
) -> tuple[Item, bytes]:
    """Read the pairs of `item["folder"]/item["name"]` and tokenise them piece by piece."""
    return read_with(item, _tokenizer(model, max_length, prompt))


def read_with(item: Item, tokenise: PairTokenizer | PromptTokenizer) -> tuple[Item, bytes]:
    """`read_tokens` with a loaded tokenizer."""
    start_s = time.monotonic()
    packed = [_pack(pairs, tokenise) for pairs in shard_pieces(item)]
    # Each piece has the smallest types that hold its values; promotion uses the largest of them.
    table = pa.concat_tables(packed, promote_options="permissive")
    return {**item, "read_s": time.monotonic() - start_s}, to_bytes(table)


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


def _unpack(batch: pa.RecordBatch) -> Tokens:
    """The tokens of a piece that `_pack` made, without the reasons."""
    ids, types = batch.column("ids"), batch.column("types")
    ids_T = np.asarray(ids.flatten()).astype(np.int32)
    types_T = np.zeros_like(ids_T)
    if types.null_count < len(types):
        types_T = np.asarray(types.flatten()).astype(np.int32)
    return Tokens(ids_T, types_T, np.diff(np.asarray(ids.offsets)).astype(np.int64))
