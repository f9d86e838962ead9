"""One run: its configuration, its folder, and the name of every stage's output.

The expensive outputs (teachers, logits, students) carry in their names the fingerprint of what
made them, so that changed settings make another folder and nothing stale is trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from raydistill.config.data import TextRules
from raydistill.config.run_config import RunConfig
from raydistill.config.student import NgramsConfig
from raydistill.config.teachers import ENGINE, TREES
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
from raydistill.files.inputs.input_files import is_inside, may_hold
from raydistill.files.model_files import PinnedModel, model_folder, pin_model
from raydistill.files.retry import log_counts
from raydistill.files.schema import SPLITS
from raydistill.runs.fingerprints import fingerprint
from raydistill.runs.lease import Lease
from raydistill.serving.bundle import BUNDLE, CURRENT
from raydistill.serving.feature_spec import FORMAT

STAGES = ("prepare", "finetune", "label", "train", "export", "evaluate")
RUN_FILE = "run.toml"  # the settings of the last stage that did something
LABELED_BY = "_model.json"  # beside logits: whose they are
TUNED = "tune.json"  # what a search found, in tune/
ROLES = ("student", "judged_only")
DATASETS = ("judged", "pairs")
LEASES = "_leases"


@dataclass(frozen=True)
class Run:
    """Where everything of a run lies; cheap to make, and to send to a worker."""

    config: RunConfig
    take_over: bool = False  # leases of other jobs
    # By source and whether its code may run: once a job.
    _models: dict[tuple[str, bool], PinnedModel] = field(default_factory=dict)
    _labeled: dict[str, str] = field(default_factory=dict)  # by teacher, once a process
    _manifest: list[Manifest] = field(default_factory=list)  # at most one: read once a process
    _new: dict[str, list[RawFile]] = field(default_factory=dict)  # by dataset: found once

    @cached_property
    def root(self) -> Folder:
        """The run folder."""
        return Folder(self.config.run_dir)

    @property
    def pairs(self) -> Folder:
        """Shards of the transfer set."""
        return self.root / "pairs"

    def judged(self, split: str) -> Folder:
        """Shards of one split of the judged pairs."""
        if split not in SPLITS:
            raise ValueError(f"no split {split!r} of the judged pairs; there are {SPLITS}")
        return self.root / "judged" / split

    def prepare_fingerprint(self, dataset: str) -> str:
        """What made `judged/` or `pairs/`: settings, and sizes and digests of the raw files."""
        settings, manifest = self.prepare_settings(), self.manifest
        if dataset == "judged":
            read = settings["judged"], settings["ngrams"]
            return fingerprint("prepare", *read, manifest.identities("judged"))
        return fingerprint("prepare", settings, *map(manifest.identities, DATASETS))

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

    def teacher(self, name: str) -> Folder:
        """The Hugging Face folder of a teacher, fine-tuned here or ready-made; or the trees'."""
        if name == TREES:
            return self.root / "teachers" / f"{TREES}-{self.trees_fingerprint()}"
        teacher = self.config.teachers[name]
        if teacher.model is not None:
            model = self.model(teacher.model)
            return model_folder(model.source, trusts_code=model.trusts_code)
        return self.root / "teachers" / f"{name}-{self.finetune_fingerprint(name)}"

    def teacher_model(self, name: str) -> PinnedModel:
        """The model of a teacher other than the trees, as those who score with it must find it.

        Raises:
            UserError: it is not there, or not fine-tuned yet.
        """
        source = self.config.teachers[name].model
        if source is not None:
            return self.model(source)
        folder = self.teacher(name)
        done = folder.success()
        if done is None:
            raise UserError(f"teacher {name} is not fine-tuned yet: run `finetune` first")
        trusts_code = self.config.teachers[name].trust_remote_code
        # A folder that was put there by hand is taken as it is now.
        found = done.get("model") or self.model(folder.uri, trusts_code=trusts_code).fingerprint
        return PinnedModel(folder.uri, found, trusts_code)

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

    def finetune_fingerprint(self, name: str) -> str:
        """What makes the fine-tuned teacher: encoder, judged pairs, settings."""
        base = self.config.teachers[name].base
        if base is None:
            raise ValueError(f"teacher {name} has no base: it is not fine-tuned")
        settings = self.config.finetune.fingerprint_fields()
        relevant_at = self.config.judged.relevant_at if settings["target"] == "binary" else None
        settings_of_splits = self._judged_settings(), self._key_settings()
        judged = [*settings_of_splits, self.manifest.identities("judged")]
        return fingerprint("finetune", self.model(base).fingerprint, settings, judged, relevant_at)

    @property
    def for_trees(self) -> Run:
        """This run with the features that the trees read: those of `match`, whatever is searched.

        So the logits of the trees stay when the student's own features change.
        """
        given = self.config.ngrams
        kept = {
            name: getattr(given, name)
            for name in ("units", "extra_units", "num_words", "word_encoder")
        }
        ngrams = NgramsConfig.model_validate(kept)
        return replace(self, config=self.config.model_copy(update={"ngrams": ngrams}))

    def trees_fingerprint(self) -> str:
        """What makes the trees: judged pairs, what is known of words, settings."""
        judged, lexicon = self.prepare_fingerprint("judged"), self.for_trees.lexicon_fingerprint()
        return fingerprint("trees", judged, lexicon, self.config.trees.fingerprint_fields())

    def logits(self, name: str) -> Folder:
        """Logits of one teacher: shards of the pairs, and below `judged/` those of the splits."""
        return self.root / "logits" / f"{name}-{self.label_fingerprint(name)}"

    def rejected_logits(self, name: str) -> Folder:
        """Pairs that a teacher could not score, in files of their shards' names."""
        folder = f"{name}-{self.label_fingerprint(name)}"
        return self.root / "quarantine" / "logits" / folder

    def label_fingerprint(self, name: str) -> str:
        """What makes logits: the teacher, how it reads, our code; not which pairs, nor speed."""
        if name == TREES:
            return fingerprint("label", ENGINE, self.trees_fingerprint())
        teacher = self.config.teachers[name]
        if teacher.model is not None:
            identity = self.model(teacher.model).fingerprint
        else:
            identity = self.finetune_fingerprint(name)
        prompt = [teacher.prompt] if teacher.prompt is not None else []
        return fingerprint(
            "label", ENGINE, identity, self.config.label.fingerprint_fields(), *prompt
        )

    @property
    def lexicon(self) -> Folder:
        """What is known of words before training."""
        return self.root / "lexicon" / self.lexicon_fingerprint()

    @property
    def word_encoder(self) -> str | None:
        """Where word vectors come from; None: the student reads none."""
        config = self.config
        if not config.ngrams.num_columns:
            return None
        first = next(iter(config.teachers.values()))
        return config.ngrams.word_encoder or first.base or first.model

    def lexicon_fingerprint(self) -> str:
        """What makes the lexicon: the pairs and how they are read; its vectors; the features."""
        encoder, ngrams = self.word_encoder, self.config.ngrams
        vectors = encoder and [self.model(encoder).fingerprint, ngrams.num_words, ngrams.word_dim]
        counted = (
            ngrams.vocabulary_rows and ngrams.fingerprint_fields()
        )  # of n-grams: all that decides ids
        read = self.prepare_fingerprint("pairs"), ngrams.normalizes_units, ngrams.unit_names
        return fingerprint("lexicon", FORMAT, *read, vectors, counted)

    def labeled_by(self, name: str) -> str | None:
        """The fingerprint of the model whose logits are there; None where there are none yet."""
        if name not in self._labeled:
            found = self.logits(name).read_json(LABELED_BY)
            if found is None:
                return None
            self._labeled[name] = found["model"]
        return self._labeled[name]

    def student(self, role: str) -> Folder:
        """Checkpoints of the student, or of the one trained on judged labels alone."""
        return self.root / "student" / f"{role}-{self.train_fingerprint(role)}"

    def train_fingerprint(self, role: str) -> str:
        """What makes a student: pairs, targets, features, network, schedule."""
        if role not in ROLES:
            raise ValueError(f"no student {role!r}; there are {ROLES}")
        config = self.config
        if role == "student":
            dataset = "pairs"
            # A teacher that was fitted again has its folder's name, and is another one.
            names = config.teacher_names
            teachers = {
                name: [self.label_fingerprint(name), self.labeled_by(name)] for name in names
            }
            # Fitted weights follow from the logits and the judged pairs.
            stack = config.stacking_weights() or self.prepare_fingerprint("judged")
            targets: object = [teachers, config.soft_labels.fingerprint_fields(), stack]
        else:
            dataset = targets = "judged"
        sections = (config.ngrams, config.resolved.student, config.resolved.train)
        settings = [
            self.lexicon_fingerprint(),
            *(section.fingerprint_fields() for section in sections),
        ]
        relevant_at = config.judged.relevant_at  # of the dev AUC that chooses the best epoch
        return fingerprint(
            "train", role, self.prepare_fingerprint(dataset), targets, settings, relevant_at
        )

    @property
    def bundle(self) -> Folder:
        """The bundle of the newest student; cheap to make again, so its name is plain."""
        return self.root / "bundle"

    def has_bundle(self) -> bool:
        """Whether the newest bundle is whole, and of the student as it is now."""
        done, pointer = self.bundle.success(), self.bundle.read_json(CURRENT)
        if done is None or pointer is None or pointer["bundle"] != done["bundle"]:
            return False
        wanted = self.train_fingerprint("student"), self.weights_hash("student")
        is_of_student = wanted == (done["fingerprint"], done["weights"])
        return bool(is_of_student and (self.bundle / done["bundle"]).exists(BUNDLE))

    def weights_hash(self, role: str) -> str | None:
        """The hash of a student's weights; None where it is not complete."""
        done = self.student(role).success()
        return None if done is None else done["weights"]

    @property
    def report(self) -> Folder:
        """The newest report."""
        return self.root / "report"

    @property
    def tune(self) -> Folder:
        """What the newest search found."""
        return self.root / "tune"

    def tune_fingerprint(self) -> str:
        """What makes a search: the untuned student's settings, the judged pairs, `[tune]`."""
        judged, settings = self.prepare_fingerprint("judged"), self.config.tune.fingerprint_fields()
        return fingerprint("tune", self.train_fingerprint("student"), judged, settings)

    def report_fingerprint(self) -> str:
        """What makes the report: both students, the teachers' logits, and a search if any."""
        teachers = {name: self.label_fingerprint(name) for name in self.config.teacher_names}
        students = [[self.train_fingerprint(role), self.weights_hash(role)] for role in ROLES]
        tuned = self.tune.success()
        searched = [tuned["fingerprint"]] if tuned else []
        return fingerprint("evaluate", students, teachers, *searched)

    @contextmanager
    def begin(self, work: str) -> Iterator[None]:
        """Work on the run folder: marked as a run's, nobody else does the same, run.toml written.

        Raises:
            UserError: the folder is no run's, or another job does this work.
        """
        self.check_folder()
        self.root.claim("run")
        with Lease(self.root / LEASES, work, take_over=self.take_over):
            self.root.write_bytes(RUN_FILE, self.config.resolved.to_toml().encode())
            try:
                yield
            finally:
                log_counts(work)

    def check_folder(self) -> None:
        """Raise UserError unless the run may write to its folder: no file of a user is in it."""
        for section, rules in self.rules.items():
            for given in rules.input:
                if is_inside(given.path, self.root.uri):
                    raise UserError(
                        f"{section}.input {given.path} lies in the run folder {self.root}, which "
                        "holds only what raydistill writes; give another run_dir"
                    )
                if may_hold(given.path, self.root.uri):
                    raise UserError(
                        f"{section}.input {given.path} takes the files of the run folder "
                        f"{self.root} too; give a run_dir elsewhere, or name the files"
                    )
        self.root.check_claim("run")

    def check_owner(self) -> None:
        """Raise UserError when the run folder is no run's, or was begun with other settings."""
        self.check_folder()
        manifest, mine = Manifest.read(self.root), self.prepare_settings()
        if manifest is None or manifest.settings == mine:
            return
        stored = manifest.settings
        changed = [
            f"{section}.{name}: {stored.get(section, {}).get(name)!r} there, {value!r} here"
            for section, fields in mine.items()
            for name, value in fields.items()
            if stored.get(section, {}).get(name) != value
        ]
        raise UserError(
            f"run folder {self.root} was prepared with other settings "
            f"({'; '.join(changed)}); restore them or give another run_dir"
        )
