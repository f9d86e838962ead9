"""One run: its configuration, its folder, and the name of every stage's output.

The expensive outputs (teachers, logits, students) carry in their names the fingerprint of what
made them, so that changed settings make another folder and nothing stale is trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from raydistill.config.teachers import TREES
from raydistill.data.manifest import (
    Manifest,
)
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.inputs.input_files import is_inside, may_hold
from raydistill.files.model_files import PinnedModel, model_folder
from raydistill.files.retry import log_counts
from raydistill.files.schema import SPLITS
from raydistill.runs.fingerprints import ROLES, RunFingerprints, fingerprint
from raydistill.runs.lease import Lease
from raydistill.serving.bundle import BUNDLE, CURRENT

STAGES = ("prepare", "finetune", "label", "train", "export", "evaluate")
RUN_FILE = "run.toml"  # the settings of the last stage that did something
TUNED = "tune.json"  # what a search found, in tune/
LEASES = "_leases"


@dataclass(frozen=True)
class Run(RunFingerprints):
    """Where everything of a run lies."""

    @property
    def pairs(self) -> Folder:
        """Shards of the transfer set."""
        return self.root / "pairs"

    def judged(self, split: str) -> Folder:
        """Shards of one split of the judged pairs."""
        if split not in SPLITS:
            raise ValueError(f"no split {split!r} of the judged pairs; there are {SPLITS}")
        return self.root / "judged" / split

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

    def rejected_logits(self, name: str) -> Folder:
        """Pairs that a teacher could not score, in files of their shards' names."""
        folder = f"{name}-{self.label_fingerprint(name)}"
        return self.root / "quarantine" / "logits" / folder

    @property
    def lexicon(self) -> Folder:
        """What is known of words before training."""
        return self.root / "lexicon" / self.lexicon_fingerprint()

    def student(self, role: str) -> Folder:
        """Checkpoints of the student, or of the one trained on judged labels alone."""
        return self.root / "student" / f"{role}-{self.train_fingerprint(role)}"

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
