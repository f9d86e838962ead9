"""Which of the titles found for a query become pairs: top ranks, middle ranks, random titles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError

KINDS = ("top", "middle", "random")


_FEW_TITLES = 10_000  # so many that are left can be listed; of more, random ones are tried


@dataclass(frozen=True)
class Mix:
    """How many titles of each kind a query gets; `max_rank` is the last of the middle ranks."""

    top: int = 20
    middle: int = 20
    random: int = 15
    max_rank: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a mix without a title, or with a middle that holds no rank."""
        for name in ("top", "middle", "random"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} = {getattr(self, name)}: give 0 or more")
        if not self.top + self.middle + self.random:
            raise UserError("top, middle and random are all 0; give at least one title a query")
        if self.middle and self.max_rank < self.top + self.middle:
            raise UserError(
                f"max_rank = {self.max_rank} leaves {max(0, self.max_rank - self.top)} ranks after "
                f"the top {self.top} for {self.middle} middle titles; give a larger one"
            )

    @property
    def num_ranks(self) -> int:
        """How far down the ranks titles are taken."""
        return self.max_rank if self.middle else self.top


def choose(
    ranked: NDArray[np.int64], *, num_titles: int, mix: Mix, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.int32]]:
    """Row, kind (its place in KINDS) and rank from 1 (0: none) of a query's titles.

    The first ranks are taken as they are, the middle ones drawn from those that follow, the random
    ones from all titles that are not among `ranked`. Fewer where there are no more.
    """
    num_top = min(mix.top, len(ranked))
    rest = np.arange(num_top, len(ranked))
    middle = np.sort(rng.choice(rest, min(mix.middle, len(rest)), replace=False))
    random = _others(ranked, num_titles=num_titles, num=mix.random, rng=rng)
    places = np.concatenate([np.arange(num_top), middle])
    rows = np.concatenate([ranked[places], random])
    kinds = np.repeat(np.arange(3, dtype=np.int8), [num_top, len(middle), len(random)])
    ranks = np.concatenate([places + 1, np.zeros(len(random), np.int64)])
    return rows, kinds, ranks.astype(np.int32)


def _others(
    ranked: NDArray[np.int64], *, num_titles: int, num: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Distinct rows that are not among `ranked`, each as likely as any other."""
    num = min(num, num_titles - len(ranked))
    if num_titles <= _FEW_TITLES:
        left = np.setdiff1d(np.arange(num_titles), ranked, assume_unique=True)
        return rng.choice(left, num, replace=False)
    found = np.empty(0, np.int64)
    while len(found) < num:
        drawn = np.concatenate([found, rng.integers(num_titles, size=2 * num)])
        drawn = drawn[~np.isin(drawn, ranked)]
        found = drawn[np.sort(np.unique(drawn, return_index=True)[1])][:num]
    return found
