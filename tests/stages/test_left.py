"""What `--dry-run` says of a run that is half done."""

from pathlib import Path

import pytest

from raydistill.runs.run_folder import Run
from raydistill.runs.shards import shards_to_score
from raydistill.stages.left import plan_lines

pytestmark = pytest.mark.slow


def test_shards_and_rows_that_are_left_are_counted(labeled: Run) -> None:
    name = next(iter(labeled.config.teachers))
    shards = shards_to_score(labeled)
    Path(labeled.logits(name).uri, shards[0].target).unlink()
    lines = list(plan_lines(labeled))
    assert lines[0] == f"writes to {labeled.root}"
    assert any(line.startswith("prepare   complete  ") for line in lines)
    left = f"{name}: 1 of {len(shards)} shards left, {shards[0].num_rows:,} rows"
    at = next(n for n, line in enumerate(lines) if line.strip() == left)
    assert lines[at - 1].startswith("label     to do     ")
    assert (
        lines[at + 1].strip() == "asks for all GPUs, 1 for each actor; without GPUs one core each"
    )
