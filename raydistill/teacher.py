"""Pairs to logits: load a Hugging Face cross-encoder, tokenise, batch by token budget, run.

Comes in: queries and titles. Goes out: one float32 logit a pair, in order. No Ray.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raydistill.errors import UserError

# Before transformers is imported: its fork notice and its progress bars are of no use here.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils import logging as hf_logging

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Counters:
    """What a teacher has done so far."""

    num_pairs: int = 0
    num_tokens: int = 0
    num_padded_tokens: int = 0

    @property
    def padding(self) -> float:
        """Share of the tokens run that were padding."""
        return 1 - self.num_tokens / self.num_padded_tokens if self.num_padded_tokens else 0.0


def resolve_dtype(name: str, *, device: str) -> torch.dtype:
    """`auto`: bfloat16 where the hardware has it, else float16 on a GPU and float32 on a CPU."""
    if name != "auto":
        return DTYPES[name]
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bf16 else torch.float32


def quiet_transformers() -> None:
    """No load report and no progress bars: a user can do nothing about either."""
    hf_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def load_tokenizer(folder: Path) -> Any:  # noqa: ANN401 - transformers' own return type is a union
    """The tokenizer of a model folder.

    Raises:
        UserError: the folder has none.
    """
    try:
        return AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"no tokenizer in {folder}: {_first_line(error)}") from error


def check_model(folder: Path, *, max_length: int) -> None:
    """Raise UserError unless the folder holds a cross-encoder with 1 or 2 outputs.

    Its positions must hold `max_length` wordpieces.
    """
    try:
        config = AutoConfig.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"no model in {folder}: {_first_line(error)}") from error
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


class Teacher:
    """A cross-encoder that lives on one device."""

    def __init__(
        self, folder: Path, *, device: str, dtype: str, max_length: int, tokens_per_batch: int
    ) -> None:
        """Load the model in `folder`; `max_length` and `tokens_per_batch` count wordpieces."""
        quiet_transformers()
        check_model(folder, max_length=max_length)
        self.device, self.max_length = device, max_length
        self.tokens_per_batch = tokens_per_batch
        self.dtype = resolve_dtype(dtype, device=device)
        self.tokenizer = load_tokenizer(folder)
        model = AutoModelForSequenceClassification.from_pretrained(str(folder), dtype=self.dtype)
        self.model = model.to(device).eval()
        if self.model.config.pad_token_id is None:
            self.model.config.pad_token_id = self.tokenizer.pad_token_id
        self._inputs = set(inspect.signature(self.model.forward).parameters)
        self.counters = Counters()

    def logits(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float32]:
        """One logit a pair, in the order given; "" for every query means single texts.

        A model with two outputs gives its margin: class 1 minus class 0.
        """
        out = np.empty(len(titles), np.float32)
        if not len(titles):
            return out
        encoded = self._tokenise(queries, titles)
        lengths = np.fromiter(map(len, encoded["input_ids"]), np.int64, len(titles))
        for rows in token_batches(lengths, tokens_per_batch=self.tokens_per_batch):
            batch = {name: [values[row] for row in rows] for name, values in encoded.items()}
            out[rows] = self._forward(batch)
        self.counters.num_pairs += len(titles)
        self.counters.num_tokens += int(lengths.sum())
        return out

    def _tokenise(self, queries: Sequence[str], titles: Sequence[str]) -> dict[str, list[Any]]:
        single = not any(queries)
        texts = (list(titles),) if single else (list(queries), list(titles))
        encoded = self.tokenizer(
            *texts,
            truncation="longest_first" if not single else True,
            max_length=self.max_length,
            return_attention_mask=False,
        )
        # Some tokenizers make token types that their model does not take.
        return {name: values for name, values in encoded.items() if name in self._inputs}

    def _forward(self, batch: dict[str, list[Any]]) -> NDArray[np.float32]:
        """Run one batch; a batch that does not fit in the GPU's memory is run in two halves."""
        rows = len(batch["input_ids"])
        try:
            padded = self.tokenizer.pad(batch, return_tensors="pt", return_attention_mask=True)
            with torch.inference_mode():
                logits = self.model(**padded.to(self.device)).logits.float().cpu().numpy()
        except torch.cuda.OutOfMemoryError:
            if rows == 1:
                raise
            half = rows // 2
            parts = (
                {k: v[:half] for k, v in batch.items()},
                {k: v[half:] for k, v in batch.items()},
            )
            return np.concatenate([self._forward(part) for part in parts])
        self.counters.num_padded_tokens += padded["input_ids"].numel()
        margin = logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]
        return np.asarray(margin, np.float32)


def token_batches(
    lengths: NDArray[np.int64], *, tokens_per_batch: int
) -> Iterator[NDArray[np.int64]]:
    """Row numbers of each batch: rows of like length together, longest first.

    Rows x longest row of a batch is at most `tokens_per_batch`, or the batch has one row. The
    longest come first, so that a batch too big for the device shows at once.
    """
    order = np.argsort(-lengths, kind="stable")
    at = 0
    while at < len(order):
        num = max(1, tokens_per_batch // max(1, int(lengths[order[at]])))
        yield order[at : at + num]
        at += num


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
