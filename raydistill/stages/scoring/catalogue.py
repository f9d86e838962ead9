"""score over a catalogue: a Ray task for some input files or a piece of one, an output for each.

An output that exists is whole. What an item of work wrote is in a record, which is written last: a
job that is submitted again does the items without one. The bytes depend on neither the number of
workers nor on kills.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pyarrow import fs

from raydistill.cluster.tasks import Item, run_tasks
from raydistill.errors import WorkError
from raydistill.files import retry
from raydistill.files.folder import SUCCESS, Folder
from raydistill.progress import Progress
from raydistill.runs.fingerprints import fingerprint
from raydistill.runs.lease import Lease
from raydistill.stages.scoring.job import KIND, Job
from raydistill.stages.scoring.pieces import record_name, score_item
from raydistill.stages.scoring.plan import Plan, make_plan, read_plan
from raydistill.stages.scoring.rows import bad_line

logger = logging.getLogger("raydistill")
_NUM_THREADS = 16  # one read from S3 waits 20 to 100 ms
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")  # of a killed process
_MOST_WARNINGS = 20


def is_complete(job: Job) -> bool:
    """Whether the job is finished and all of its outputs are there."""
    done = job.output.success()
    return done is not None and set(done["outputs"]) <= set(_listed(job.output))


def run(job: Job, *, take_over: bool = False) -> dict[str, Any]:
    """Score what has no scores yet; returns the counts.

    Raises:
        UserError: another job works on the output, the output was begun by a job with other inputs
            or settings, or an input cannot be read.
    """
    job.output.claim(KIND)
    with Lease(job.output / "_leases", "score", take_over=take_over):
        job.check_begun()  # again: another job may have begun meanwhile
        if is_complete(job):
            return job.output.success() or {}
        return _run(job)


def _run(job: Job) -> dict[str, Any]:
    start_s = time.monotonic()
    plan = make_plan(job)
    done = finished(job, plan)
    left = [item for item in plan.items if item["number"] not in done]
    num_files = len(job.files)
    logger.info(
        "score     %s files as %s pieces of work; %s are done",
        *(f"{number:,}" for number in (num_files, len(plan.items), len(done))),
    )
    known = [item["rows"] for item in left]
    total = None if None in known else sum(known)
    tally = _Tally(Progress("score", num_items=len(left), num_rows=total, unit="pieces"))
    for record in done.values():
        tally.count(record)
    del done
    work = partial(score_item, job=job.without_files, schema=plan.schema)
    for result in run_tasks([job.with_files(item) for item in left], work, cpus=1):
        tally.add(result)
    return _finish(job, tally, seconds=time.monotonic() - start_s)


def left_line(job: Job) -> str:
    """One line on what is left, from what is written: no file is read."""
    plan = read_plan(job)
    num_bytes = sum(file.size_bytes for file in job.files)
    line = f"score: {len(job.files):,} files, {num_bytes / 1e6:,.0f} MB, to {job.output}"
    if plan is None:
        return f"{line}; not begun"
    return f"{line}; {len(finished(job, plan)):,} of {len(plan.items):,} pieces of work are done"


def finished(job: Job, plan: Plan) -> dict[int, Item]:
    """The records of the items whose outputs are all there, by number."""
    there = set(_listed(job.output))
    names = {item["number"]: record_name(item["number"]) for item in plan.items}
    numbers = [number for number, name in names.items() if name in there]
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        records = threads.map(lambda number: job.output.read_json(names[number]), numbers)
        found = dict(zip(numbers, records, strict=True))
    return {
        number: record
        for number, record in found.items()
        if record is not None and set(record["outputs"]) <= there
    }


@dataclass
class _Tally:
    """Counts of all items, and the progress of those of this attempt."""

    progress: Progress
    outputs: dict[str, int] = field(default_factory=dict)  # rows of each file
    num_unscored: int = 0
    libraries: Counter[str] = field(default_factory=Counter)
    core_s: float = 0.0  # of this attempt
    num_warnings: int = 0

    def count(self, record: Mapping[str, Any]) -> None:
        """Count an item that is complete."""
        for name, (num_rows, num_unscored) in record["outputs"].items():
            self.outputs[name] = num_rows
            self.num_unscored += num_unscored
            self.libraries[record["library"]] += num_rows

    def add(self, record: Mapping[str, Any]) -> None:
        """Count an item of this attempt, and log its bad rows."""
        self.count(record)
        for uri, num_bad, first in record["bad"]:
            self.num_warnings += 1
            if self.num_warnings <= _MOST_WARNINGS:
                logger.warning("score     %s", bad_line(uri, num_bad, first))
        rows = sum(num_rows for num_rows, _ in record["outputs"].values())
        self.core_s += record["core_s"]
        self.progress.add(rows=rows)


def _finish(job: Job, tally: _Tally, *, seconds: float) -> dict[str, Any]:
    """Write _SUCCESS.json; returns its content."""
    there = set(_listed(job.output))
    missing = sorted(set(tally.outputs) - there)
    if missing:
        raise WorkError(
            f"{len(missing)} files were written but are not in {job.output}, {missing[0]} among "
            "them; do all machines see that folder?"
        )
    for name in there:
        if _TEMPORARY.fullmatch(name.rpartition("/")[2]):
            _delete(job.output, name)
    scored_by = dict(sorted(tally.libraries.items()))
    if len(scored_by) > 1:
        logger.warning(
            "score     machines of different kinds scored (%s): the last digits of scores depend "
            "on the kind", ", ".join(scored_by),
        )  # fmt: skip
    num_rows, rows_scored = sum(tally.outputs.values()), tally.progress.rows
    summary = {
        "fingerprint": fingerprint("score", job.settings()),
        "bundle": job.bundle_fingerprint,
        "files": len(job.files),
        "rows_in": num_rows,
        "rows_out": num_rows,
        "without_score": tally.num_unscored,
        "scored_by": scored_by,
        "seconds": round(seconds, 1),
        "rows_scored": rows_scored,
        "rows_per_s": round(rows_scored / max(seconds, 1e-9)),
        "core_us_per_pair": round(1e6 * tally.core_s / rows_scored, 2) if rows_scored else None,
        **retry.for_success(),
        "outputs": dict(sorted(tally.outputs.items())),
    }
    job.output.write_json(SUCCESS, summary)
    retry.log_counts("score")
    return summary


def _delete(folder: Folder, name: str) -> None:
    inner, _, base = name.rpartition("/")
    with suppress(FileNotFoundError):  # its task may have ended meanwhile
        (folder / inner if inner else folder).delete_file(base)


def _listed(folder: Folder) -> list[str]:
    """All files below the folder, by their names from there: one request for 1,000."""
    selector = fs.FileSelector(folder.path(), recursive=True, allow_not_found=True)
    infos = folder.tried(lambda: folder.filesystem.get_file_info(selector))
    root = folder.path().rstrip("/") + "/"
    return [info.path.removeprefix(root) for info in infos if info.is_file]
