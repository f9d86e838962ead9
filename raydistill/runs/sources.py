"""What a run is made of: its settings, the raw files that prepare takes, the models it names."""

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
    unknown_files,
)
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.inputs.input_files import is_inside
from raydistill.files.model_files import PinnedModel, pin_model

DATASETS = ("judged", "pairs")


@dataclass(frozen=True)
class RunSources:
    """Settings, raw files and models of a run; cheap to make, and to send to a worker."""

    config: RunConfig
    take_over: bool = False  # leases of other jobs
    # By source and whether its code may run: once a job.
    _models: dict[tuple[str, bool], PinnedModel] = field(default_factory=dict)
    _manifest: list[Manifest] = field(default_factory=list)  # at most one: read once a process
    _new: dict[str, list[RawFile]] = field(default_factory=dict)  # by dataset: found once

    @cached_property
    def root(self) -> Folder:
        """The run folder."""
        return Folder(self.config.run_dir)

    @property
    def manifest(self) -> Manifest:
        """The raw files that prepare has taken; before it has begun, those that it will take."""
        if not self._manifest:
            manifest = Manifest.read(self.root)
            if manifest is None:
                empty = Manifest(self.prepare_settings(), (), (), self.patterns)
                files = {name: self._apart(find_files(self.rules[name])) for name in DATASETS}
                found = {name: unknown_files([], those) for name, those in files.items()}
                manifest = empty.with_increments("judged", [found["judged"]])
                manifest = manifest.with_increments("pairs", [found["pairs"]])
            self._manifest.append(manifest)
        return self._manifest[0]

    def reread_manifest(self) -> bool:
        """Take up what another job has prepared since this one looked; whether it has."""
        stored = Manifest.read(self.root)
        if stored is None or any(manifest.holds_what(stored) for manifest in self._manifest):
            return False
        self._manifest[:] = [stored]
        self._new.clear()
        return True

    def write_manifest(self, manifest: Manifest) -> None:
        """Record the raw files that prepare is about to take: what makes a folder a run's."""
        self.root.claim("run")
        self.root.write_json(PREPARED, manifest.to_dict())
        self._manifest[:] = [manifest]
        self._new.clear()

    def unknown_files(self, dataset: str) -> list[RawFile]:
        """Raw files of a dataset that came after prepare had begun.

        Raises:
            UserError: files that have changed, or cannot be used.
        """
        if dataset not in self._new:
            found = self.found_files(dataset)
            manifest = self.manifest
            current = [check_unchanged(files, found) for files in manifest.increments(dataset)]
            # Written with the next increment: the files that were read now are not read then.
            self._manifest[:] = [manifest.with_increments(dataset, current)]
            known = [file for files in current for file in files]
            self._new[dataset] = unknown_files(known, found)
        return self._new[dataset]

    def found_files(self, dataset: str) -> list[RawFile]:
        """The raw files that the inputs name now; those of a prepared dataset may be gone.

        Raises:
            UserError: an input that names nothing.
        """
        is_prepared = (self.root / dataset).success() is not None
        optional_patterns = self.manifest.patterns if is_prepared else ()
        return self._apart(find_files(self.rules[dataset], optional_patterns=optional_patterns))

    def _apart(self, files: list[RawFile]) -> list[RawFile]:
        """The files, none of which lies in the run folder: not through a link either."""
        for file in files:
            if is_inside(file.uri, self.root.uri):
                raise UserError(
                    f"{file.uri} lies in the run folder {self.root}; name the inputs so that it is "
                    "not among them, or give another run_dir"
                )
        return files

    @property
    def patterns(self) -> tuple[str, ...]:
        """The inputs of both datasets, as written."""
        return tuple(dict.fromkeys(g.path for rules in self.rules.values() for g in rules.input))

    @property
    def rules(self) -> dict[str, TextRules]:
        """Where each dataset comes from and how it is cleaned."""
        return {"judged": self.config.judged, "pairs": self.config.pairs}

    def prepare_settings(self) -> dict[str, Any]:
        """The settings that `prepare` stores when it begins, for `check_owner` of later runs."""
        return {
            "pairs": self.config.pairs.fingerprint_fields(),
            "judged": self._judged_settings(),
            "ngrams": self._key_settings(),
        }

    def _key_settings(self) -> dict[str, Any]:
        return {"extra_units": self.config.ngrams.extra_units}  # the query key knows them

    def _judged_settings(self) -> dict[str, Any]:
        settings = self.config.judged.fingerprint_fields()
        del settings["relevant_at"]  # metrics and binary targets alone ask for it
        return settings

    def model(self, source: str, *, trusts_code: bool | None = None) -> PinnedModel:
        """What a `base` or `model` stands for: looked up once; whoever gets this run knows it.

        `trusts_code`: whether code in its folder may run; None: as the teachers of that source say.

        Raises:
            UserError: nothing of that name, or no model.
        """
        if trusts_code is None:
            teachers = self.config.teachers.values()
            trusts_code = any(t.trust_remote_code and source in (t.base, t.model) for t in teachers)
        key = (source, trusts_code)
        if key not in self._models:
            self._models[key] = pin_model(source, trusts_code=trusts_code)
        return self._models[key]

    @property
    def word_encoder(self) -> str | None:
        """Where word vectors come from; None: the student reads none."""
        config = self.config
        if not config.ngrams.num_columns:
            return None
        first = next(iter(config.teachers.values()))
        return config.ngrams.word_encoder or first.base or first.model
