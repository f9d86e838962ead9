"""One run: its configuration, its folder, and the path of each stage's output.

Folder names of expensive outputs (teachers, logits, students) contain the fingerprint of their
inputs: changed settings give a new folder, so no stale output is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from raydistill.config.teachers import TREES
from raydistill.data.manifest import Manifest, find_files
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.inputs.input_files import is_inside, may_hold
from raydistill.files.model_files import PinnedModel, model_folder
from raydistill.files.retry import log_counts
from raydistill.files.schema import SPLITS
from raydistill.runs.fingerprints import ROLES, RunFingerprints, fingerprint
from raydistill.runs.lease import Lease
from raydistill.serving.bundle import BUNDLE, BUNDLE_FORMAT, CURRENT, MODEL

STAGES = ("prepare", "finetune", "label", "train", "export", "evaluate")
RUN_FILE = "run.toml"  # the settings of the last stage that did work
TUNED = "tune.json"  # the result of a search, in tune/
CURVE = "curve.json"  # the figures of a learning curve, in curve/
METRICS, REPORT, PAGE = "metrics.json", "report.md", "report.html"  # a report's files
METRICS_SCHEMA = 2  # of metrics.json (docs/evaluation.md)
LEASES = "_leases"


@dataclass(frozen=True)
class Run(RunFingerprints):
    """The paths of a run's outputs."""

    @property
    def pairs(self) -> Folder:
        """Shards of the transfer set."""
        return self.root / "pairs"

    def judged(self, split: str) -> Folder:
        """Shards of one split of the judged pairs."""
        if split not in SPLITS:
            raise ValueError(f"no split {split!r} of the judged pairs; there are {SPLITS}")
        return self.root / "judged" / split

    def split(self, split: str) -> Folder:
        """Shards of a split: of the judged pairs, or drawn from the transfer set."""
        return self.root / self.config.source_of(split) / split

    @property
    def roles(self) -> tuple[str, ...]:
        """The students of the run: without judged pairs to learn from there is no baseline."""
        return ROLES if self.config.learns_from_judged else ROLES[:1]

    def teacher(self, name: str) -> Folder:
        """A teacher's Hugging Face folder, fine-tuned here or ready-made.

        Of the trees the folder of the fitted models, of scores that of their index.
        """
        if name == TREES:
            return self.root / "teachers" / f"{TREES}-{self.trees_fingerprint()}"
        teacher = self.config.teachers[name]
        if teacher.scores is not None:
            return self.root / "teachers" / f"{name}-{self.label_fingerprint(name)}"
        if teacher.base is None:
            model = self.model(teacher.source or "")
            return model_folder(model.source, trusts_code=model.trusts_code)
        return self.root / "teachers" / f"{name}-{self.finetune_fingerprint(name)}"

    def teacher_model(self, name: str) -> PinnedModel:
        """The pinned model of a teacher other than the trees: scoring checks its fingerprint.

        Raises:
            UserError: the model does not exist, or is not fine-tuned yet.
        """
        teacher = self.config.teachers[name]
        if teacher.base is None:
            return self.model(teacher.source or "")
        folder = self.teacher(name)
        done = folder.success()
        if done is None:
            raise UserError(f"teacher {name} is not fine-tuned yet: run `finetune` first")
        trusts_code = teacher.trust_remote_code
        # A folder that a user copied there has no recorded fingerprint: pin its current content.
        found = done.get("model") or self.model(folder.uri, trusts_code=trusts_code).fingerprint
        return PinnedModel(folder.uri, found, trusts_code)

    def rejected_logits(self, name: str) -> Folder:
        """Pairs without a logit of a teacher, in files with the names of their shards."""
        folder = f"{name}-{self.label_fingerprint(name)}"
        return self.root / "quarantine" / "logits" / folder

    @property
    def lexicon(self) -> Folder:
        """The lexicon: word data computed before training."""
        return self.root / "lexicon" / self.lexicon_fingerprint()

    def student(self, role: str) -> Folder:
        """Checkpoints of the student, or of the baseline on judged labels only."""
        return self.root / "student" / f"{role}-{self.train_fingerprint(role)}"

    @property
    def bundle(self) -> Folder:
        """The newest student's bundle; quick to rebuild, so its name has no fingerprint."""
        return self.root / "bundle"

    def has_bundle(self) -> bool:
        """Whether the newest bundle is complete and made from the current student."""
        done, pointer = self.bundle.success(), self.bundle.read_json(CURRENT)
        if done is None or pointer is None or pointer["bundle"] != done["bundle"]:
            return False
        wanted = self.train_fingerprint("student"), self.weights_hash("student")
        is_of_student = wanted == (done["fingerprint"], done["weights"])
        is_of_settings = done.get("settings") == self.config.export.fingerprint_fields()
        return is_of_student and is_of_settings and self.is_whole_bundle(done["bundle"])

    def has_report(self) -> bool:
        """Whether the report is complete and of the current students, logits and settings."""
        done = self.report.success()
        if done is None or done["fingerprint"] != self.report_fingerprint():
            return False
        return {METRICS, REPORT, PAGE} <= set(self.report.files())

    def is_whole_bundle(self, name: str) -> bool:
        """Whether the files that a scorer reads are in a folder of `bundle/`."""
        return all((self.bundle / name).exists(file) for file in (MODEL, BUNDLE))

    def weights_hash(self, role: str) -> str | None:
        """The hash of a student's weights; None: the student is not complete."""
        done = self.student(role).success()
        return None if done is None else done["weights"]

    @property
    def report(self) -> Folder:
        """The newest report."""
        return self.root / "report"

    @property
    def tune(self) -> Folder:
        """The newest search's results."""
        return self.root / "tune"

    def tune_fingerprint(self) -> str:
        """Fingerprint of a search: the untuned student's settings, the judged pairs, `[tune]`."""
        settings = self.config.tune.fingerprint_fields()
        dev = self.prepare_fingerprint(self.config.source_of("dev"))
        student = self.train_fingerprint("student")
        return fingerprint("tune", student, dev, settings, *self._threshold_of_test())

    def report_fingerprint(self) -> str:
        """Fingerprint of the report: students, how they are exported, logits, and any search."""
        teachers = {name: self.label_fingerprint(name) for name in self.config.teacher_names}
        students = [[self.train_fingerprint(role), self.weights_hash(role)] for role in self.roles]
        tuned = self.tune.success()
        searched = [tuned["fingerprint"]] if tuned else []
        exported = BUNDLE_FORMAT, self.config.export.fingerprint_fields()
        at = self._threshold_of_test()
        measured = [METRICS_SCHEMA, *self._settings_of_report(), self.own_curve()]
        return fingerprint("evaluate", students, exported, teachers, *searched, *at, measured)

    def _settings_of_report(self) -> list[object]:
        """The settings of the report alone: `[evaluate]`, prices, other labels and their files."""
        config, other = self.config, None
        if config.judged is not None and config.judged.other is not None:
            files = find_files(config.judged.other_inputs)
            stamps = [[file.uri, file.size_bytes, file.mtime_ns] for file in files]
            other = [config.judged.other.model_dump(mode="json"), stamps]
        prices = config.cluster.prices.fingerprint_fields()
        return [config.evaluate.fingerprint_fields(), prices, other]

    def own_curve(self) -> dict[str, Any] | None:
        """The figures of the learning curve; None if there is none, or it is of other students."""
        found = (self.root / "curve").read_json(CURVE)
        is_own = found is not None and found.get("student") == self.train_fingerprint("student")
        return found if is_own else None

    def _threshold_of_test(self) -> list[float | None]:
        """The label from which a test pair is relevant; [] if that is dev's, as students say."""
        dev, test = (self.config.relevant_at(split) for split in ("dev", "test"))
        return [] if dev == test else [test]

    @contextmanager
    def begin(self, work: str) -> Iterator[None]:
        """Mark the folder as a run's, hold the lease of `work`, and write run.toml.

        Raises:
            UserError: the folder is not a run's, or another job does this work.
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
        """Raise UserError if an input is in the run folder, or another tool made the folder."""
        for section, rules in self.rules.items():
            for given in rules.input:
                if is_inside(given.path, self.root.uri):
                    raise UserError(
                        f"{section}.input {given.path} lies in the run folder {self.root}, which "
                        "holds only what raydistill writes; give another run_dir"
                    )
                if may_hold(given.path, self.root.uri):
                    raise UserError(
                        f"{section}.input {given.path} also matches files of the run folder "
                        f"{self.root}; give a run_dir elsewhere, or name the files"
                    )
        self.root.check_claim("run")

    def check_owner(self) -> None:
        """Raise UserError if the run folder is not a run's, or was prepared with other settings."""
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
        changed += [f"[{name}] there, not here" for name in stored if name not in mine]
        raise UserError(
            f"run folder {self.root} was prepared with other settings "
            f"({'; '.join(changed)}); restore them or give another run_dir"
        )
