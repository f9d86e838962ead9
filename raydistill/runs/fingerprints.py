"""Fingerprints: hexadecimal digits that name what made a folder of the run."""

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

LABELED_BY = "_model.json"  # beside logits: the model that gave them
ROLES = ("student", "judged_only")


def fingerprint(*parts: object) -> str:
    """Eight hex digits that name what made a folder: a hash of the parts as sorted JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


@dataclass(frozen=True)
class RunFingerprints(RunSources):
    """What made each output of a run."""

    _labeled: dict[str, str] = field(default_factory=dict)  # by teacher, once a process

    def prepare_fingerprint(self, dataset: str) -> str:
        """What made `judged/` or `pairs/`: settings, and sizes and digests of the raw files."""
        settings, manifest = self.prepare_settings(), self.manifest
        if dataset == "judged":
            read = settings["judged"], settings["ngrams"]
            return fingerprint("prepare", *read, manifest.identities("judged"))
        return fingerprint("prepare", settings, *map(manifest.identities, DATASETS))

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
    def for_trees(self) -> Self:
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

    def lexicon_fingerprint(self) -> str:
        """What makes the lexicon: the pairs and how they are read; its vectors; the features."""
        encoder, ngrams = self.word_encoder, self.config.ngrams
        vectors = encoder and [self.model(encoder).fingerprint, ngrams.num_words, ngrams.word_dim]
        counted = (
            ngrams.vocabulary_rows and ngrams.fingerprint_fields()
        )  # of n-grams: all that decides ids
        read = self.prepare_fingerprint("pairs"), ngrams.normalizes_units, ngrams.unit_names
        return fingerprint("lexicon", FORMAT, *read, vectors, counted)

    def logits(self, name: str) -> Folder:
        """Logits of one teacher: shards of the pairs, and below `judged/` those of the splits."""
        return self.root / "logits" / f"{name}-{self.label_fingerprint(name)}"

    def labeled_by(self, name: str) -> str | None:
        """The fingerprint of the model whose logits are there; None where there are none yet."""
        if name not in self._labeled:
            found = self.logits(name).read_json(LABELED_BY)
            if found is None:
                return None
            self._labeled[name] = found["model"]
        return self._labeled[name]

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
