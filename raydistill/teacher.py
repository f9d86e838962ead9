"""Pairs to logits: load a cross-encoder, sort by length, batch by token budget, run.

Comes in: queries and titles, or their Tokens. Goes out: one float32 logit a pair, in order. No Ray.
"""

from __future__ import annotations

import gc
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging as hf_logging

from raydistill.device import device_name, dtype_name, is_out_of_memory, teacher_dtype
from raydistill.errors import UserError
from raydistill.packing import PackedEncoder, can_pack
from raydistill.prompt_tokenizer import PromptTokenizer, is_decoder, make_tokenizer, needs_prompt
from raydistill.token_budget import TokenBudget
from raydistill.tokens import PairTokenizer, Tokens, model_root

logger = logging.getLogger("raydistill")
# CPU: the widest activations of MiniLM take 12 MB in bfloat16, a core's share of the cache; more
# gained nothing. GPU: 2,000 pairs of 32 wordpieces keep its matrix units full.
_TOKENS_PER_BATCH = {"cpu": 4_096, "cuda": 65_536}
_MOST_PADDING = 0.03  # of a batch, unless it is small
_SMALL_BATCH_TOKENS = 512
_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


@dataclass
class Counters:
    """What a teacher has done so far."""

    num_pairs: int = 0
    num_tokens: int = 0
    num_padded_tokens: int = 0
    num_out_of_memory: int = 0  # batches that did not fit

    def reset(self) -> None:
        """Count from zero again."""
        self.num_pairs = self.num_tokens = self.num_padded_tokens = self.num_out_of_memory = 0

    @property
    def padding(self) -> float:
        """Share of the tokens run that were padding."""
        return 1 - self.num_tokens / self.num_padded_tokens if self.num_padded_tokens else 0.0


def quiet_transformers() -> None:
    """No load report and no progress bars: a user can do nothing about either."""
    hf_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def check_model(folder: Path, *, max_length: int, prompt: str | None = None) -> None:
    """Raise UserError unless the folder holds a cross-encoder with 1 or 2 outputs.

    Its positions must hold `max_length` wordpieces, and a decoder must have its prompt, given or in
    the folder.
    """
    config = _read_config(folder)
    if config.num_labels not in (1, 2):
        raise UserError(f"{folder} has {config.num_labels} outputs; a teacher has 1 or 2")
    positions = getattr(config, "max_position_embeddings", max_length)
    if positions < max_length:
        raise UserError(f"{folder} reads {positions} wordpieces, label.max_length is {max_length}")
    architectures = config.architectures or []
    if not any("SequenceClassification" in name for name in architectures):
        raise UserError(
            f"{folder} is a {', '.join(architectures) or 'model of no named architecture'}, not a "
            "cross-encoder; name it as `base` to have it fine-tuned"
        )
    if needs_prompt(config):
        make_tokenizer(folder, config=config, max_length=max_length, prompt=prompt)


def load_pair_tokenizer(
    folder: Path, *, max_length: int, prompt: str | None = None
) -> PairTokenizer | PromptTokenizer:
    """How the model in `folder` reads pairs.

    Raises:
        UserError: no model, no tokenizer, or a decoder without a prompt.
    """
    config = _read_config(folder)
    return make_tokenizer(folder, config=config, max_length=max_length, prompt=prompt)


def _read_config(folder: Path) -> Any:  # noqa: ANN401
    try:
        return AutoConfig.from_pretrained(str(model_root(folder)))
    except (OSError, ValueError) as error:
        raise UserError(f"no model in {folder}: {_first_line(error)}") from error


class Teacher:
    """A cross-encoder that lives on one device."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str,
        dtype: str,
        max_length: int,
        tokens_per_batch: int | None = None,
        prompt: str | None = None,
    ) -> None:
        """Load the model in `folder`; `max_length` and `tokens_per_batch` count wordpieces.

        `prompt` has `{query}` and `{title}` in it; None: that of the folder, if it has one.
        """
        quiet_transformers()
        check_model(folder, max_length=max_length, prompt=prompt)
        self.device, self.max_length = device, max_length
        self.budget = TokenBudget(tokens_per_batch or _TOKENS_PER_BATCH[device])
        self.dtype = teacher_dtype(dtype, device=device)
        self.tokenise = load_pair_tokenizer(folder, max_length=max_length, prompt=prompt)
        self.tokenizer = self.tokenise.tokenizer
        model = AutoModelForSequenceClassification.from_pretrained(
            str(model_root(folder)), dtype=self.dtype
        )
        model = model.to(device).eval()
        self.is_packed = can_pack(model)
        self._run: Callable[[Tokens], Tensor] = (
            PackedEncoder(model)
            if self.is_packed
            else _PaddedModel(model, self.tokenizer, has_types=self.tokenise.has_types)
        )
        self.counters = Counters()

    @property
    def tokens_per_batch(self) -> int:
        """What a batch may have now."""
        return self.budget.tokens

    def logits(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float32]:
        """One logit a pair, in the order given; "" for every query means single texts.

        A model with two outputs gives its margin: class 1 minus class 0.
        """
        return self.score(self.tokenise(queries, titles))

    def score(self, tokens: Tokens) -> NDArray[np.float32]:
        """One logit a pair, in order; NaN for a pair without tokens.

        Pairs go through the model longest first: a batch too big for the device shows at once.

        Raises:
            torch.OutOfMemoryError: a pair that does not fit alone.
        """
        out = np.full(len(tokens.lengths_B), np.nan, np.float32)
        order = np.argsort(-tokens.lengths_B, kind="stable")
        order = order[: np.count_nonzero(tokens.lengths_B)]
        while (logits := self._score_sorted(tokens, order)) is None:
            logger.warning("what was scored of these %d pairs may be spoiled: again", len(order))
        out[order] = logits
        return out

    def _score_sorted(self, tokens: Tokens, order: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """The logits of the rows of `order`; None where all of them are to be scored again.

        They are fetched at the end: a GPU works on one batch while the next is laid out. Torch's
        own allocator says that a batch does not fit before it runs; any other error may be that of
        an earlier batch, whose logits are then not to be trusted.
        """
        lengths, margins, batches = tokens.lengths_B[order], list[Tensor](), list[Tokens]()
        at = 0
        while at < len(order):
            num = self._batch_rows(lengths[at:])
            batch = tokens.take(order[at : at + num])
            found = _attempt(self._margins, batch)
            if isinstance(found, _NoMemory):
                self._recover(batch, found)
                if found.may_be_earlier:
                    return None
                continue
            self.budget.note_good_batch()
            margins.append(found)
            batches.append(batch)
            at += num
        fetched = _attempt(_fetch, margins)
        if isinstance(fetched, _NoMemory):
            self._recover(batches[0], fetched)
            return None
        for batch in batches:
            self._count(batch)
        return fetched

    def _recover(self, batch: Tokens, problem: _NoMemory) -> None:
        """Make the next batches smaller; the failed one's tensors are gone, and their memory goes.

        Raises:
            torch.OutOfMemoryError: the batch was one pair.
        """
        self.counters.num_out_of_memory += 1
        num_tokens = self._num_run_tokens(batch)
        if len(batch.lengths_B) == 1:
            raise torch.OutOfMemoryError(
                f"a pair of {num_tokens} tokens does not fit in the memory of "
                f"{device_name(self.device)} in {dtype_name(self.dtype)}: lower label.max_length "
                f'(now {self.max_length}), set label.dtype = "float16" or "bfloat16", give an '
                f"actor more of its GPU (label.num_gpus), or end what else runs on it "
                f"({problem.reason})"
            )
        self.budget.reduce(num_tokens)
        if self.device == "cuda":
            gc.collect()  # an error may hold itself, and with it the failed batch
            torch.cuda.empty_cache()
        logger.warning(
            "out of memory: %d tokens a batch from now on (%s)",
            self.tokens_per_batch,
            problem.reason,
        )

    def _batch_rows(self, lengths: NDArray[np.int64]) -> int:
        if self.is_packed:
            return packed_rows(lengths, tokens_per_batch=self.tokens_per_batch)
        return padded_rows(lengths, tokens_per_batch=self.tokens_per_batch)

    def _margins(self, batch: Tokens) -> Tensor:
        with torch.inference_mode():
            logits = self._run(batch).float()
            return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]

    def _num_run_tokens(self, batch: Tokens) -> int:
        """Tokens that the model sees of a batch, padding among them."""
        if self.is_packed:
            return len(batch.ids_T)
        return len(batch.lengths_B) * int(batch.lengths_B[0])

    def _count(self, batch: Tokens) -> None:
        self.counters.num_pairs += len(batch.lengths_B)
        self.counters.num_tokens += len(batch.ids_T)
        self.counters.num_padded_tokens += self._num_run_tokens(batch)


@dataclass(frozen=True)
class _NoMemory:
    """Why a device had no memory, and whether work before the failed one may have failed too."""

    reason: str
    may_be_earlier: bool


def _attempt(run: Callable[[_Given], _Result], given: _Given) -> _Result | _NoMemory:
    """What `run` gives, or that there was no memory for it.

    The error ends with this call: its traceback holds the tensors of the failed batch, which are to
    be gone when the device's memory is given back.
    """
    try:
        return run(given)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        is_certain = isinstance(error, torch.OutOfMemoryError)
        return _NoMemory(_first_line(error), may_be_earlier=not is_certain)


def _fetch(margins: list[Tensor]) -> NDArray[np.float32]:
    """One array of them all; needs no memory of the device, as torch.cat would."""
    fetched = [margins_B.cpu().numpy() for margins_B in margins]
    return np.concatenate(fetched) if fetched else np.empty(0, np.float32)


class _PaddedModel:
    """Any cross-encoder: a batch padded to its longest pair, with a mask."""

    def __init__(self, model: Any, tokenizer: Any, *, has_types: bool) -> None:  # noqa: ANN401
        self.model, self.tokenizer = model, tokenizer
        self.has_pad = model.config.pad_token_id is not None or tokenizer.pad_token_id is not None
        if self.has_pad and model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        if is_decoder(model.config):  # a token sees those before it, and counts its place from them
            tokenizer.padding_side = "right"
        # Some tokenizers make token types that their model does not take.
        self.has_types = (
            has_types and "token_type_ids" in inspect.signature(model.forward).parameters
        )

    def __call__(self, tokens: Tokens) -> Tensor:
        """Logits (B, outputs)."""
        edges = np.cumsum(tokens.lengths_B)[:-1]
        batch = {"input_ids": np.split(tokens.ids_T, edges)}
        if self.has_types:
            batch["token_type_ids"] = np.split(tokens.types_T, edges)
        if not self.has_pad:
            self._pad_with(unused_id(tokens.ids_T))
        padded = self.tokenizer.pad(batch, return_tensors="pt", return_attention_mask=True)
        logits: Tensor = self.model(**padded.to(self.model.device)).logits
        return logits

    def _pad_with(self, token_id: int) -> None:
        """Pad with a token of no pair here: a decoder's head reads the last one that is no padding.

        With the end token in its place (of GPT-2 and Llama) a prompt that ends in it would be read
        one token too early.
        """
        self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(token_id)
        self.model.config.pad_token_id = token_id


def unused_id(ids_T: NDArray[np.int32]) -> int:
    """The smallest token id that is not among these."""
    used = np.unique(ids_T)
    gaps = np.flatnonzero(used != np.arange(len(used)))
    return int(gaps[0]) if len(gaps) else len(used)


def packed_rows(lengths: NDArray[np.int64], *, tokens_per_batch: int) -> int:
    """How many of the first rows hold at most `tokens_per_batch` tokens together; at least one."""
    most = lengths[:tokens_per_batch]  # a pair has a token at least
    return max(1, int(np.searchsorted(np.cumsum(most), tokens_per_batch, side="right")))


def padded_rows(lengths: NDArray[np.int64], *, tokens_per_batch: int) -> int:
    """How many of the first rows, longest first, make a batch that is padded to its longest.

    Rows x longest row is at most `tokens_per_batch`, and at most 3 % of it padding once it has 512
    tokens; at least one row.
    """
    longest = int(lengths[0])
    most = lengths[: max(1, tokens_per_batch // longest)]
    padded = longest * np.arange(1, len(most) + 1)
    is_good = (np.cumsum(most) >= (1 - _MOST_PADDING) * padded) | (padded <= _SMALL_BATCH_TOKENS)
    return len(most) if is_good.all() else max(1, int(np.argmin(is_good)))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
