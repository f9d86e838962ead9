"""prepare: raw files to `judged/`, `pairs/` and `quarantine/`.

Two passes of Ray tasks. Scatter: a part of a raw file becomes clean chunks sorted by the query
key. Gather: a task reads a range of keys from all chunks, removes duplicates and writes shards. The
result depends on neither the cluster nor the order of files. Without `dedupe` there is one pass: a
part becomes shards. Files added later form an increment: more shards with the new pairs.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.cluster.tasks import Item, run_tasks
from raydistill.data.bucket_layout import BucketLayout, make_layout
from raydistill.data.chunks import write_index
from raydistill.data.input_checks import UnusableInput, check_labels, check_usable
from raydistill.data.manifest import PREPARED, Manifest, RawFile, find_moved, unknown_files
from raydistill.data.passes.gather import MOST_BUCKET_ROWS, gather_groups, plan_gather
from raydistill.data.passes.scatter import plan_scatter, scatter_parts
from raydistill.data.prepare_steps import Dataset, HeldOut, file_keys
from raydistill.errors import UserError
from raydistill.files import retry
from raydistill.files.folder import SUCCESS
from raydistill.files.retry import ITEM_TRIES, tried
from raydistill.files.schema import CONFLICTS, COUNTS, EXTRAS, SPLITS
from raydistill.progress import Progress
from raydistill.runs.run_folder import Run
from raydistill.stages.evaluation.reread_rows import check_files_of_report
from raydistill.stages.splits.drawn import HELD_OUT, draw_splits
from raydistill.stages.splits.judged import check_splits, split_keys

logger = logging.getLogger("raydistill")


def prepare_stage(run: Run) -> bool:
    """Make the judged splits and the shards of the transfer set; False if they are complete.

    Raises:
        UserError: an input is missing, lacks a column, has changed since it was prepared, or has
            too few usable rows.
    """
    check_inputs(run)
    with run.begin("prepare"):
        if run.reread_manifest():  # another job has prepared meanwhile
            _forget_unfinished(run)
            _check_new(run)
        new, manifest = run.unknown_files("pairs"), run.manifest
        if new:
            manifest = manifest.with_increments("pairs", [*manifest.pairs, new])
        if Manifest.read(run.root) is None:
            for dataset in _datasets(run):  # rows of files that could not be used
                dataset.quarantine.delete()
        patterns = tuple(sorted({*manifest.patterns, *run.patterns}))
        run.write_manifest(replace(manifest, patterns=patterns))
        try:
            return _build_all(run)
        except UnusableInput:
            _forget_first(run)
            raise


def _build_all(run: Run) -> bool:
    *judged, pairs = _datasets(run)
    did = any([_build(dataset, run=run) for dataset in judged])
    check_splits(run)
    did |= draw_splits(run, pairs)
    return _build(pairs, run=run) or did


def _forget_first(run: Run) -> None:
    """Delete a failed first increment except quarantine/: the settings may still change."""
    *judged, pairs = _datasets(run)
    if _num_done(pairs):
        return
    for dataset in (*judged, pairs):
        dataset.folder.delete()
    (run.root / HELD_OUT).delete()
    run.root.delete_file(PREPARED)


def check_inputs(run: Run) -> None:
    """Check each new raw file.

    Raises:
        UserError: an input is missing, lacks a column, or has changed since it was prepared; or
            the labels do not match the settings.
    """
    run.check_owner()
    if Manifest.read(run.root) is not None and _has_pending(run):
        with run.begin("prepare"):
            _forget_unfinished(run)
    _check_new(run)
    if run.config.judged is not None and not (run.root / "judged").success():
        check_labels(run.found_files("judged"), run.config.judged)
        check_files_of_report(run.config)


def _check_new(run: Run) -> None:
    new = run.unknown_files("judged") if run.config.judged is not None else []
    run.unknown_files("pairs")
    if new:
        raise UserError(
            f"{new[0].uri} was added after the judged pairs of {run.root} were prepared; pairs of "
            "a new dev or test query may lie in its shards already: give another run_dir"
        )


def _has_pending(run: Run) -> bool:
    """Whether an increment in the manifest is not complete."""
    return any(len(run.manifest.increments(d.name)) > _num_done(d) for d in _datasets(run))


def _forget_unfinished(run: Run) -> None:
    """Restart unfinished increments whose files were deleted or changed.

    After the repair of a truncated file, only the unfinished increments are made again. Splits that
    were drawn from the first files go with them.
    """
    datasets = _datasets(run)
    for dataset in datasets:
        increments = run.manifest.increments(dataset.name)
        num_done = _num_done(dataset)
        pending = [file for files in increments[num_done:] for file in files]
        if not pending:
            continue
        found = run.found_files(dataset.name)
        try:
            find_moved(pending, found)
        except UserError as error:
            logger.warning("prepare   %s; restarting the increment that was not finished", error)
            kept: list[Sequence[RawFile]] = [*increments[:num_done]] or [unknown_files([], found)]
            for number in range(num_done, len(increments)):
                replace(dataset, increment=number).delete()
            if not _num_done(datasets[-1]):
                (run.root / HELD_OUT).delete()
            run.write_manifest(run.manifest.with_increments(dataset.name, kept))


def _datasets(run: Run) -> list[Dataset]:
    """The datasets of raw files, the pairs last."""
    config, quarantine = run.config, run.root / "quarantine"
    units = config.ngrams.unit_names
    pairs = Dataset(
        "pairs", config.pairs, run.pairs, quarantine / "pairs", ("",),
        shard_rows=config.pairs.shard_rows, dedupe=config.pairs.dedupe, extra_units=units,
    )  # fmt: skip
    if config.judged is None:
        return [pairs]
    judged = Dataset(
        "judged", config.judged, run.root / "judged", quarantine / "judged", SPLITS,
        shard_rows=config.pairs.shard_rows, dedupe=True, extra_units=units,
    )  # fmt: skip
    return [judged, pairs]


def _build(dataset: Dataset, *, run: Run) -> bool:
    """Make the increments that are not complete, in order; False if all are complete."""
    increments = run.manifest.increments(dataset.name)
    done = dataset.folder.success() or {"increments": [], "shards": {}}
    num_done = len(done["increments"])
    if num_done == len(increments):
        dataset.all_chunks.delete()  # if a job was killed after it wrote _SUCCESS.json
        return False
    held_out = _held_out(run, dataset)
    for number, files in enumerate(increments[num_done:], num_done):
        places = find_moved(files, run.found_files(dataset.name))
        increment = replace(dataset, increment=number)
        added = _add(increment, places, done["increments"], held_out=held_out)
        shards = {**done["shards"], **added.pop("shards")}
        done = {"increments": [*done["increments"], added], "shards": shards}
        is_last = number == len(increments) - 1
        fingerprint = run.prepare_fingerprint(dataset.name) if is_last else ""
        summary = _summary(done, fingerprint=fingerprint) | retry.for_success()
        dataset.folder.write_json(SUCCESS, summary)
        dataset.all_chunks.delete()  # after SUCCESS: a resume would miss the deleted chunks
    return True


def _num_done(dataset: Dataset) -> int:
    done = dataset.folder.success()
    return len(done["increments"]) if done else 0


def _summary(done: dict[str, Any], *, fingerprint: str) -> dict[str, Any]:
    """The content of _SUCCESS.json: sums over increments, each increment, rows of each shard."""
    increments = done["increments"]
    totals = {name: sum(one[name] for one in increments) for name in (*COUNTS, "seconds")}
    # An increment made by an older version lacks these counts.
    for name in EXTRAS:
        totals[name] = sum(one.get(name, 0) for one in increments)
    if any(CONFLICTS in one for one in increments):
        totals[CONFLICTS] = sum(one.get(CONFLICTS, 0) for one in increments)
    rate = round(totals["rows_in"] / max(totals["seconds"], 1e-9))
    return {"fingerprint": fingerprint, **totals, "rows_per_s": rate, **done}


def _add(
    dataset: Dataset,
    files: Sequence[RawFile],
    earlier: list[dict[str, Any]],
    *,
    held_out: HeldOut,
) -> dict[str, Any]:
    """Make one increment; returns its counts, layouts and shards."""
    start_s = time.monotonic()
    if dataset.begin_chunks():
        logger.warning(
            "prepare   %s was begun by an older version: its raw files are cleaned again, and the "
            "shards that there are stay", dataset.name
        )  # fmt: skip
    items = plan_scatter(dataset, files)
    counts, shards, chunks = _scatter(dataset, items, held_out=held_out)
    check_usable(dataset, counts, num_kept=_kept(dataset, counts))
    layouts: dict[str, BucketLayout] = {}
    rows_out, conflicts = sum(shards.values()), {}
    if dataset.dedupe:
        layouts = _layouts(dataset, counts, earlier)
        num_bytes = {
            split: write_index(dataset.chunks, dataset.index(split), chunks[split])
            for split in dataset.splits
        }
        del chunks  # 12 kB for a million rows
        totals, shards = _gather(dataset, layouts, earlier, counts=counts, num_bytes=num_bytes)
        rows_out = totals["rows_out"]
        conflicts = {CONFLICTS: totals[CONFLICTS]} if CONFLICTS in totals else {}
        if totals["is_exact"]:
            _check_sum(dataset, "gathered", totals["rows_in"], _kept(dataset, counts))
    lost = counts["rows_in"] - counts["quarantined"] - counts["held_out"]
    _check_sum(dataset, "cleaned", _kept(dataset, counts), lost)
    added: dict[str, Any] = {
        "rows_in": counts["rows_in"],
        "rows_out": rows_out,
        "duplicates": _kept(dataset, counts) - rows_out,
        "quarantined": counts["quarantined"],
        "held_out": counts["held_out"],
        **{name: counts[name] for name in EXTRAS},
        **conflicts,
        "seconds": round(time.monotonic() - start_s, 1),
        "files": len(files),
        "layouts": {split: asdict(layout) for split, layout in layouts.items()},
        "shards": shards,
    }
    _log_added(dataset, added)
    return added


def _log_added(dataset: Dataset, added: dict[str, Any]) -> None:
    again = f" (increment {dataset.increment})" if dataset.increment else ""
    seconds = added["seconds"]
    logger.info(
        "prepare   %s%s: %s rows in = %s out + %s duplicates + %s quarantined + %s held out "
        "(dev and test queries); %d shards, %.0f s, %s rows/s",
        dataset.name, again, *(f"{added[name]:,}" for name in COUNTS), len(added["shards"]),
        seconds, f"{added['rows_in'] / max(seconds, 0.1):,.0f}",
    )  # fmt: skip
    if added.get(CONFLICTS):
        logger.warning(
            "prepare   %s: %s pairs have rows with different labels: each has their mean",
            dataset.name, f"{added[CONFLICTS]:,}",
        )  # fmt: skip


def _kept(dataset: Dataset, counts: Counter[str]) -> int:
    return sum(counts[f"kept_{split}"] for split in dataset.splits)


def _check_sum(dataset: Dataset, what: str, found: int, expected: int) -> None:
    if found != expected:
        raise RuntimeError(f"{dataset.name}: {found:,} rows {what}, {expected:,} expected")


# --- scatter


def _scatter(
    dataset: Dataset, items: list[Item], *, held_out: HeldOut
) -> tuple[Counter[str], dict[str, int], dict[str, list[Item]]]:
    """Clean all parts into chunks, or into shards without dedupe.

    Returns the counts, the shards, and the entries of the chunks of each split in its index.
    """
    progress = Progress("prepare", num_items=len(items), num_rows=None, unit="parts")
    work = partial(scatter_parts, dataset=dataset, held_out=held_out)
    totals: Counter[str] = Counter()
    shards: dict[str, int] = {}
    chunks: dict[str, list[Item]] = {split: [] for split in dataset.splits}
    for result in run_tasks(items, work, cpus=1):
        here = result["counts"]
        totals.update(here)
        shards.update(result["shards"])
        for split, entries in result.get("chunks", {}).items():
            chunks[split] += entries
        for uri, num_bad, num_rows in result.get("bad", ()):  # an older version wrote none
            logger.warning(
                "prepare   %s of %s rows of %s are in quarantine",
                f"{num_bad:,}", f"{num_rows:,}", uri,
            )  # fmt: skip
        progress.add(rows=here["rows_in"], note=f"{dataset.name} cleaned")
    return totals, dict(sorted(shards.items())), chunks


# --- gather


def _layouts(
    dataset: Dataset, counts: Counter[str], earlier: list[dict[str, Any]]
) -> dict[str, BucketLayout]:
    layouts = {
        split: make_layout(
            counts[f"kept_{split}"],
            shard_rows=dataset.shard_rows,
            first=BucketLayout(**earlier[0]["layouts"][split]) if earlier else None,
            increment=dataset.increment,
        )
        for split in dataset.splits
    }
    for split, layout in layouts.items():
        rows = counts[f"kept_{split}"] // layout.num_bucket_groups
        if rows > MOST_BUCKET_ROWS:
            raise UserError(
                f"{dataset.folder} was begun with few pairs and has {layout.num_buckets:,} "
                f"buckets; "
                f"these files would put {rows:,} rows into each: prepare them in a new run_dir"
            )
    return layouts


def _gather(
    dataset: Dataset,
    layouts: dict[str, BucketLayout],
    earlier: list[dict[str, Any]],
    *,
    counts: Counter[str],
    num_bytes: dict[str, int],
) -> tuple[Counter[str], dict[str, int]]:
    """Make the shards of all groups; returns rows read and written, and rows of each shard."""
    items = [
        item
        for split, layout in layouts.items()
        for item in plan_gather(
            dataset, split, layout,
            num_rows=counts[f"kept_{split}"], num_bytes=num_bytes[split],
        )
    ]  # fmt: skip
    known = {split: [one["layouts"][split] for one in earlier] for split in dataset.splits}
    progress = Progress(
        "prepare", num_items=len(items), num_rows=_kept(dataset, counts), unit="ranges"
    )
    totals: Counter[str] = Counter(rows_in=0, rows_out=0)
    is_exact = True
    shards: dict[str, int] = {}
    work = partial(gather_groups, dataset=dataset, layouts=layouts, known=known)
    for result in run_tasks(items, work, cpus=1):
        totals.update(rows_in=result["rows_in"], rows_out=sum(result["shards"].values()))
        if CONFLICTS in result:
            totals[CONFLICTS] += result[CONFLICTS]
        shards.update(result["shards"])
        is_exact &= result["is_exact"]
        progress.add(rows=result["rows_in"], note=f"{dataset.name} distinct")
    totals["is_exact"] = int(is_exact)
    return totals, dict(sorted(shards.items()))


def _held_out(run: Run, dataset: Dataset) -> HeldOut:
    """The query keys to remove from each dataset's files: training data has no dev or test query.

    Judged pairs: only files with a configured split reserve their queries; test has priority over
    dev, dev over the rest.
    """
    if dataset.name == "pairs":
        return HeldOut({"": split_keys(run)} if run.config.pairs.hold_out else {})
    given = {split: [np.empty(0, np.uint64)] for split in SPLITS}
    for file in find_moved(run.manifest.judged[0], run.found_files("judged")):
        if file.split in ("dev", "test"):
            given[file.split].append(_file_keys(file, dataset))
    test, dev = np.concatenate(given["test"]), np.concatenate(given["dev"])
    both = np.union1d(test, dev)
    return HeldOut({"": both, "train": both, "dev": test})


def _file_keys(file: RawFile, dataset: Dataset) -> NDArray[np.uint64]:
    rules, units = dataset.rules, dataset.extra_units
    return tried(lambda: file_keys(file, rules, extra_units=units), tries=ITEM_TRIES)
