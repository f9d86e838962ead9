"""Fingerprints: hex hashes of the settings and inputs that an output folder was made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Self

from raydistill.config.student import NgramsConfig
from raydistill.config.teachers import ENGINE, TREES
from raydistill.files.folder import Folder
from raydistill.runs.sources import DATASETS, RunSources
from raydistill.serving.feature_spec import FORMAT

LABELED_BY = "_model.json"  # beside the logits: the model that computed them
ROLES = ("student", "judged_only")


def fingerprint(*parts: object) -> str:
    """Eight hex digits: a hash of the parts as sorted JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


@dataclass(frozen=True)
class RunFingerprints(RunSources):
    """The fingerprints of a run's outputs."""

    _labeled: dict[str, str] = field(default_factory=dict)  # by teacher, read once a process

    def prepare_fingerprint(self, dataset: str) -> str:
        """Fingerprint of `judged/` or `pairs/`: settings, sizes and digests of the raw files."""
        settings, manifest = self.prepare_settings(), self.manifest
        if dataset == "judged":
            read = settings["judged"], settings["ngrams"]
            return fingerprint("prepare", *read, manifest.identities("judged"))
        return fingerprint("prepare", settings, *map(manifest.identities, DATASETS))

    def finetune_fingerprint(self, name: str) -> str:
        """Fingerprint of a fine-tuned teacher: encoder, judged pairs, settings."""
        base = self.config.teachers[name].base
        if base is None:
            raise ValueError(f"teacher {name} has no base: it is not fine-tuned")
        settings = self.config.finetune.fingerprint_fields()
        relevant_at = self.config.judged.relevant_at if settings["target"] == "binary" else None
        settings_of_splits = self._judged_settings(), self._key_settings()
        judged = [*settings_of_splits, self.manifest.identities("judged")]
        return fingerprint("finetune", self.model(base).fingerprint, settings, judged, relevant_at)

    @property
    def for_trees(self) -> Self:
        """This run with the trees' features: those of preset `match`, independent of a search.

        So the trees' logits stay valid when the student's features change.
        """
        given = self.config.ngrams
        kept = {
            name: getattr(given, name)
            for name in ("units", "extra_units", "num_words", "word_encoder")
        }
        ngrams = NgramsConfig.model_validate(kept)
        return replace(self, config=self.config.model_copy(update={"ngrams": ngrams}))

    def trees_fingerprint(self) -> str:
        """Fingerprint of the trees: judged pairs, lexicon, settings."""
        judged, lexicon = self.prepare_fingerprint("judged"), self.for_trees.lexicon_fingerprint()
        return fingerprint("trees", judged, lexicon, self.config.trees.fingerprint_fields())

    def label_fingerprint(self, name: str) -> str:
        """Fingerprint of logits: the model, its reading of pairs, our code; not pairs or speed."""
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

    def lexicon_fingerprint(self) -> str:
        """Fingerprint of the lexicon: pairs and their parsing, word vectors, feature format."""
        encoder, ngrams = self.word_encoder, self.config.ngrams
        vectors = encoder and [self.model(encoder).fingerprint, ngrams.num_words, ngrams.word_dim]
        counted = (
            ngrams.vocabulary_rows and ngrams.fingerprint_fields()
        )  # n-gram counts depend on all settings that determine ids
        read = self.prepare_fingerprint("pairs"), ngrams.normalizes_units, ngrams.unit_names
        return fingerprint("lexicon", FORMAT, *read, vectors, counted)

    def logits(self, name: str) -> Folder:
        """A teacher's logits: shards of the transfer set, and of judged splits below `judged/`."""
        return self.root / "logits" / f"{name}-{self.label_fingerprint(name)}"

    def labeled_by(self, name: str) -> str | None:
        """The fingerprint of the model that computed the logits; None: no logits yet."""
        if name not in self._labeled:
            found = self.logits(name).read_json(LABELED_BY)
            if found is None:
                return None
            self._labeled[name] = found["model"]
        return self._labeled[name]

    def train_fingerprint(self, role: str) -> str:
        """Fingerprint of a student: pairs, targets, features, network, schedule."""
        if role not in ROLES:
            raise ValueError(f"no student {role!r}; there are {ROLES}")
        config = self.config
        if role == "student":
            dataset = "pairs"
            # A refitted teacher keeps its folder name, so its model's fingerprint counts too.
            names = config.teacher_names
            teachers = {
                name: [self.label_fingerprint(name), self.labeled_by(name)] for name in names
            }
            # Fitted weights are a function of the logits and the judged pairs.
            stack = config.stacking_weights() or self.prepare_fingerprint("judged")
            targets: object = [teachers, config.soft_labels.fingerprint_fields(), stack]
        else:
            dataset = targets = "judged"
        sections = (config.ngrams, config.resolved.student, config.resolved.train)
        settings = [
            self.lexicon_fingerprint(),
            *(section.fingerprint_fields() for section in sections),
        ]
        relevant_at = config.judged.relevant_at  # in the dev AUC that selects the best epoch
        return fingerprint(
            "train", role, self.prepare_fingerprint(dataset), targets, settings, relevant_at
        )
