"""Prompts that begin alike are computed once up to where they differ.

The keys and values of the attention layers for the tokens before the title are kept, and each title
of the query is run on top of them. For models whose attention sees all earlier tokens; a model with
another memory (Mamba, a window that is shorter than the prompts) runs whole prompts.

Shapes: B pairs, U distinct beginnings, P tokens of each, S own tokens of the longest pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from raydistill.teachers.generative.causal_model import CausalModel, margins
from raydistill.teachers.transformer.pair_tokenizer import Tokens, ranges

LEAST_SHARED = 4  # tokens; fewer are not worth a second run


class _PrefixLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """The keys and values of a layer for U beginnings, read by rows that each have one of them."""

    def __init__(self, keys: Tensor, values: Tensor, which_B: Tensor, *, keeps: bool) -> None:
        """`keeps`: whether the new keys and values are stored, so that more can be run on top."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values, self.which_B, self.keeps = keys, values, which_B, keeps
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[Tensor, Tensor]:
        """All keys and values that the rows see."""
        del args, kwargs
        keys = torch.cat([self._of_rows(self.keys), key_states], dim=-2)
        values = torch.cat([self._of_rows(self.values), value_states], dim=-2)
        if self.keeps:
            self.keys, self.values = keys, values
        return keys, values

    def _of_rows(self, states: Tensor | None) -> Tensor:
        if states is None:
            raise ValueError("a prefix without keys and values")
        if len(states) == 1:
            return states.expand(len(self.which_B), -1, -1, -1)
        return states.index_select(0, self.which_B)


@dataclass(frozen=True)
class Prefix:
    """Keys and values (U, heads, P, D) of each layer."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    def cache(self, which_B: Tensor, *, keeps: bool = False) -> Cache:
        """A cache for B rows of which each has the beginning `which_B`."""
        return Cache(layers=[_PrefixLayer(*pair, which_B, keeps=keeps) for pair in self.layers])


def can_share(model: Any, *, max_length: int) -> bool:  # noqa: ANN401
    """Whether each layer of a model keeps all of `max_length` tokens as keys and values."""
    probe = torch.ones((1, 2), dtype=torch.long, device=model.device)
    with torch.inference_mode():
        cache = getattr(model(input_ids=probe, use_cache=True), "past_key_values", None)
    if not isinstance(cache, Cache):
        return False
    return bool(cache.layers) and all(_sees_all(layer, max_length) for layer in cache.layers)


def _sees_all(layer: Any, max_length: int) -> bool:  # noqa: ANN401
    if type(layer) is DynamicSlidingWindowLayer:
        return layer.sliding_window > max_length
    return type(layer) is DynamicLayer


class SharedRun:
    """Runs the own tokens of pairs on top of their beginnings; same interface as CausalModel.

    The token types of a pair are the number of its beginning. `prepare` computes the beginnings,
    and again after `forget`.
    """

    def __init__(
        self, run: CausalModel, ids_UP: NDArray[np.int32], *, tokens_per_batch: int
    ) -> None:
        """`ids_UP`: the distinct beginnings, all of one length."""
        self.run, self.model, self.pads = run, run.model, True
        self.ids_UP, self.tokens_per_batch = ids_UP, tokens_per_batch
        self._prefix: Prefix | None = None

    def prepare(self) -> None:
        """Compute the beginnings, unless they are there."""
        if self._prefix is None:
            with torch.inference_mode():
                self._prefix = self._computed()

    def forget(self) -> None:
        """Free the beginnings."""
        self._prefix = None

    def __call__(self, tokens: Tokens) -> Tensor:
        """Logits (B, 1) of the pairs whose own tokens are given."""
        self.prepare()
        if self._prefix is None:
            raise ValueError("no beginnings")
        starts_B = np.cumsum(tokens.lengths_B) - tokens.lengths_B
        which_B = torch.from_numpy(tokens.types_T[starts_B].astype(np.int64)).to(self.model.device)
        cache = self._prefix.cache(which_B)
        logits = self.model(input_ids=self.run.laid(tokens), past_key_values=cache, use_cache=True)
        return margins(logits.logits.float(), tokens.lengths_B)

    def _computed(self) -> Prefix:
        """The beginnings: what all of them share first, then the rest of each."""
        num, length = self.ids_UP.shape
        shared = self._num_shared()
        base = self._extended(self.ids_UP[:1, :shared], None) if shared else None
        if base is not None and shared == length:
            return base
        rows = max(1, self.tokens_per_batch // length)
        parts = [
            self._extended(self.ids_UP[at : at + rows, shared:], base) for at in range(0, num, rows)
        ]
        layers = zip(*(part.layers for part in parts), strict=True)
        return Prefix(
            tuple(
                (torch.cat([keys for keys, _ in pairs]), torch.cat([values for _, values in pairs]))
                for pairs in layers
            )
        )

    def _num_shared(self) -> int:
        """The first tokens of all beginnings that are the same: the prompt before the query."""
        same_P = (self.ids_UP == self.ids_UP[0]).all(axis=0)
        shared = len(same_P) if same_P.all() else int(np.argmin(same_P))
        return shared if shared >= LEAST_SHARED else 0

    @property
    def num_tokens(self) -> int:
        """Tokens that are run for the beginnings."""
        shared = self._num_shared()
        num = int(self.ids_UP.size) - len(self.ids_UP) * shared
        return num + shared

    def _extended(self, ids_BS: NDArray[np.int32], base: Prefix | None) -> Prefix:
        """Keys and values of rows on top of `base`, which has one beginning."""
        rows = torch.from_numpy(ids_BS.astype(np.int64)).to(self.model.device)
        which_B = torch.zeros(len(rows), dtype=torch.long, device=self.model.device)
        cache = (
            base.cache(which_B, keeps=True)
            if base
            else Cache(layer_class_to_replicate=DynamicLayer)
        )
        self.model(input_ids=rows, past_key_values=cache, use_cache=True)
        layers: list[Any] = cache.layers
        return Prefix(tuple((layer.keys, layer.values) for layer in layers))


@dataclass(frozen=True)
class Group:
    """Pairs whose beginnings are kept together.

    `rows`: of the shard; `own`: their tokens after the beginning, with its number as type.
    """

    rows: NDArray[np.int64]
    own: Tokens
    ids_UP: NDArray[np.int32]


def groups(tokens: Tokens, rows: NDArray[np.int64], *, most_tokens: int) -> Iterator[Group]:
    """The pairs `rows` by beginning: each group's beginnings have one length, `most_tokens` in all.

    All pairs of a beginning are in one group.
    """
    starts_B = np.cumsum(tokens.lengths_B) - tokens.lengths_B
    found: dict[int, dict[bytes, list[int]]] = {}  # by length and ids of the beginning
    for row in rows:
        start, length = starts_B[row], tokens.lengths_B[row]
        num = int(length - np.count_nonzero(tokens.types_T[start : start + length]))
        ids = tokens.ids_T[start : start + num].tobytes()
        found.setdefault(num, {}).setdefault(ids, []).append(int(row))
    for num, by_ids in sorted(found.items()):
        most = max(1, most_tokens // max(num, 1))
        items = list(by_ids.items())
        for at in range(0, len(items), most):
            yield _group(tokens, items[at : at + most], num_shared=num)


def _group(tokens: Tokens, items: list[tuple[bytes, list[int]]], *, num_shared: int) -> Group:
    rows = np.concatenate([np.array(of_one, np.int64) for _, of_one in items])
    which_B = np.repeat(np.arange(len(items)), [len(of_one) for _, of_one in items])
    starts_B = (np.cumsum(tokens.lengths_B) - tokens.lengths_B)[rows]
    lengths_B = tokens.lengths_B[rows] - num_shared
    at_T = ranges(starts_B + num_shared, lengths_B)
    own = Tokens(tokens.ids_T[at_T], np.repeat(which_B, lengths_B).astype(np.int32), lengths_B)
    ids_UP = np.stack([np.frombuffer(ids, np.int32) for ids, _ in items])
    return Group(rows, own, ids_UP)
