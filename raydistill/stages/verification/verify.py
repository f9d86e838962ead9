"""verify: every file of a run present, readable, aligned with its pairs, and counted right."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from raydistill.cluster.tasks import Item, run_tasks
from raydistill.data.manifest import PREPARED, Manifest
from raydistill.files.folder import SUCCESS
from raydistill.progress import Progress, heartbeat
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import SCORED_SPLITS
from raydistill.stages.distill import on_machines
from raydistill.stages.verification.covered import check_covered
from raydistill.stages.verification.finding import Finding, Verified, read_object
from raydistill.stages.verification.labeled import LabeledFiles
from raydistill.stages.verification.prepared import PreparedFiles, check_begun, read_prepared
from raydistill.stages.verification.products import (
    check_bundle,
    check_lexicon,
    check_report,
    check_students,
    check_teachers,
    check_trees,
)
from raydistill.stages.verification.shard_rows import ShardChecks, findings_of, keys_of

logger = logging.getLogger("raydistill")
Work = Callable[[Item], Item]
_NUM_REMOTE = 8  # threads for an object store, each with a whole shard in memory
_RESTORE = "restore it from a copy: all fingerprints depend on it"


def verify_run(run: Run, *, on_cluster: bool) -> Verified:
    """Check all files of a run; rows are read by threads, or by Ray tasks with `on_cluster`.

    Raises:
        UserError: the folder is no run's, was prepared with other settings, or lies on a disk that
            a machine does not see: all its files would be missing there.
    """
    out = Verified()
    if not _has_manifest(run, out):
        return out
    run.check_owner()
    with on_machines("verify", run) if on_cluster else heartbeat():
        _verify(run, out, on_cluster=on_cluster)
    return out


def _verify(run: Run, out: Verified, *, on_cluster: bool) -> None:
    prepared: dict[str, PreparedFiles] = {}
    for dataset in run.config.datasets:
        found, out.parts[f"prepare {dataset}"], findings = read_prepared(run, dataset)
        out.findings += findings
        if found is not None:
            out.findings += found.check()
            prepared[dataset] = found
    labeled = _check_labels(run, prepared, out)
    _check_rows(prepared, labeled, out, on_cluster=on_cluster)
    _finish_labels(prepared, labeled, out)
    _check_products(run, prepared, out)


def _has_manifest(run: Run, out: Verified) -> bool:
    """Whether prepare.json can be read; without one there is nothing to verify."""
    check_begun(run)
    _, problem = read_object(run.root, PREPARED)
    if problem is None:
        try:
            Manifest.read(run.root)
        except (KeyError, TypeError, AttributeError) as error:
            out.findings.append(Finding(PREPARED, f"lacks {error}", _RESTORE))
    else:
        out.findings.append(Finding(PREPARED, problem.text, _RESTORE))
    return not out.findings


# --- logits


def _target(prepared: PreparedFiles, split: str, name: str) -> str | None:
    """The name of a shard's logits file; None: no teacher scores it."""
    if not split:
        return name
    is_scored = split in SCORED_SPLITS and prepared.run.config.source_of(split) == prepared.dataset
    return f"{prepared.dataset}/{split}/{name}" if is_scored else None


def _targets(prepared: dict[str, PreparedFiles]) -> dict[str, int]:
    """The logits files that each teacher has at the end, with their rows."""
    return {
        target: rows
        for files in prepared.values()
        for (split, name), rows in files.shards.items()
        if (target := _target(files, split, name)) is not None
    }


def _check_labels(
    run: Run, prepared: dict[str, PreparedFiles], out: Verified
) -> dict[str, LabeledFiles]:
    if set(prepared) != set(run.config.datasets):  # what is to be scored is not known
        return {}
    labeled = {name: LabeledFiles(run, name) for name in run.config.teacher_names}
    for files in labeled.values():
        out.findings += files.check(_targets(prepared))
    return labeled


def _finish_labels(
    prepared: dict[str, PreparedFiles], labeled: dict[str, LabeledFiles], out: Verified
) -> None:
    targets = _targets(prepared)
    for name, files in labeled.items():
        out.findings += files.check_counts(targets)
        out.parts[f"label {name}"] = files.state(targets)


# --- rows


def _check_rows(
    prepared: dict[str, PreparedFiles],
    labeled: dict[str, LabeledFiles],
    out: Verified,
    *,
    on_cluster: bool,
) -> None:
    """Read all shards: those of the splits first, as no pair may have a query of dev or test."""
    absent = {one.file for one in out.findings}
    keys: dict[str, NDArray[np.uint64]] = {}  # of each shard of a split
    items = {name: _items(files, labeled, absent) for name, files in prepared.items()}
    progress = Progress(
        "verify", unit="shards",
        num_items=sum(map(len, items.values())),
        num_rows=sum(item["rows"] for those in items.values() for item in those),
    )  # fmt: skip
    for name, files in prepared.items():  # the pairs are last
        held = _held(files, keys)
        teachers = tuple(one.files for one in labeled.values())
        checks = files.checks(teachers, held=held)
        for result in _run(items[name], checks, on_cluster=on_cluster):
            out.findings += findings_of(result)
            for one in labeled.values():
                one.count(result)
            if name != "pairs":
                keys[result["file"]] = keys_of(result)
            progress.add(rows=result["rows"], note=name)
    out.findings += _overlaps(prepared, keys)


def _items(files: PreparedFiles, labeled: dict[str, LabeledFiles], absent: set[str]) -> list[Item]:
    items: list[Item] = []
    for (split, name), rows in files.shards.items():
        if files.path(split, name) in absent:
            continue
        target = _target(files, split, name)
        scored = [teacher for teacher, one in labeled.items() if target in one.scored]
        items.append(
            {"split": split, "name": name, "rows": rows, "target": target, "scored": scored}
        )
    return items


def _held(files: PreparedFiles, keys: dict[str, NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """The keys of dev and test queries, which no pair of the transfer set may have."""
    nothing = np.empty(0, np.uint64)
    if files.dataset != "pairs" or not files.run.config.pairs.hold_out:
        return nothing
    return np.unique(np.concatenate([nothing, *(k for f, k in keys.items() if "/train/" not in f)]))


def _overlaps(
    prepared: dict[str, PreparedFiles], keys: dict[str, NDArray[np.uint64]]
) -> Iterator[Finding]:
    """Shards of different splits that have a query in common."""
    seen: dict[str, NDArray[np.uint64]] = {}
    for file, mine in sorted(keys.items()):
        split = file.split("/")[1]
        for other, theirs in seen.items():
            num = len(np.intersect1d(mine, theirs)) if other != split else 0
            if num:
                checks = prepared[file.partition("/")[0]].checks()
                gone = checks.removals(file)
                what = f"has {num:,} queries that the {other} split has too"
                yield Finding(
                    file, what, "--repair removes it, then `prepare` makes it again",
                    tuple(gone), "prepare",
                )  # fmt: skip
        seen[split] = np.union1d(seen.get(split, np.empty(0, np.uint64)), mine)


def _run(items: Sequence[Item], checks: ShardChecks, *, on_cluster: bool) -> Iterator[Item]:
    if on_cluster:
        yield from run_tasks(items, checks.check, cpus=1)
        return
    num = (os.cpu_count() or 1) if checks.root.is_local else _NUM_REMOTE
    with ThreadPoolExecutor(num) as threads:
        yield from threads.map(checks.check, items)


# --- what is made of pairs and logits


def _check_products(run: Run, prepared: dict[str, PreparedFiles], out: Verified) -> None:
    """Check teachers, students, bundle and report; not if their fingerprints cannot be known."""
    check_teachers(run, out)
    check_trees(run, out)
    models = [one.file for one in out.findings if one.file.endswith("/_model.json")]
    if models or set(prepared) != set(run.config.datasets):
        cause = models[0] if models else "prepare"
        parts = ("train", "export", "evaluate")
        out.parts |= dict.fromkeys(parts, f"not checked, because of {cause}")
        return
    for check_one in (check_covered, check_lexicon, check_students):
        check_one(run, out)
    unknown = [f for f in (one.file for one in out.damaged) if _is_success_of_student(f)]
    for part, check in {"export": check_bundle, "evaluate": check_report}.items():
        if unknown:
            out.parts[part] = f"not checked, because of {unknown[0]}"
        else:
            check(run, out)


def _is_success_of_student(file: str) -> bool:
    return file.startswith("student/") and file.endswith(SUCCESS)
