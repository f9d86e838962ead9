"""Draw dev and test from the transfer set, where judged pairs are not them, into `held_out/`."""

from __future__ import annotations

import logging
import time
from functools import partial

from raydistill.cluster.tasks import run_tasks
from raydistill.data.held_out.draw import ONE_SHARD, Draw, draw_part, merge, plan_draw
from raydistill.data.input_checks import UnusableInput
from raydistill.data.manifest import find_moved
from raydistill.data.prepare_steps import Dataset
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS
from raydistill.files.schema import COUNTS
from raydistill.runs.run_folder import Run
from raydistill.stages.splits.judged import split_keys

logger = logging.getLogger("raydistill")
HELD_OUT = "held_out"


def draw_splits(run: Run, pairs: Dataset) -> bool:
    """Write the splits that judged pairs are not to `held_out/`; False if there are none, or all.

    Raises:
        UnusableInput: a split has no pair.
        UserError: pairs are prepared, and the splits are not of their files.
    """
    splits = tuple(one for one in ("dev", "test") if run.config.source_of(one) == HELD_OUT)
    folder, rules = run.root / HELD_OUT, run.config.pairs
    if not splits or _are_drawn(run, pairs):
        return False
    start_s = time.monotonic()
    draw = Draw(
        pairs, folder, splits, rules.dev_share, rules.test_share,
        split_keys(run, [one for one in ("dev", "test") if one not in splits]),
    )  # fmt: skip
    items = plan_draw(find_moved(run.manifest.pairs[0], run.found_files("pairs")))
    chunks = [item["chunk"] for item in run_tasks(items, partial(draw_part, draw=draw), cpus=1)]
    (made,) = run_tasks([{"chunks": sorted(chunks)}], partial(merge, draw=draw), cpus=1)
    counts = {split: made["shards"].get(f"{split}/{ONE_SHARD}", 0) for split in splits}
    if not all(counts.values()):
        raise UnusableInput(
            f"no pair of {run.config.pairs.input[0].path} falls into {' or '.join(splits)} "
            f"({counts}): the transfer set has too few queries; give more pairs, or larger "
            f"pairs.dev_share and pairs.test_share (now {rules.dev_share} and {rules.test_share})"
        )
    num_out = sum(counts.values())
    seconds = round(time.monotonic() - start_s, 1)
    summary = {
        "fingerprint": run.prepare_fingerprint(HELD_OUT),
        **dict.fromkeys(COUNTS, 0),
        "rows_in": made["rows_in"],
        "rows_out": num_out,
        "duplicates": made["rows_in"] - num_out,
        "seconds": seconds,
        "shards": made["shards"],
    }
    folder.write_json(SUCCESS, summary)
    draw.chunks.delete()
    logger.info(
        "prepare   held out: %s pairs of the transfer set, for agreement with the teachers; %.0f s",
        " and ".join(f"{num:,} {split}" for split, num in counts.items()), seconds,
    )  # fmt: skip
    return True


def _are_drawn(run: Run, pairs: Dataset) -> bool:
    """Whether the splits are those of the files; of other files they are deleted if they can be."""
    folder = run.root / HELD_OUT
    done = folder.success()
    if done is None or done["fingerprint"] == run.prepare_fingerprint(HELD_OUT):
        return done is not None
    if pairs.folder.success() is not None:
        raise UserError(
            f"{folder} was drawn from other files than those of {pairs.folder}, so that a query of "
            "it may be among the pairs: give another run_dir"
        )
    folder.delete()
    pairs.delete()  # cleaned without the queries of the splits of before
    return False
