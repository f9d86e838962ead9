"""The pairs that a student learns from, where teachers have logits of some pairs only.

If no teacher of the stack scores every pair, the pairs without a logit would be read in each epoch
and give nothing, and counts of pairs would be wrong. The others are then copied with their logits,
once, to `covered/` (stages/fits/covered.py). Else these are all pairs, where they are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.runs.fingerprints import fingerprint
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import pair_shards


@dataclass(frozen=True)
class CoveredPairs:
    """Shards of pairs with their numbers of rows, and their logits by teacher."""

    pairs: Folder
    logits: dict[str, Folder]
    shards: dict[str, int]


def is_sparse(run: Run, names: Collection[str]) -> bool:
    """Whether a pair may have no logit of any of these teachers."""
    return bool(names) and all(run.config.is_partial(name) for name in names)


def covered_folder(run: Run, names: Collection[str]) -> Folder:
    """The folder of the pairs that one of these teachers has a logit for."""
    teachers = {name: [run.label_fingerprint(name), run.labeled_by(name)] for name in names}
    made_of = fingerprint("covered", run.prepare_fingerprint("pairs"), teachers)
    return run.root / "covered" / made_of


def covered_pairs(run: Run, names: Collection[str]) -> CoveredPairs:
    """The pairs that a student learns from with these teachers.

    Raises:
        UserError: prepare is not complete, the copies are not made yet, or no pair is covered.
    """
    if not is_sparse(run, names):
        return CoveredPairs(run.pairs, {name: run.logits(name) for name in names}, pair_shards(run))
    folder = covered_folder(run, names)
    done = folder.success()
    if done is None:
        raise UserError(f"no {folder}: run `train` or `tune`, which copies the scored pairs there")
    if not done["shards"]:
        raise UserError(
            f"no pair of the transfer set has a logit of {', '.join(names)}: nothing to train on"
        )
    logits = {name: folder / name for name in names}
    return CoveredPairs(folder / "pairs", logits, done["shards"])
