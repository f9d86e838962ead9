"""A run's shards, and those that a teacher has not scored: by listings, without reading rows."""

from __future__ import annotations

from dataclasses import dataclass

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.runs.run_folder import Run

SCORED_SPLITS = ("dev", "test")  # on which tune and evaluate compare the teachers


@dataclass(frozen=True)
class Shard:
    """A shard of pairs, and the name of its logits file in a teacher's folder."""

    folder: Folder
    name: str
    num_rows: int
    target: str


def pair_shards(run: Run) -> dict[str, int]:
    """Name and number of rows of each shard of the transfer set.

    Raises:
        UserError: prepare is not complete.
    """
    return _counted(run, "pairs")


def judged_shards(run: Run, split: str) -> dict[str, int]:
    """Name and number of rows of each shard of a judged split.

    Raises:
        UserError: prepare is not complete.
    """
    prefix = f"{split}/"
    found = _counted(run, "judged")
    return {name.removeprefix(prefix): n for name, n in found.items() if name.startswith(prefix)}


def _counted(run: Run, dataset: str) -> dict[str, int]:
    done = (run.root / dataset).success()
    if done is None or done["fingerprint"] != run.prepare_fingerprint(dataset):
        state = "outdated" if done else "not complete"
        raise UserError(f"{run.root}/{dataset} is {state}: run `prepare` first")
    shards: dict[str, int] = done["shards"]
    return shards


def shards_to_score(run: Run) -> list[Shard]:
    """All shards that a teacher scores: the transfer set, and the judged dev and test splits."""
    found = [Shard(run.pairs, name, rows, name) for name, rows in pair_shards(run).items()]
    for split in SCORED_SPLITS:
        found += [
            Shard(run.judged(split), name, rows, f"judged/{split}/{name}")
            for name, rows in judged_shards(run, split).items()
        ]
    return found


def missing_shards(run: Run, teacher: str) -> list[Shard]:
    """The shards without a logits file; one listing a folder."""
    logits = run.logits(teacher)
    there = set(logits.shards())
    for split in SCORED_SPLITS:
        there |= {f"judged/{split}/{name}" for name in (logits / "judged" / split).shards()}
    return [shard for shard in shards_to_score(run) if shard.target not in there]
