"""How many tokens a batch may have: fewer after it did not fit in memory, more again later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from raydistill.teachers.transformer.device import (
    is_out_of_memory,
)
from raydistill.teachers.transformer.pair_tokenizer import one_line

# Good batches before a reduced budget doubles: seconds of a GPU. Each new failure doubles the wait,
# so that n batches see about log2(n / 32) failures, however often another process takes memory.
_FIRST_WAIT_BATCHES = 32
_MOST_PADDING = 0.03  # of a batch, unless it is small
_SMALL_BATCH_TOKENS = 512


class TokenBudget:
    """Tokens of a batch, at least 1 and at most what it began with."""

    def __init__(self, tokens: int) -> None:
        """Begin with `tokens`, which is also the most that there will be."""
        self.tokens = self.most = tokens
        self.wait_batches = _FIRST_WAIT_BATCHES
        self._num_good = 0
        self._has_failed = self._fits = False

    def reduce(self, batch_tokens: int) -> None:
        """A batch of so many tokens did not fit: halve the budget until it is below them.

        Failures in a row are one: the wait until the budget grows doubles with the next one.
        """
        self.tokens = max(1, self.tokens // 2)
        while self.tokens >= batch_tokens > 1:
            self.tokens //= 2
        if self._has_failed and self._fits:
            self.wait_batches *= 2
        self._num_good, self._has_failed, self._fits = 0, True, False

    def note_good_batch(self) -> None:
        """A batch did fit: after enough of them a reduced budget doubles."""
        self._fits = True
        if self.tokens == self.most:
            return
        self._num_good += 1
        if self._num_good == self.wait_batches:
            self.tokens, self._num_good = min(2 * self.tokens, self.most), 0


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


_Given = TypeVar("_Given")


_Result = TypeVar("_Result")


@dataclass(frozen=True)
class NoMemory:
    """Why a device had no memory, and whether work before the failed one may have failed too."""

    reason: str
    may_be_earlier: bool


def attempt(run: Callable[[_Given], _Result], given: _Given) -> _Result | NoMemory:
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
        return NoMemory(one_line(error), may_be_earlier=not is_certain)
