"""The checks of what `label` wrote, without rows: listings, counts, fingerprints, the model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from raydistill.config.teachers import TREES
from raydistill.files.folder import SUCCESS, Folder
from raydistill.runs.fingerprints import LABELED_BY
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import SCORED_SPLITS
from raydistill.stages.verification.finding import (
    Finding,
    Problem,
    damage,
    note,
    read_done,
    read_object,
)
from raydistill.stages.verification.shard_rows import TeacherFiles
from raydistill.teachers.kinds.bi_encoder import CALIBRATION

_KNOWN = {SUCCESS, LABELED_BY, CALIBRATION}


@dataclass
class LabeledFiles:
    """The logits of a teacher; `nulls` and `checked` count what the checks of shards found."""

    run: Run
    name: str
    done: dict[str, Any] | None = None
    scored: set[str] = field(default_factory=set)  # targets that are files
    nulls: int = 0
    num_checked: int = 0

    @property
    def folder(self) -> Folder:
        """The folder of the logits."""
        return self.run.logits(self.name)

    @property
    def path(self) -> str:
        """The folder below the run folder."""
        return f"logits/{self.name}-{self.run.label_fingerprint(self.name)}"

    @property
    def work(self) -> str:
        """The name of the lease."""
        return f"label-{self.name}"

    @property
    def files(self) -> TeacherFiles:
        """What the checks of shards need."""
        rejected = f"quarantine/{self.path}"
        return TeacherFiles(self.name, self.path, rejected, self.run.config.is_partial(self.name))

    def check(self, targets: Collection[str]) -> Iterator[Finding]:
        """Compare the listing with the shards' targets; reads _SUCCESS.json and the model."""
        needs = ("fingerprint", "rows_in", "rows_out", "quarantined", "shards")
        self.done, findings = read_done(self.folder, path=self.path, work=self.work, needs=needs)
        yield from findings
        self.scored = self._listed()
        wanted = set(targets)
        if self.done is not None and not self._is_behind(wanted):
            for target in sorted(wanted - self.scored):
                yield self._absent(target)
        for target in sorted(self.scored - wanted - _KNOWN):
            yield note(f"{self.path}/{target}", "is not a file of this run; left alone")
        if self.scored & wanted:
            yield from self._check_model()

    def _is_behind(self, targets: Collection[str]) -> bool:
        """Whether `prepare` has added shards since `label` was complete: it will score them."""
        num = (self.done or {"shards": 0})["shards"]
        return num < len(targets) and not self.scored >= set(targets)

    def _listed(self) -> set[str]:
        there = set(self.folder.files())
        for split in SCORED_SPLITS:
            inner = f"{self.run.config.source_of(split)}/{split}"
            there |= {f"{inner}/{name}" for name in (self.folder / inner).files()}
        return there

    def _absent(self, target: str) -> Finding:
        file = f"{self.path}/{target}"
        if self.folder.exists(target):
            return Finding(file, "is a folder, not a file", "remove or rename it, and verify again")
        return damage(file, "is missing", work=self.work)

    def _check_model(self) -> Iterator[Finding]:
        file = f"{self.path}/{LABELED_BY}"
        found, problem = read_object(self.folder, LABELED_BY)
        if found is None and problem is None:
            problem = Problem("is missing")
        elif found is not None and not isinstance(found.get("model"), str):
            problem = Problem("names no model")
        if problem is None:
            return
        # A fitted teacher may have been fitted again since: who scored is not known any more.
        is_fitted = self.name == TREES or self.run.config.teachers[self.name].base is not None
        if is_fitted:
            yield Finding(file, problem.text, "restore it from a copy, or delete its folder")
            return
        gone = [file] if problem.text != "is missing" else []
        yield problem.finding(file, work=self.work, removes=[*gone, f"{self.path}/{SUCCESS}"])

    def check_counts(self, targets: Mapping[str, int]) -> Iterator[Finding]:
        """Compare _SUCCESS.json with what the shards have, once all of them are checked."""
        if self.done is None or self._is_behind(targets):
            return
        if problems := [*self._problems(self.done, sum(targets.values()), len(targets))]:
            file = f"{self.path}/{SUCCESS}"
            yield damage(file, "; ".join(problems), work=self.work, removes=[file])

    def _problems(self, done: dict[str, Any], num_rows: int, num_shards: int) -> Iterator[str]:
        if done["fingerprint"] != self.run.label_fingerprint(self.name):
            yield f"has the fingerprint {done['fingerprint']}, not that of its folder"
        if done["rows_in"] != done["rows_out"] + done["quarantined"]:
            yield (
                f"its counts do not add up: {done['rows_in']:,} rows_in, {done['rows_out']:,} "
                f"rows_out, {done['quarantined']:,} quarantined"
            )
        if (done["rows_in"], done["shards"]) != (num_rows, num_shards):
            yield (
                f"has {done['shards']:,} shards of {done['rows_in']:,} rows, the run has "
                f"{num_shards:,} of {num_rows:,}"
            )
        key = "absent" if self.run.config.is_partial(self.name) else "quarantined"
        if self.num_checked == num_shards and done.get(key) != self.nulls:
            yield f"has {done.get(key)} {key}, the files have {self.nulls:,} pairs without a logit"

    def state(self, targets: Collection[str]) -> str:
        """The state in words."""
        num, num_shards = len(self.scored & set(targets)), len(targets)
        if self.done is None or self._is_behind(targets):
            return f"to do: {num:,} of {num_shards:,} files; run `label`"
        return (
            f"complete: {num:,} files" if num == num_shards else f"{num:,} of {num_shards:,} files"
        )

    def count(self, result: dict[str, Any]) -> None:
        """Count a checked shard."""
        if self.name in result["nulls"]:
            self.nulls += result["nulls"][self.name]
            self.num_checked += 1
