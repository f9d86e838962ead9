"""The pairs that an expensive teacher should label: the first ones in an order of all pairs.

Input: pairs a shard at a time, and how uncertain each is. Output: at most `budget` of them. No
files, no torch; memory grows with the budget and not with the pairs.

Shapes: B pairs, M teachers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(33)
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_LEAST = 1e-3  # chance of acceptance of a pair that nobody doubts
_ORDER = ("pass", "rank", "key")


def mixed(pair_ids: NDArray[np.int64], *, seed: int) -> NDArray[np.uint64]:
    """Uniform 64-bit numbers, one a pair; the same pair and seed give the same number.

    The finaliser of MurmurHash3 (public domain, A. Appleby) on the id plus a multiple of `seed`.
    """
    with np.errstate(over="ignore"):
        value = pair_ids.view(np.uint64) + _GOLDEN * np.uint64(seed % 2**64)
        value = (value ^ (value >> _SHIFT)) * _MIX_1
        value = (value ^ (value >> _SHIFT)) * _MIX_2
    return value ^ (value >> _SHIFT)


def ranks(
    groups_B: NDArray[np.int64], keys_B: NDArray[np.uint64], *, is_labeled_B: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The place of each pair among the pairs of its group (query), from 0, by key.

    Labeled pairs come first: a query with 5 labels gets its next one after a query with 4. Copies
    of a pair, which have one key, have one place.
    """
    order = np.lexsort((keys_B, ~is_labeled_B, groups_B))
    is_first = np.diff(groups_B[order], prepend=-1) != 0
    is_new = is_first.copy()  # whether a pair is no copy of the one before
    is_new[1:] |= np.diff(keys_B[order]) != 0
    counts = np.cumsum(is_new) - 1
    places = np.empty(len(groups_B), np.int64)
    places[order] = counts - counts[is_first][np.cumsum(is_first) - 1]
    return places


def uncertainty(
    scores_B: NDArray[np.float32], logits_BM: NDArray[np.float32] | None = None
) -> NDArray[np.float64]:
    """How little is known about each pair, 0..1: 1 - (1 - entropy) (1 - disagreement).

    The entropy is that of the student's score, in bits. The disagreement is the largest difference
    between two teachers' probabilities; 0 where fewer than two have a logit (NaN: none). Of a pair
    whose score is NaN nothing is known: 1.
    """
    p = np.clip(scores_B.astype(np.float64), 1e-9, 1 - 1e-9)
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    entropy = np.where(np.isnan(entropy), 1, entropy)
    if logits_BM is None or logits_BM.shape[1] < 2:
        return np.asarray(entropy)
    with np.errstate(over="ignore"):
        probabilities = 1 / (1 + np.exp(-logits_BM.astype(np.float64)))
    is_known = np.isfinite(logits_BM)
    highest = np.where(is_known, probabilities, -np.inf).max(axis=1)
    lowest = np.where(is_known, probabilities, np.inf).min(axis=1)
    gaps = np.maximum(highest - lowest, 0)  # -inf where no teacher has a logit
    return np.asarray(1 - (1 - entropy) * (1 - gaps))


def passes(uncertainty_B: NDArray[np.float64], keys_B: NDArray[np.uint64]) -> NDArray[np.int64]:
    """In which pass over the pairs each is accepted, from 1.

    In a pass each pair that is left is accepted with the chance `uncertainty_B`: the randomised
    acceptance of M-RARU (arXiv 2511.11574). The number of the pass is then geometric, drawn from
    `keys_B`, uniform 64-bit numbers.
    """
    chance = np.clip(np.nan_to_num(uncertainty_B, nan=1.0), _LEAST, 1 - 1e-9)
    uniform = ((keys_B >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return np.maximum(np.ceil(np.log(uniform) / np.log1p(-chance)), 1).astype(np.int64)


@dataclass
class Selection:
    """The first `budget` pairs in the order of pass, rank in the query, key.

    The key names the pair, as `mixed` gives it: of the copies of a pair the first is selected.
    """

    budget: int
    slack_rows: int = 65_536  # rows held beyond the budget at least, so that cuts are seldom
    _tables: list[pa.Table] = field(default_factory=list)
    _num_rows: int = 0
    _last: tuple[int, int, int] | None = None  # pass, rank and key of the last kept; None: not full

    def may_enter(
        self, ranks_B: NDArray[np.int64], keys_B: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        """Which pairs can still be selected, if each is accepted in the first pass.

        The others need no score: a selection from 10^9 pairs scores a small multiple of the budget.
        """
        if self._last is None or self._last[0] > 1:
            return np.ones(len(ranks_B), bool)
        _, rank, key = self._last
        is_before = (ranks_B < rank) | ((ranks_B == rank) & (keys_B < np.uint64(key)))
        return np.asarray(is_before)

    def add(
        self,
        pairs: pa.Table,
        *,
        passes_B: NDArray[np.int64],
        ranks_B: NDArray[np.int64],
        keys_B: NDArray[np.uint64],
    ) -> None:
        """Offer pairs, with the three numbers of their order."""
        for name, values in zip(_ORDER, (passes_B, ranks_B, keys_B), strict=True):
            pairs = pairs.append_column(f"_{name}", pa.array(values))
        self._tables.append(pairs)
        self._num_rows += pairs.num_rows
        if self._num_rows > self.budget + max(self.budget, self.slack_rows):
            self._cut()

    def _cut(self) -> None:
        """Keep the first `budget` of the offered pairs, in order."""
        table = pa.concat_tables(self._tables)
        keys = [table[f"_{name}"].to_numpy() for name in reversed(_ORDER)]
        order = np.lexsort(keys)
        _, firsts = np.unique(keys[0][order], return_index=True)  # of the copies of each pair
        rows = order[np.sort(firsts)[: self.budget]]
        kept = table.take(pa.array(rows)).combine_chunks()
        self._tables, self._num_rows = [kept], kept.num_rows
        if kept.num_rows == self.budget:
            last = kept.slice(kept.num_rows - 1).to_pylist()[0]
            self._last = last["_pass"], last["_rank"], last["_key"]

    def table(self) -> pa.Table | None:
        """The selected pairs in order; None if none was offered.

        The first rows are what a smaller budget selects.
        """
        if not self._tables:
            return None
        self._cut()
        return self._tables[0].drop_columns([f"_{name}" for name in _ORDER])
