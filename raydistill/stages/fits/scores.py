"""The index of a teacher's files of scores, made once before `label` looks its pairs up."""

from __future__ import annotations

import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from raydistill.cluster.tasks import Item, run_tasks
from raydistill.data.chunks import write_index
from raydistill.data.input_checks import are_too_many, commonest, count_reasons
from raydistill.data.prepare_steps import plan_parts
from raydistill.data.scores.columns import ScoreRule
from raydistill.data.scores.index import (
    INDEX,
    ScoreFiles,
    gather_scores,
    plan_buckets,
    plan_gather,
    scatter_scores,
)
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS
from raydistill.progress import Progress
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import shards_to_score

logger = logging.getLogger("raydistill")
_MAX_REJECT_FILES = 64
_NUM_THREADS = 16  # one read from S3 waits 20 to 100 ms


def index_scores(run: Run, name: str) -> None:
    """Make the index of a teacher's scores if it is not complete.

    Raises:
        UserError: the files have no usable row, or too many bad ones.
    """
    files = score_files_of(run, name)
    if files.index.success() is not None:
        files.chunks.delete()  # if a job was killed after it wrote _SUCCESS.json
        return
    start_s = time.monotonic()
    counts, examples, chunks = _scatter(run, name, files)
    _check(name, files, counts)
    write_index(files.chunks, INDEX, chunks)
    num_good = counts["rows_in"] - counts["quarantined"]
    num_buckets = plan_buckets(num_good)
    totals: Counter[str] = Counter()
    gather = partial(gather_scores, files=files, num_buckets=num_buckets)
    for result in run_tasks(plan_gather(num_buckets), gather, cpus=1):
        totals.update(result)
    summary: dict[str, Any] = {
        "fingerprint": run.label_fingerprint(name),
        "rows_in": counts["rows_in"],
        "rows_out": totals["pairs"],
        "duplicates": num_good - totals["pairs"],
        "quarantined": counts["quarantined"],
        "averaged": totals["averaged"],
        "buckets": num_buckets,
        "examples": examples,
        "seconds": round(time.monotonic() - start_s, 1),
    }
    files.index.write_json(SUCCESS, summary)
    files.chunks.delete()
    logger.info(
        "label     %s: %s rows of scores = %s pairs + %s duplicates + %s quarantined; "
        "%s pairs had different scores, whose mean counts; %.0f s",
        *(name, f"{summary['rows_in']:,}", f"{summary['rows_out']:,}"),
        *(f"{summary['duplicates']:,}", f"{summary['quarantined']:,}"),
        *(f"{summary['averaged']:,}", summary["seconds"]),
    )


def score_files_of(run: Run, name: str) -> ScoreFiles:
    """A teacher's files of scores and the folders of their index."""
    return ScoreFiles(
        rules=run.config.score_inputs(name),
        rule=ScoreRule.of(run.config.teachers[name]),
        index=run.teacher(name),
        quarantine=run.root / "quarantine" / "scores" / f"{name}-{run.label_fingerprint(name)}",
        extra_units=run.config.ngrams.unit_names,
    )


def _scatter(
    run: Run, name: str, files: ScoreFiles
) -> tuple[Counter[str], list[list[str]], list[Item]]:
    """Write all chunks.

    Returns the counts of all parts, pairs of the first part with any, and the chunks' entries for
    the index.
    """
    parts = plan_parts(run.score_files(name))
    progress = Progress("label", num_items=len(parts), num_rows=None, unit="parts")
    counts: Counter[str] = Counter(rows_in=0, quarantined=0)
    examples: dict[int, list[list[str]]] = {}  # by part: they come in any order
    chunks: list[Item] = []
    for result in run_tasks(parts, partial(scatter_scores, files=files), cpus=1):
        counts.update(result["counts"])
        examples[result["number"]] = result["examples"]
        chunks += result["chunks"]
        progress.add(rows=result["counts"]["rows_in"], note=f"{name}, scores read")
    first = next((examples[at] for at in sorted(examples) if examples[at]), [])
    return counts, first, chunks


def _check(name: str, files: ScoreFiles, counts: Counter[str]) -> None:
    """Raise UserError if no row of the files, or too few of them, can be used."""
    num_rows, num_bad, most = counts["rows_in"], counts["quarantined"], files.rules.max_bad_fraction
    is_empty = num_bad == num_rows
    if not is_empty and not are_too_many(num_bad, num_rows, most):
        return
    shards = files.quarantine.shards()[:_MAX_REJECT_FILES]
    reasons = commonest(count_reasons(files.quarantine.read_table(shard) for shard in shards))
    files.chunks.delete()  # read again: pairs.max_bad_fraction may be raised
    allowed = f", pairs.max_bad_fraction allows {most:.1%}" if not is_empty else ""
    raise UserError(
        f"teacher {name}: {num_bad:,} of the {num_rows:,} rows of scores cannot be used{allowed}"
        f"{'; ' + reasons if reasons else ''}; all are in {files.quarantine}: correct the files, "
        f"or name their columns and kind in [teachers.{name}]"
    )


def check_coverage(run: Run, name: str) -> dict[str, int]:
    """Pairs without a score, and scores without a pair, for `_SUCCESS.json`; a line says so.

    The numbers are read from the ends of the logits files, so that a resumed job counts all shards.

    Raises:
        UserError: no pair has a score.
    """
    shards, logits = shards_to_score(run), run.logits(name)

    def count(target: str) -> int:
        metadata = logits.metadata(target)
        groups = (metadata.row_group(at).column(1) for at in range(metadata.num_row_groups))
        return sum(int(group.statistics.null_count) for group in groups)

    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        num_absent = sum(threads.map(count, [shard.target for shard in shards]))
    num_pairs = sum(shard.num_rows for shard in shards)
    done = run.teacher(name).require_json(SUCCESS, stage="label")
    num_scored, num_scores = num_pairs - num_absent, done["rows_out"]
    if not num_scored and num_pairs:
        raise _no_match(run, name, done)
    # A pair may be in several shards: without dedupe, or in judged pairs that are not held out.
    is_exact = run.config.pairs.dedupe and run.config.pairs.hold_out
    num_unmatched = max(0, num_scores - num_scored)
    level = logging.WARNING if 2 * num_unmatched > num_scores else logging.INFO
    logger.log(
        level,
        "label     %s: %s of %s pairs have a score (%.1f%%); %s%s of %s scores are of no pair of "
        "the transfer set or the judged dev and test splits",
        *(name, f"{num_scored:,}", f"{num_pairs:,}", 100 * num_scored / max(num_pairs, 1)),
        *("" if is_exact else "at least ", f"{num_unmatched:,}", f"{num_scores:,}"),
    )
    return {"absent": num_absent, "unmatched": num_unmatched}


def _no_match(run: Run, name: str, done: dict[str, Any]) -> UserError:
    """The error of scores that are all of other pairs, with an example of both."""
    shards = shards_to_score(run)
    first = next((shard for shard in shards if shard.num_rows), shards[0])
    pairs = first.folder.read_rows(first.name, 0, 1, columns=["query", "title"])
    ours = next(iter(pairs.to_pylist()), {"query": "", "title": ""})
    query, title = next(iter(done["examples"]), ("", ""))
    return UserError(
        f"teacher {name}: none of the {done['rows_out']:,} scores is of a pair of this run; the "
        f"files have, for instance, query {query!r} with title {title!r}, the run has query "
        f"{ours['query']!r} with title {ours['title']!r}; a score counts if both texts are equal "
        f"after cleaning: are query and title swapped in [teachers.{name}], is the title another "
        "column, or are the files of another catalogue?"
    )
