"""The cosine of a sentence encoder as a teacher: texts to embeddings, pairs to cosines. No Ray.

Input: queries and titles. Output: one float32 logit a pair, scale x cosine + bias. Each distinct
text of a shard is embedded once; BERT-like encoders run without padding.

Shapes: N distinct texts, B pairs, E columns of an embedding.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raydistill.config.teachers import LabelConfig
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.inputs.raw_rows import one_chunk
from raydistill.files.model_files import PinnedModel, load_model
from raydistill.teachers.cross_encoder import Teacher
from raydistill.teachers.heads.pooling import DenseLayers, pool
from raydistill.teachers.heads.sentence_tokenizer import SentenceTokenizer, distinct_texts
from raydistill.teachers.scoring_steps import done_with
from raydistill.teachers.shards.logits import scored_shard
from raydistill.teachers.shards.texts import Item, from_bytes, to_bytes
from raydistill.teachers.stacking import Calibration
from raydistill.teachers.transformer.device import dtype_name, set_up_attention, teacher_dtype
from raydistill.teachers.transformer.model_loading import (
    check_finite,
    check_positions,
    load_encoder,
    quiet_transformers,
    read_config,
)
from raydistill.teachers.transformer.packed_encoder import PackedLayers, can_pack_texts
from raydistill.teachers.transformer.padded_model import (
    PaddedModel,
    named_failure,
    settle,
    settle_padding,
)
from raydistill.teachers.transformer.pair_tokenizer import Tokens
from raydistill.teachers.transformer.token_budget import Counters, TokenBudget
from raydistill.teachers.transformer.tokenizer_check import check_ids, check_texts
from raydistill.teachers.transformer.trial_pairs import SHORT, Pairs, Trial, long_pair

logger = logging.getLogger("raydistill")
_TOKENS_PER_BATCH = {"cpu": 4_096, "cuda": 65_536}  # as of a cross-encoder
_CHUNK_PAIRS = 65_536  # whose embeddings are multiplied at once: 2 x 100 MB at 384 columns
_TRIED_PAIRS = 20


def check_bi_encoder(folder: Path, *, max_length: int, trial: Trial) -> bool:
    """Load the encoder in `folder` and embed trial texts; returns whether texts may be padded.

    Raises:
        UserError: the model is no sentence encoder, lacks weights, takes fewer than `max_length`
            wordpieces, has another model's tokenizer or modules that are not supported, or its
            embeddings depend on the batch or are not finite.
    """
    quiet_transformers()
    config = read_config(folder, trusts_code=trial.trusts_code)
    if any("SequenceClassification" in name for name in config.architectures or []):
        raise UserError(
            f"{folder} is a {', '.join(config.architectures)}, a cross-encoder, whose embeddings "
            "were never trained to be compared; name it as `model`"
        )
    tokenise = SentenceTokenizer(folder, max_length=max_length, trusts_code=trial.trusts_code)
    check_texts(folder, tokenise.tokenizer, [text for pair in trial.pairs for text in pair])
    encoder = BiEncoder(
        folder,
        device=trial.device,
        dtype=trial.dtype,
        max_length=max_length,
        trusts_code=trial.trusts_code,
        pads=True,
    )
    encoder.try_texts(trial)
    return encoder.pads


class BiEncoder(Teacher):
    """A sentence encoder on one device."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str,
        dtype: str,
        max_length: int,
        tokens_per_batch: int | None = None,
        trusts_code: bool = False,
        pads: bool | None = None,
    ) -> None:
        """Load the model in `folder`; `max_length` and `tokens_per_batch` count wordpieces.

        `pads`: whether texts of different length may share a batch; None: tested here.

        Raises:
            UserError: see `check_bi_encoder`.
        """
        quiet_transformers()
        set_up_attention(device)
        self.folder, self.device = folder, device
        self.sentences = SentenceTokenizer(folder, max_length=max_length, trusts_code=trusts_code)
        self.tokenizer, self.max_length = self.sentences.tokenizer, self.sentences.max_length
        self.budget = TokenBudget(tokens_per_batch or _TOKENS_PER_BATCH[device])
        self.dtype = teacher_dtype(dtype, device=device)
        model: Any = load_encoder(folder, dtype=self.dtype, trusts_code=trusts_code)
        check_finite(folder, model)
        check_positions(folder, model.config, max_length=self.max_length, model=model)
        check_ids(folder, self.tokenizer, model)
        model = model.to(device).eval()
        self.config, self.counters = model.config, Counters()
        self.is_packed = can_pack_texts(model)
        self._dense = DenseLayers(folder, self.sentences.rules.dense).to(device).eval()
        self._run = self._packed(model) if self.is_packed else self._padded(model, pads=pads)

    def _packed(self, model: Any) -> Callable[[Tokens], Tensor]:  # noqa: ANN401
        layers, mode = PackedLayers(model), self.sentences.rules.pooling

        def run(tokens: Tokens) -> Tensor:
            is_first_alone = mode == "cls"
            x = layers.hidden(tokens, is_first_alone=is_first_alone)
            return self._finished(x.float() if is_first_alone else pool(x, tokens.lengths_B, mode))

        return run

    def _padded(self, model: Any, *, pads: bool | None) -> PaddedModel:  # noqa: ANN401
        run = _PaddedTexts(model, self)
        if pads is None:
            settle_padding(run, self._sorted(SHORT), dtype=self.dtype, what=str(self.folder))
        else:
            run.pads = pads
        return run

    def _finished(self, pooled_BD: Tensor) -> Tensor:
        """Unit vectors, shape B, E; NaN for a vector of length 0, which has no direction."""
        x_BE: Tensor = self._dense(pooled_BD)
        unit_BE: Tensor = x_BE / x_BE.norm(dim=1, keepdim=True)
        return unit_BE

    def _sorted(self, pairs: Pairs) -> Tokens:
        """The wordpieces of the pairs' distinct texts that the tokenizer knows, longest first."""
        texts = dict.fromkeys(text for pair in pairs for text in pair if text)
        lengths_N = (tokens := self.sentences(list(texts))).lengths_B
        tokens = Tokens(tokens.ids_T, tokens.types_T, lengths_N)
        return tokens.take(np.argsort(-lengths_N, kind="stable")[: np.count_nonzero(lengths_N)])

    def try_texts(self, trial: Trial) -> None:
        """Embed short texts and one of `max_length` wordpieces, each alone and all in one batch.

        Raises:
            UserError: the model fails at a text, gives no finite embedding, or its embeddings
                depend on the batch.
        """
        long = long_pair(trial.pairs, max_length=self.max_length)
        tokens = self._sorted([*SHORT, *trial.pairs[:_TRIED_PAIRS], long])
        what = f"the encoder in {self.folder}"
        with named_failure(what, tokens, of="texts"):
            settle(self._run, tokens, dtype=self.dtype, what=what)
            self._try_label_dtype(tokens, trial.label_dtype)

    def _try_label_dtype(self, tokens: Tokens, name: str) -> None:
        """Embed in the dtype that `label` uses; a packed model is run in its own dtype."""
        dtype = teacher_dtype(name, device=self.device)
        if isinstance(self._run, PaddedModel) and dtype != self.dtype:
            self._run.model.to(dtype)
            self.dtype = dtype
        if not np.isfinite(self.embed(tokens)).any():
            raise UserError(
                f"the encoder in {self.folder} gives no text a finite embedding in "
                f'{dtype_name(self.dtype)}; set label.dtype = "float32", or take another encoder'
            )

    def embed(self, tokens: Tokens) -> NDArray[np.float32]:
        """Unit vectors, shape N, E, in input order; NaN for a text without wordpieces.

        E is 1 if no text has wordpieces.

        Raises:
            torch.OutOfMemoryError: a single text does not fit.
        """
        order = np.argsort(-tokens.lengths_B, kind="stable")
        order = order[: np.count_nonzero(tokens.lengths_B)]
        while (found := self._score_sorted(tokens, order)) is None:
            logger.warning(
                "out of memory may have corrupted these %d embeddings: computing them again",
                len(order),
            )
        num_columns = found.shape[1] if len(order) else 1
        out = np.full((len(tokens.lengths_B), num_columns), np.nan, np.float32)
        out[order] = found.reshape(len(order), num_columns)
        return out

    def _margins(self, batch: Tokens) -> Tensor:
        with torch.inference_mode():
            return self._run(batch)

    def cosines(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float32]:
        """One cosine a pair, in input order; NaN where a text cannot be embedded."""
        columns = [pa.array(column, pa.string()) for column in (queries, titles)]
        texts = distinct_texts(columns[0], columns[1], self.sentences.rules)
        vectors_NE = self.embed(self.sentences(texts.texts))
        return cosines(vectors_NE, texts.query_B, texts.title_B)


class _PaddedTexts(PaddedModel):
    """An encoder that runs a batch padded to its longest text; gives embeddings."""

    def __init__(self, model: Any, encoder: BiEncoder) -> None:  # noqa: ANN401
        super().__init__(model, encoder.tokenizer, has_types=encoder.sentences.read.has_types)
        self._encoder = encoder

    def __call__(self, tokens: Tokens) -> Tensor:
        """Unit vectors, shape B, E."""
        batch = self.batch(tokens)
        hidden_BLD = self.model(**batch).last_hidden_state
        x_TD = hidden_BLD[batch["attention_mask"].bool()]
        mode = self._encoder.sentences.rules.pooling
        return self._encoder._finished(pool(x_TD, tokens.lengths_B, mode))


def cosines(
    vectors_NE: NDArray[np.float32], query_B: NDArray[np.int64], title_B: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The cosine of each pair's unit vectors, shape B."""
    out = np.empty(len(query_B), np.float32)
    for start in range(0, len(query_B), _CHUNK_PAIRS):
        rows = slice(start, start + _CHUNK_PAIRS)
        out[rows] = np.einsum("be,be->b", vectors_NE[query_B[rows]], vectors_NE[title_B[rows]])
    return out


def read_sentences(
    item: Item, _: bytes, *, model: PinnedModel, max_length: int
) -> tuple[Item, bytes]:
    """Read the pairs of `item["folder"]/item["name"]` and tokenise each distinct text."""
    start_s = time.monotonic()
    columns = ["pair_id", "query", "title"]
    pairs = Folder(item["folder"]).read_table(item["name"], columns=columns)
    packed = pack_sentences(pairs, sentence_tokenizer(model, max_length))
    return {**item, "read_s": time.monotonic() - start_s}, packed


@cache
def sentence_tokenizer(model: PinnedModel, max_length: int) -> SentenceTokenizer:
    """The tokenizer of a model, loaded once a process."""
    found = SentenceTokenizer(
        load_model(model), max_length=max_length, trusts_code=model.trusts_code
    )
    load_model(model)  # verify that the files did not change during the load
    return found


def pack_sentences(pairs: pa.Table, tokenise: SentenceTokenizer) -> bytes:
    """Two Arrow streams: the distinct texts' wordpieces, and each pair's two texts."""
    columns = [one_chunk(pairs[name]) for name in ("query", "title")]
    texts = distinct_texts(columns[0], columns[1], tokenise.rules)
    tokens = tokenise(texts.texts)
    edges = pa.array(np.concatenate([[0], np.cumsum(tokens.lengths_B)]), pa.int32())
    reasons = [tokens.reasons.get(row) for row in range(len(texts.texts))]
    of_texts = to_bytes(
        pa.table(
            {
                "ids": pa.ListArray.from_arrays(edges, pa.array(tokens.ids_T)),
                "reason": pa.array(reasons, pa.string()),
            }
        )
    )
    of_pairs = to_bytes(
        pa.table(
            {
                "pair_id": pairs["pair_id"],
                "query": pa.array(texts.query_B, pa.int32()),
                "title": pa.array(texts.title_B, pa.int32()),
            }
        )
    )
    return len(of_texts).to_bytes(8) + of_texts + of_pairs


class ScoreCosines:
    """A sentence encoder on one device: a tokenised shard to its logits."""

    def __init__(
        self,
        *,
        model: PinnedModel,
        settings: LabelConfig,
        device: str,
        calibration: Calibration,
        worker: str = "",
        pads: bool | None = None,
    ) -> None:
        """`worker` names this process; `pads`: as the trial on the driver found it.

        Raises:
            UserError: this machine's model differs from the one that the driver hashed.
        """
        self.worker, self.max_bad_fraction = worker, settings.max_bad_fraction
        self.calibration = calibration
        self.encoder = BiEncoder(
            load_model(model),
            device=device,
            dtype=settings.dtype,
            max_length=settings.max_length,
            tokens_per_batch=settings.tokens_per_batch,
            trusts_code=model.trusts_code,
            pads=pads,
        )
        load_model(model)  # verify that the files did not change during the load

    def __call__(self, item: Item, data: bytes) -> tuple[Item, bytes]:
        """Score a shard; a pair without a finite logit gets null and a reason.

        Raises:
            UserError: see `scored_shard`.
        """
        start_s = time.monotonic()
        end = 8 + int.from_bytes(data[:8])
        texts, pairs = from_bytes(data[8:end]), from_bytes(data[end:])
        self.encoder.counters = Counters()
        vectors_NE = self.encoder.embed(_tokens(one_chunk(texts["ids"])))
        places = [pairs[name].to_numpy().astype(np.int64) for name in ("query", "title")]
        logits_B = self.calibration.logits(cosines(vectors_NE, places[0], places[1]))
        reasons = _reasons(texts["reason"].to_pylist(), vectors_NE, places)
        most = self.max_bad_fraction
        num_bad, scored = scored_shard(
            item, pairs["pair_id"], logits_B, reasons, max_bad_fraction=most
        )
        done = done_with(self.encoder, num_rows=len(logits_B), num_bad=num_bad, start_s=start_s)
        return {**item, **done, "texts": len(vectors_NE), "worker": self.worker}, scored


def _tokens(ids: pa.ListArray) -> Tokens:
    """The wordpieces of texts as the encoder takes them; a single text has one token type."""
    ids_T = np.asarray(ids.flatten()).astype(np.int32)
    return Tokens(ids_T, np.zeros_like(ids_T), np.diff(np.asarray(ids.offsets)).astype(np.int64))


def _reasons(
    of_texts: list[str | None], vectors_NE: NDArray[np.float32], places: list[NDArray[np.int64]]
) -> list[str | None]:
    """Why a pair has no cosine: its query's reason, else its title's."""
    is_bad_N: NDArray[np.bool_] = np.asarray(~np.isfinite(vectors_NE).all(axis=1))
    reasons: list[str | None] = [None] * len(places[0])
    for name, place_B in zip(("title", "query"), places[::-1], strict=True):
        for row in np.flatnonzero(is_bad_N[place_B]):
            why = of_texts[place_B[row]] or "its embedding is not finite or has length 0"
            reasons[row] = f"{name}: {why}"
    return reasons
