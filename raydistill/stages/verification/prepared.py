"""The checks of what `prepare` wrote, without rows: counts, fingerprints, listings; and its items.

A dataset's parts are `judged/`, `held_out/` and `pairs/`, each with shards, a _SUCCESS.json and
quarantine files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.config.data import JudgedConfig
from raydistill.data.bucket_layout import BucketLayout
from raydistill.data.manifest import PREPARED
from raydistill.errors import UserError
from raydistill.files.folder import MARKER, SUCCESS, Folder
from raydistill.files.schema import COUNTS, SPLITS, WEIGHTS
from raydistill.runs.run_folder import Run
from raydistill.stages.verification.finding import (
    Finding,
    Problem,
    attempt,
    damage,
    note,
    read_done,
)
from raydistill.stages.verification.shard_rows import ShardChecks, TeacherFiles, read_whole

_NO_KEYS: NDArray[np.uint64] = np.empty(0, np.uint64)
_KNOWN = {SUCCESS, MARKER}
_WORK = "prepare"


@dataclass(frozen=True)
class PreparedFiles:
    """A dataset whose _SUCCESS.json is whole: `done`."""

    run: Run
    dataset: str
    done: dict[str, Any]

    @property
    def folder(self) -> Folder:
        """The folder of the dataset."""
        return self.run.root / self.dataset

    @property
    def success(self) -> str:
        """The _SUCCESS.json, below the run folder."""
        return f"{self.dataset}/{SUCCESS}"

    @cached_property
    def shards(self) -> dict[tuple[str, str], int]:
        """Rows of each shard, by split ("" for the pairs) and name."""
        return {_cut(name): rows for name, rows in self.done["shards"].items()}

    @property
    def splits(self) -> tuple[str, ...]:
        """The folders of the shards."""
        return ("",) if self.dataset == "pairs" else SPLITS

    def path(self, split: str, name: str) -> str:
        """A shard below the run folder."""
        return f"{self.dataset}/{split}/{name}" if split else f"{self.dataset}/{name}"

    def check(self) -> Iterator[Finding]:
        """Compare the counts with each other, the fingerprint, and the listing with the counts."""
        if problems := [*self._problems_of_counts()]:
            yield damage(self.success, "; ".join(problems), work=_WORK, removes=[self.success])
        yield from self._check_listing()
        yield from self._check_quarantine()
        yield from self._check_weights()

    def _problems_of_counts(self) -> Iterator[str]:
        done = self.done
        rows_in, *others = (done[name] for name in COUNTS)
        if rows_in != sum(others):
            named = " + ".join(f"{done[name]:,} {name}" for name in COUNTS[1:])
            yield f"its counts do not add up: {rows_in:,} rows_in, {named}"
        if done["rows_out"] != sum(self.shards.values()):
            total = sum(self.shards.values())
            yield f"has {done['rows_out']:,} rows_out, and shards of {total:,} rows"
        for name in COUNTS if "increments" in done else ():
            total = sum(one[name] for one in done["increments"])
            if done[name] != total:
                yield f"has {done[name]:,} {name}, its increments {total:,}"
        if done["fingerprint"] != self.run.prepare_fingerprint(self.dataset):
            yield f"has the fingerprint {done['fingerprint']}, not that of its settings and files"

    def _check_listing(self) -> Iterator[Finding]:
        checks = self.checks()
        for split in self.splits:
            folder = self.folder / split if split else self.folder
            there = set(folder.files())
            wanted = {name for of, name in self.shards if of == split}
            for name in sorted(wanted - there):
                file = self.path(split, name)
                gone = [one for one in checks.removals(file) if one != file]
                yield _absent(folder, name, file, removes=gone)
            for name in sorted(there - wanted - _KNOWN):
                yield note(self.path(split, name), "is not a file of this run; left alone")

    def _check_quarantine(self) -> Iterator[Finding]:
        """Compare the rows of the quarantine files with the number of quarantined rows."""
        if self.dataset == "held_out":  # its rows are those of the pairs
            return
        folder, path = self.run.root / "quarantine" / self.dataset, f"quarantine/{self.dataset}"
        num_rows, is_whole = 0, True
        for name in folder.shards():
            opened, problem = attempt(lambda name=name: folder.open_table(name).metadata.num_rows)  # type: ignore[misc]
            if problem is None:
                _, problem = attempt(lambda name=name: read_whole(folder, name))  # type: ignore[misc]
            if problem is not None:
                is_whole, file = False, f"{path}/{name}"
                yield problem.finding(file, work=_WORK, removes=[file, self.success])
            num_rows += opened or 0
        if is_whole and num_rows != (wanted := self.done["quarantined"]):
            what = f"its files have {num_rows:,} rows, {self.success} says {wanted:,} quarantined"
            yield damage(path, what, work=_WORK, removes=[self.success])

    def _check_weights(self) -> Iterator[Finding]:
        """Weights of pairs that later files repeat: rows of shards that exist."""
        folder, path = self.folder / "_weights", f"{self.dataset}/_weights"
        for name in folder.shards():
            table, problem = attempt(lambda name=name: read_whole(folder, name))  # type: ignore[misc]
            if table is not None and not table.schema.equals(WEIGHTS, check_metadata=False):
                problem = Problem(f"has the columns {', '.join(table.column_names)}")
            elif table is not None:
                rows = {shard: num for (_, shard), num in self.shards.items()}
                most = [rows.get(shard, 0) for shard in table["shard"].to_pylist()]
                if (table["row"].to_numpy() >= np.array(most, np.int64)).any():
                    problem = Problem("names rows that its shards do not have")
            if problem is not None:
                # Its bucket group is made again with it, or prepare would not look at the group.
                gone = self.checks().removals(f"{self.dataset}/{name}")
                yield problem.finding(
                    f"{path}/{name}", work=_WORK, removes=[f"{path}/{name}", *gone]
                )

    def checks(
        self, teachers: tuple[TeacherFiles, ...] = (), *, held: NDArray[np.uint64] = _NO_KEYS
    ) -> ShardChecks:
        """The checks of the shards."""
        increments = self.done.get("increments", [])
        layouts = {
            split: tuple(
                BucketLayout(**one["layouts"][split]) for one in increments if one["layouts"]
            )
            for split in self.splits
        }
        return ShardChecks(
            self.run.root, self.dataset, self.run.config.ngrams.unit_names, teachers,
            layouts={split: those for split, those in layouts.items() if those},
            shares=self._shares(), held=held,
        )  # fmt: skip

    def _shares(self) -> tuple[float, float] | None:
        rules = self.run.config.judged
        if self.dataset != "judged" or not isinstance(rules, JudgedConfig):
            return None
        if any(given.split for given in rules.input):
            return None
        return rules.share("dev"), rules.share("test")


def check_begun(run: Run) -> None:
    """Raise UserError unless `prepare` has begun: without prepare.json nothing can be verified."""
    if not run.root.exists(PREPARED):
        raise UserError(f"{run.root} has no {PREPARED}: there is no run to verify; run `prepare`")


def _cut(name: str) -> tuple[str, str]:
    split, _, shard = name.rpartition("/")
    return split, shard


def _absent(folder: Folder, name: str, file: str, *, removes: list[str]) -> Finding:
    """A shard that is not in its folder's listing."""
    if folder.exists(name):
        return Finding(file, "is a folder, not a file", "remove or rename it, and verify again")
    return damage(file, "is missing", work=_WORK, removes=removes)


def read_prepared(run: Run, dataset: str) -> tuple[PreparedFiles | None, str, list[Finding]]:
    """A dataset, its state in words, and findings about its _SUCCESS.json alone."""
    needs = ("fingerprint", *COUNTS, "shards")
    done, found = read_done(run.root / dataset, path=dataset, work=_WORK, needs=needs)
    findings = [*found]
    if done is None:
        return None, "not checked" if findings else "to do: run `prepare`", findings
    increments = None if dataset == "held_out" else run.manifest.increments(dataset)
    if increments is not None and len(done.get("increments", ())) < len(increments):
        return None, "to do: files were added; run `prepare`", findings
    prepared = PreparedFiles(run, dataset, done)
    num, rows = len(prepared.shards), sum(prepared.shards.values())
    return prepared, f"complete: {num:,} shards, {rows:,} pairs", findings
