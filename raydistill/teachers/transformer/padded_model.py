"""Run any cross-encoder on padded batches, and test whether padding changes its logits.

Input: a transformers model and Tokens sorted by length. Output: the model's logits. A model whose
logits depend on padding gets batches of one length. A model whose logits depend on the batch in
another way, or differ between two runs, is rejected. No Ray.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raydistill.errors import UserError
from raydistill.teachers.transformer.pair_tokenizer import Tokens, one_line, ranges
from raydistill.teachers.transformer.prompt_tokenizer import is_decoder

# Allowed difference between two runs of a pair: this share of the largest logit, plus a minimum.
# Measured in float32 on some 50 model families of 2 layers: at most 5e-6; with positions off by
# one: 1e-3 and more.
_TOLERANCES = {torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_FLOORS = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_SLACK = 10  # factor on the tolerance where a difference rejects the model (check_steady)
Run = Callable[[Tokens], Tensor]


class PaddingRun(Protocol):
    """A model that runs batches, with or without padding."""

    pads: bool  # False: all pairs of a batch have one length

    def __call__(self, tokens: Tokens, /) -> Tensor:
        """Logits (B, outputs)."""


class PaddedModel:
    """A model that runs a batch padded to its longest pair, with an attention mask."""

    def __init__(self, model: Any, tokenizer: Any, *, has_types: bool) -> None:  # noqa: ANN401
        """`has_types`: whether the tokenizer makes token types; used only if the model has them."""
        self.model = model
        self.pads = True  # False: all pairs of a batch have one length
        self.pads_left = reads_last_place(model.config)
        self._text_config = model.config.get_text_config()
        self.pad_id = padding_id(model.config, tokenizer)
        self._text_config.pad_token_id = self.pad_id
        self.has_types = (
            has_types and "token_type_ids" in inspect.signature(model.forward).parameters
        )

    def __call__(self, tokens: Tokens) -> Tensor:
        """Logits (B, outputs)."""
        logits: Tensor = self.model(**self.batch(tokens)).logits
        return logits

    def batch(self, tokens: Tokens) -> dict[str, Tensor]:
        """The model's inputs: the pairs padded to the longest, and the mask."""
        pad_id = self.pad_id
        if pad_id is None:
            # A token id that no pair of the batch has: a decoder's head reads the last token that
            # is not padding. If the end token were the padding (as in GPT-2 and Llama), the head
            # would read one token too early for a prompt that ends in the end token.
            pad_id = self._text_config.pad_token_id = unused_id(tokens.ids_T)
        lengths_B, width = tokens.lengths_B, int(tokens.lengths_B.max())
        starts_B = np.arange(len(lengths_B)) * width
        at_T = ranges(starts_B + width - lengths_B if self.pads_left else starts_B, lengths_B)

        def laid(values: NDArray[Any], fill: int) -> Tensor:
            rows = np.full(len(lengths_B) * width, fill, np.int64)
            rows[at_T] = values
            return torch.from_numpy(rows.reshape(-1, width)).to(self.model.device)

        batch = {"input_ids": laid(tokens.ids_T, pad_id)}
        batch["attention_mask"] = laid(np.ones_like(at_T), 0)
        if self.has_types:
            batch["token_type_ids"] = laid(tokens.types_T, 0)
        return batch


def reads_last_place(config: Any) -> bool:  # noqa: ANN401
    """Whether the head reads a row's last position, as XLNet's does: padding then comes first.

    A decoder's head finds the last token that is not padding, with positions from the left.
    """
    return getattr(config, "summary_type", None) == "last" and not is_decoder(config)


def padding_id(config: Any, tokenizer: Any) -> int | None:  # noqa: ANN401
    """The padding token: the model's, else the tokenizer's; None: neither has one.

    A decoder's head looks for the model's padding token, whatever the tokenizer uses.
    """
    for given in (config.get_text_config().pad_token_id, tokenizer.pad_token_id):
        if isinstance(given, int) and given >= 0:
            return given
    return None


def set_padding(config: Any, tokenizer: Any) -> None:  # noqa: ANN401
    """Set a tokenizer's padding side, and a padding token if it has none.

    A decoder's config gets the same token, as the head looks for it.
    """
    tokenizer.padding_side = "left" if reads_last_place(config) else "right"
    if tokenizer.pad_token_id is None:
        known = padding_id(config, tokenizer)
        others = (tokenizer.eos_token_id, tokenizer.unk_token_id, known, 0)
        first = next(other for other in others if other is not None)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(first)
    if is_decoder(config):
        config.get_text_config().pad_token_id = config.pad_token_id = tokenizer.pad_token_id


def unused_id(ids_T: NDArray[np.int32]) -> int:
    """The smallest token id that is not in `ids_T`."""
    used = np.unique(ids_T)
    gaps = np.flatnonzero(used != np.arange(len(used)))
    return int(gaps[0]) if len(gaps) else len(used)


@contextmanager
def named_failure(what: str, tokens: Tokens, *, of: str) -> Iterator[None]:
    """Make a UserError of what a model raises at a trial; `of`: what it fails at, "pairs" or so.

    Raises:
        UserError: anything was raised; a UserError stays as it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the folder's own code may raise any class
        num = int(tokens.lengths_B.max())
        raise UserError(f"{what} fails at {of} of up to {num} tokens: {one_line(error)}") from error


def settle(run: Run | PaddedModel, tokens: Tokens, *, dtype: torch.dtype, what: str) -> None:
    """`settle_padding` of a model that can pad, `check_steady` of another one."""
    if isinstance(run, PaddedModel):
        settle_padding(run, tokens, dtype=dtype, what=what)
    else:
        check_steady(run, tokens, dtype=dtype, what=what)


def settle_padding(run: PaddingRun, tokens: Tokens, *, dtype: torch.dtype, what: str) -> None:
    """Set `run.pads`: test on pairs of different length whether padding changes their logits.

    Raises:
        UserError: without padding the logits still fail `check_steady`.
    """
    alone = _alone(run, tokens)
    if not np.isfinite(alone).all() or is_close(alone, _together(run, tokens), dtype=dtype):
        return
    run.pads = False
    same_length = _with_twin(tokens)
    check_steady(run, same_length, dtype=dtype, what=what)


def check_steady(run: Run, tokens: Tokens, *, dtype: torch.dtype, what: str) -> None:
    """Raise UserError if a pair's logit depends on its batch or differs between two runs."""
    first, again = (_alone(run, tokens) for _ in range(2))
    if not np.isfinite(first).all():
        return  # the caller reports pairs without a finite logit
    if not is_close(first, again, dtype=dtype, slack=_SLACK):
        raise UserError(
            f"{what} gives a pair another logit each time ({_shown(first, again)}): something "
            "in it is random (dropout, hashing); such a model is no teacher"
        )
    together = _together(run, tokens)
    if not is_close(first, together, dtype=dtype, slack=_SLACK):
        raise UserError(
            f"the logit that {what} gives a pair depends on the pairs beside it "
            f"({_shown(first, together)} alone and together); such a model is no teacher"
        )


def _alone(run: Run, tokens: Tokens) -> NDArray[np.float64]:
    rows = [tokens.take(np.array([row])) for row in range(len(tokens.lengths_B))]
    return np.concatenate([_together(run, row) for row in rows])


def _together(run: Run, tokens: Tokens) -> NDArray[np.float64]:
    with torch.inference_mode():
        return run(tokens).double().cpu().numpy()


def is_close(
    first: NDArray[np.floating[Any]],
    second: NDArray[np.floating[Any]],
    *,
    dtype: torch.dtype,
    slack: float = 1.0,
) -> bool:
    """Whether two runs of the same pairs give the same logits, up to rounding."""
    tolerance = _TOLERANCES[dtype] * np.abs(first).max() + _FLOORS[dtype]
    return bool(np.abs(first - second).max() <= slack * tolerance)


def _shown(first: NDArray[np.float64], second: NDArray[np.float64]) -> str:
    """Both values of the output that differs most."""
    at = np.unravel_index(np.argmax(np.abs(first - second)), first.shape)
    return f"{first[at]:.4g} and {second[at]:.4g}"


def _with_twin(tokens: Tokens) -> Tokens:
    """The longest pair and a second of that length: the same tokens, the inner ones reversed."""
    longest = tokens.take(np.array([int(np.argmax(tokens.lengths_B))]))
    order = np.arange(len(longest.ids_T))
    order[1:-1] = order[1:-1][::-1]
    return Tokens(
        np.concatenate([longest.ids_T, longest.ids_T[order]]),
        np.concatenate([longest.types_T, longest.types_T[order]]),
        np.repeat(longest.lengths_B, 2),
    )
