"""The tokens of a batch: halved when a batch does not fit in memory, doubled again later."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from raydistill.teachers.transformer.device import is_out_of_memory
from raydistill.teachers.transformer.pair_tokenizer import one_line

# Good batches until a reduced budget doubles: seconds on a GPU. Each new failure doubles the wait,
# so n batches see about log2(n / 32) failures, however often another process allocates memory.
_FIRST_WAIT_BATCHES = 32
_MOST_PADDING = 0.03  # of a batch that is not small
# Tokens up to which a batch may have any padding: on a GPU a batch costs the start of its kernels
# too, on an H200 28 ms of a model of 28 layers, the time of some 5,000 of its tokens.
_SMALL_BATCH_TOKENS = {"cpu": 512, "cuda": 4_096}
_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


@dataclass
class Counters:
    """A teacher's counts since the last reset."""

    num_pairs: int = 0
    num_tokens: int = 0
    num_padded_tokens: int = 0
    num_out_of_memory: int = 0  # batches that did not fit in memory


class TokenBudget:
    """Tokens of a batch: at least 1, at most the initial value."""

    def __init__(self, tokens: int) -> None:
        """`tokens` is the initial value and the maximum."""
        self.tokens = self.most = tokens
        self.wait_batches = _FIRST_WAIT_BATCHES
        self._num_good = 0
        self._has_failed = self._fits = False

    def reduce(self, batch_tokens: int) -> None:
        """A batch of `batch_tokens` did not fit: halve the budget until it is smaller.

        Consecutive failures count as one. A failure after a good batch doubles `wait_batches`.
        """
        self.tokens = max(1, self.tokens // 2)
        while self.tokens >= batch_tokens > 1:
            self.tokens //= 2
        if self._has_failed and self._fits:
            self.wait_batches *= 2
        self._num_good, self._has_failed, self._fits = 0, True, False

    def note_good_batch(self) -> None:
        """A batch fitted: after `wait_batches` of them a reduced budget doubles."""
        self._fits = True
        if self.tokens == self.most:
            return
        self._num_good += 1
        if self._num_good == self.wait_batches:
            self.tokens, self._num_good = min(2 * self.tokens, self.most), 0


def free_memory(device: str) -> None:
    """Give the memory of freed tensors back to the device."""
    if device == "cuda":
        gc.collect()  # an error in a reference cycle keeps the failed batch's tensors
        torch.cuda.empty_cache()


def packed_rows(lengths: NDArray[np.int64], *, tokens_per_batch: int) -> int:
    """How many of the first rows have at most `tokens_per_batch` tokens in total; at least 1."""
    most = lengths[:tokens_per_batch]  # a pair has at least one token
    return max(1, int(np.searchsorted(np.cumsum(most), tokens_per_batch, side="right")))


def padded_rows(lengths: NDArray[np.int64], *, tokens_per_batch: int, device: str = "cpu") -> int:
    """How many of the first rows, longest first, form a batch padded to its longest row.

    Rows x longest row is at most `tokens_per_batch`, and at most 3 % of that is padding once it
    exceeds 512 tokens on a CPU, 4,096 on a GPU; at least 1 row.
    """
    longest = int(lengths[0])
    most = lengths[: max(1, tokens_per_batch // longest)]
    padded = longest * np.arange(1, len(most) + 1)
    is_small = padded <= _SMALL_BATCH_TOKENS[device]
    is_good = (np.cumsum(most) >= (1 - _MOST_PADDING) * padded) | is_small
    return len(most) if is_good.all() else max(1, int(np.argmin(is_good)))


@dataclass(frozen=True)
class NoMemory:
    """Why an allocation failed, and whether an earlier operation may have failed instead."""

    reason: str
    may_be_earlier: bool


def attempt(run: Callable[[_Given], _Result], given: _Given) -> _Result | NoMemory:
    """The result of `run(given)`, or NoMemory if an allocation failed.

    The error is released when this function returns: its traceback refers to the tensors of the
    failed batch, which must be freed before the device's cached memory is emptied.
    """
    try:
        return run(given)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        is_certain = isinstance(error, torch.OutOfMemoryError)
        return NoMemory(one_line(error), may_be_earlier=not is_certain)
