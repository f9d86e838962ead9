"""The inputs of a run: its settings, the raw files of prepare, the models it uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from raydistill.config.data import TextRules
from raydistill.config.run_config import RunConfig
from raydistill.data.manifest import (
    PREPARED,
    Manifest,
    RawFile,
    check_unchanged,
    find_files,
    read_identities,
    unknown_files,
)
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.inputs.input_files import is_inside
from raydistill.files.model_files import PinnedModel, pin_model

DATASETS = ("judged", "pairs")


@dataclass(frozen=True)
class RunSources:
    """Settings, raw files and models of a run; cheap to construct and to send to a worker."""

    config: RunConfig
    take_over: bool = False  # take over leases of other jobs
    # By source and whether its code may run; pinned once a job.
    _models: dict[tuple[str, bool], PinnedModel] = field(default_factory=dict)
    _manifest: list[Manifest] = field(default_factory=list)  # at most one: read once a process
    _new: dict[str, list[RawFile]] = field(default_factory=dict)  # by dataset, searched once
    _scores: dict[str, list[RawFile]] = field(default_factory=dict)  # by teacher, searched once

    @cached_property
    def root(self) -> Folder:
        """The run folder."""
        return Folder(self.config.run_dir)

    @property
    def manifest(self) -> Manifest:
        """The raw files that prepare has read; before prepare, the files that it will read."""
        if not self._manifest:
            manifest = Manifest.read(self.root)
            if manifest is None:
                empty = Manifest(self.prepare_settings(), (), (), self.patterns)
                files = {name: self._apart(find_files(rules)) for name, rules in self.rules.items()}
                found = {name: unknown_files([], those) for name, those in files.items()}
                manifest = empty
                for name, those in found.items():
                    manifest = manifest.with_increments(name, [those])
            self._manifest.append(manifest)
        return self._manifest[0]

    def reread_manifest(self) -> bool:
        """Read the manifest again; whether another job has changed it since the last read."""
        stored = Manifest.read(self.root)
        if stored is None or any(manifest.holds_what(stored) for manifest in self._manifest):
            return False
        self._manifest[:] = [stored]
        self._new.clear()
        return True

    def write_manifest(self, manifest: Manifest) -> None:
        """Record the raw files that prepare is about to read, and mark the folder as a run's."""
        self.root.claim("run")
        self.root.write_json(PREPARED, manifest.to_dict())
        self._manifest[:] = [manifest]
        self._new.clear()

    def unknown_files(self, dataset: str) -> list[RawFile]:
        """Raw files of a dataset that are not in the manifest.

        Raises:
            UserError: a file has changed or cannot be used.
        """
        if dataset not in self._new:
            found = self.found_files(dataset)
            manifest = self.manifest
            current = [check_unchanged(files, found) for files in manifest.increments(dataset)]
            # Files read here get new stamps, stored with the next increment: then not read again.
            self._manifest[:] = [manifest.with_increments(dataset, current)]
            known = [file for files in current for file in files]
            self._new[dataset] = unknown_files(known, found)
        return self._new[dataset]

    def found_files(self, dataset: str) -> list[RawFile]:
        """The raw files that the inputs match now; files of a prepared dataset may be deleted.

        Raises:
            UserError: an input matches nothing.
        """
        is_prepared = (self.root / dataset).success() is not None
        optional_patterns = self.manifest.patterns if is_prepared else ()
        return self._apart(find_files(self.rules[dataset], optional_patterns=optional_patterns))

    def _apart(self, files: list[RawFile]) -> list[RawFile]:
        """The files; raises UserError if one is in the run folder, directly or through a link."""
        for file in files:
            if is_inside(file.uri, self.root.uri):
                raise UserError(
                    f"{file.uri} lies in the run folder {self.root}; name the inputs so that it is "
                    "not among them, or give another run_dir"
                )
        return files

    def score_files(self, name: str) -> list[RawFile]:
        """The files of a teacher of scores, with their digests; searched once a job.

        Raises:
            UserError: an input matches nothing, or a file lacks a column.
        """
        if name not in self._scores:
            found = self._apart(find_files(self.config.score_inputs(name)))
            hint = f"name the columns in [teachers.{name}] (query, title, score)"
            self._scores[name] = read_identities(found, hint=hint)
        return self._scores[name]

    @property
    def patterns(self) -> tuple[str, ...]:
        """The inputs of both datasets as in the run file."""
        return tuple(dict.fromkeys(g.path for rules in self.rules.values() for g in rules.input))

    @property
    def rules(self) -> dict[str, TextRules]:
        """The inputs and cleaning rules of each dataset that has raw files of its own."""
        judged = self.config.judged
        own: dict[str, TextRules] = {} if judged is None else {"judged": judged}
        return {**own, "pairs": self.config.pairs}

    def prepare_settings(self) -> dict[str, Any]:
        """The settings that `prepare` stores first, for `check_owner` of later runs."""
        judged = {} if self.config.judged is None else {"judged": self._judged_settings()}
        return {
            "pairs": self.config.pairs.fingerprint_fields(),
            **judged,
            "ngrams": self._key_settings(),
            **self._drawn_settings(),
        }

    def _drawn_settings(self) -> dict[str, Any]:
        """How splits are drawn from the transfer set; {} where judged pairs are both."""
        if "held_out" not in self.config.datasets:
            return {}
        pairs = self.config.pairs
        shares = {"dev_share": pairs.dev_share, "test_share": pairs.test_share}
        drawn = [one for one in ("dev", "test") if self.config.source_of(one) == "held_out"]
        return {"held_out": {"splits": drawn, **shares}}

    def _key_settings(self) -> dict[str, Any]:
        return {"extra_units": self.config.ngrams.extra_units}  # the query key depends on them

    def _judged_settings(self) -> dict[str, Any]:
        settings = self.config.judged_rules.fingerprint_fields()
        del settings["relevant_at"]  # used only by metrics and binary targets
        return settings

    def model(self, source: str, *, trusts_code: bool | None = None) -> PinnedModel:
        """The model of a teacher's `source`: pinned once and sent to workers with this run.

        `trusts_code`: whether the folder's code may run; None: as its teachers' settings allow.

        Raises:
            UserError: nothing has that name, or it is no model.
        """
        if trusts_code is None:
            teachers = self.config.teachers.values()
            trusts_code = any(t.trust_remote_code and source == t.source for t in teachers)
        key = (source, trusts_code)
        if key not in self._models:
            self._models[key] = pin_model(source, trusts_code=trusts_code)
        return self._models[key]

    @property
    def word_encoder(self) -> str | None:
        """The source of word vectors, by default the first teacher's that has an encoder.

        None: the student uses none.
        """
        config = self.config
        if not config.ngrams.num_columns:
            return None
        encoders = (teacher.encoder for teacher in config.teachers.values())
        return config.ngrams.word_encoder or next(filter(None, encoders), None)
