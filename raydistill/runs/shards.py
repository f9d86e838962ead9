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


def split_shards(run: Run, split: str) -> dict[str, int]:
    """Name and number of rows of each shard of a split, judged or drawn from the transfer set.

    Raises:
        UserError: prepare is not complete.
    """
    prefix = f"{split}/"
    found = _counted(run, run.config.source_of(split))
    return {name.removeprefix(prefix): n for name, n in found.items() if name.startswith(prefix)}


def is_prepared(run: Run) -> bool:
    """Whether `prepare` is complete: its files may have been removed after `label` (`verify`)."""
    done = {name: (run.root / name).success() for name in run.config.datasets}
    return all(
        one is not None and one["fingerprint"] == run.prepare_fingerprint(name)
        for name, one in done.items()
    )


def _counted(run: Run, dataset: str) -> dict[str, int]:
    done = (run.root / dataset).success()
    if done is None or done["fingerprint"] != run.prepare_fingerprint(dataset):
        state = "outdated" if done else "not complete"
        raise UserError(f"{run.root}/{dataset} is {state}: run `prepare` first")
    shards: dict[str, int] = done["shards"]
    return shards


def shards_to_score(run: Run) -> list[Shard]:
    """All shards that a teacher scores: the transfer set, and the dev and test splits."""
    found = [Shard(run.pairs, name, rows, name) for name, rows in pair_shards(run).items()]
    for split in SCORED_SPLITS:
        found += [
            Shard(run.split(split), name, rows, split_target(run, split, name))
            for name, rows in split_shards(run, split).items()
        ]
    return found


def split_target(run: Run, split: str, name: str) -> str:
    """The name of the logits file of a split's shard, in a teacher's folder."""
    return f"{run.config.source_of(split)}/{split}/{name}"


def missing_shards(run: Run, teacher: str) -> list[Shard]:
    """The shards without a logits file; one listing a folder."""
    logits = run.logits(teacher)
    there = set(logits.shards())
    for split in SCORED_SPLITS:
        folder = logits / run.config.source_of(split) / split
        there |= {split_target(run, split, name) for name in folder.shards()}
    return [shard for shard in shards_to_score(run) if shard.target not in there]


def is_labeled(run: Run, teacher: str) -> bool:
    """Whether a teacher has logits for all shards, and _SUCCESS.json counts all of them.

    A job that ends between the last shard of an addition and that file leaves the counts of before.
    """
    done = run.logits(teacher).success()
    if done is None or not is_prepared(run):
        return False
    shards = shards_to_score(run)
    counts = len(shards), sum(shard.num_rows for shard in shards)
    return (done.get("shards"), done.get("rows_in")) == counts and not missing_shards(run, teacher)


def awaited(run: Run, teacher: str) -> str | None:
    """The teacher whose logits `teacher` is still to learn from, as shards are not scored yet.

    None: it learns from nobody, it can learn now, or it has learned already. A shard that comes
    later changes nothing in a teacher that is fine-tuned.
    """
    source = run.config.teachers[teacher].learns_from if teacher in run.config.teachers else None
    if source is None or run.teacher(teacher).success() is not None:
        return None
    return None if is_labeled(run, source) else source
