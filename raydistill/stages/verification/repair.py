"""Remove what `verify` found damaged and a stage can make again; nothing else.

Data is removed before the _SUCCESS.json of its folder: a repair that is killed can be run again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from raydistill.data.manifest import find_files, find_moved
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS
from raydistill.runs.lease import Lease
from raydistill.runs.run_folder import LEASES, Run
from raydistill.stages.verification.finding import Finding
from raydistill.stages.verification.prepared import check_begun

logger = logging.getLogger("raydistill")


@dataclass
class Repaired:
    """Files that were removed, and findings that a repair cannot mend, with the reason."""

    removed: list[str] = field(default_factory=list)
    remain: list[tuple[Finding, str]] = field(default_factory=list)


@contextmanager
def alone(run: Run) -> Iterator[None]:
    """Hold the leases of all stages whose files may be removed, from before they are verified.

    What a stage writes meanwhile would be taken for damage.

    Raises:
        UserError: another job works on one of these stages, or the folder is no run's.
    """
    run.check_folder()
    check_begun(run)
    labels = [f"label-{name}" for name in run.config.teacher_names]
    with ExitStack() as leases:
        for work in ("prepare", *labels, "train", "export", "evaluate"):
            lease = Lease(run.root / LEASES, work, take_over=run.take_over)
            leases.enter_context(lease)
        yield


def repair(run: Run, findings: Sequence[Finding]) -> Repaired:
    """Remove the damaged files, `alone` in the run folder.

    Pairs are removed only if `prepare` can make the same bytes again: from the same raw files.
    Their logits then stay, as they are of these pairs.
    """
    done = Repaired()
    is_prepare = any(one.work == "prepare" for one in findings)
    why_not = _why_not_again(run) if is_prepare else ""
    for found in findings:
        if not found.work:
            done.remain.append((found, found.todo))
        elif found.work == "prepare" and why_not:
            reason = f"not removed, as it could not be made again: {why_not}"
            done.remain.append((found, reason))
        else:
            done.removed += found.removes
    done.removed = _remove(run, done.removed)
    return done


def _remove(run: Run, files: Iterable[str]) -> list[str]:
    """Remove files, each _SUCCESS.json last; returns those that existed."""
    order = sorted(dict.fromkeys(files), key=lambda name: name.endswith(SUCCESS))
    removed = []
    for file in order:
        folder, _, name = file.rpartition("/")
        place = run.root / folder
        if place.exists(name):
            place.delete_file(name)
            removed.append(file)
            logger.info("removed   %s", file)
    return removed


def _why_not_again(run: Run) -> str:
    """Why `prepare` cannot make the same files again; "" if it can."""
    try:
        for dataset, rules in run.rules.items():
            found = find_files(rules)
            for files in run.manifest.increments(dataset):
                find_moved(files, found)
    except UserError as error:
        return str(error)
    return ""
