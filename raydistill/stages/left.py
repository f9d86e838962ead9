"""What `--dry-run` says of each stage of a run: state, outputs, what is left, what it asks for.

Reads _SUCCESS.json files and listings; starts no Ray and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from raydistill.config.teachers import TREES
from raydistill.runs.run_folder import STAGES, Run
from raydistill.runs.shards import missing_shards, pair_shards, shards_to_score
from raydistill.stages.distill import is_complete, outputs


def plan_lines(run: Run) -> Iterator[str]:
    """The lines of the plan, in the order of the stages."""
    yield f"writes to {run.root}"
    for stage in (*STAGES, *(["tune"] if run.config.tune.space else [])):
        is_done = is_complete(stage, run)
        folders = ", ".join(folder.uri for folder in outputs(stage, run)) or "no output"
        yield f"{stage:<9} {'complete' if is_done else 'to do':<9} {folders}"
        if not is_done:
            yield from (f"{'':<20}{line}" for line in (*_left(stage, run), _asks_for(stage, run)))


def _left(stage: str, run: Run) -> list[str]:
    if stage == "prepare":
        return ["files: " + ", ".join(f"{n} {len(run.found_files(n)):,}" for n in run.rules)]
    if stage == "label":
        return _left_to_label(run)
    if stage == "train" and is_complete("prepare", run):
        rows = sum(pair_shards(run).values())
        return [f"{rows:,} pairs, {run.config.train.epochs} epochs"]
    return []


def _left_to_label(run: Run) -> list[str]:
    if not is_complete("prepare", run):
        return ["all shards that prepare writes"]
    num_shards, lines = len(shards_to_score(run)), []
    for name in run.config.teacher_names:
        left = missing_shards(run, name)
        rows = sum(shard.num_rows for shard in left)
        lines.append(f"{name}: {len(left):,} of {num_shards:,} shards left, {rows:,} rows")
    return lines


def _asks_for(stage: str, run: Run) -> str:
    config = run.config
    if stage == "label":
        return f"asks for {_actors(run)}"
    if stage == "finetune":
        return f"asks for {_workers(config.finetune.num_workers, config.finetune.num_gpus)}"
    if stage == "train":
        return f"asks for {_workers(config.train.num_workers, config.train.num_gpus)}"
    if stage == "tune":
        return f"asks for {config.tune.num_concurrent or 'all'} cores, one a trial"
    if stage == "prepare":
        return f"asks for {_all('cores', config.cluster.cpus)}, one a task"
    return "runs on the driver"


def _actors(run: Run) -> str:
    """The actors of `label`: the trees and scores from files need no GPU."""
    config = run.config
    gpus = config.label.num_gpus
    num = config.label.num_actors
    on_cores = all(name == TREES or config.is_partial(name) for name in config.teacher_names)
    if on_cores or not gpus:
        return f"{num} actors of one core" if num else f"{_all('cores', config.cluster.cpus)}"
    if num:
        return f"{num} actors with {gpus:g} GPU each"
    gpus_of_all = _all("GPUs", config.cluster.gpus)
    return f"{gpus_of_all}, {gpus:g} for each actor; without GPUs one core each"


def _workers(num: int | tuple[int, int], gpus: float) -> str:
    each = f"{gpus:g} GPU and one core" if gpus else "one core"
    many = f"{num[0]} to {num[1]}" if isinstance(num, tuple) else f"{num}"
    return f"1 worker of {each}" if num == 1 else f"{many} workers of {each}"


def _all(units: str, most: int | None) -> str:
    return f"all {units}" if most is None else f"up to {most:,} {units}"
