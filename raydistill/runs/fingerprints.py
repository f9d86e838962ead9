"""Fingerprints: hex hashes of the settings and inputs that an output folder was made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Self

from raydistill.config.student import NgramsConfig
from raydistill.config.teachers import COSINE_BIAS, COSINE_SCALE, ENGINE, TREES
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
        """Fingerprint of `judged/`, `held_out/` or `pairs/`: settings, digests of the raw files."""
        settings, manifest = self.prepare_settings(), self.manifest
        if dataset == "judged":
            read = settings["judged"], settings["ngrams"]
            return fingerprint("prepare", *read, manifest.identities("judged"))
        if dataset == "held_out":  # drawn once, from the files that were there first
            first = manifest.with_increments("pairs", manifest.pairs[:1])
            return fingerprint("held out", settings, *map(first.identities, DATASETS))
        return fingerprint("prepare", settings, *map(manifest.identities, DATASETS))

    def finetune_fingerprint(self, name: str) -> str:
        """Fingerprint of a fine-tuned teacher: encoder, judged pairs or logits, settings."""
        teacher = self.config.teachers[name]
        if teacher.base is None:
            raise ValueError(f"teacher {name} has no base: it is not fine-tuned")
        encoder, section = self.model(teacher.base).fingerprint, self.config.finetune
        relevant_at = self.config.judged_rules.relevant_at
        settings_of_splits = self._judged_settings(), self._key_settings()
        judged = [*settings_of_splits, self.manifest.identities("judged")]
        source = teacher.learns_from
        if source is not None:
            logits = [self.label_fingerprint(source), self.labeled_by(source)]
            settings = section.learned_fields()
            return fingerprint("finetune", encoder, settings, judged, relevant_at, logits)
        settings = section.fingerprint_fields()
        used = relevant_at if settings["target"] == "binary" else None
        return fingerprint("finetune", encoder, settings, judged, used)

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
        identity = self.teacher_identity(name)
        if name == TREES:
            return fingerprint("label", ENGINE, identity)
        reading = self.config.teachers[name].reading()
        if not self.config.is_partial(name):  # files of scores are read the same with any
            reading = [self.config.label.fingerprint_fields(), *reading]
        return fingerprint("label", ENGINE, identity, *reading)

    def teacher_identity(self, name: str) -> str:
        """What a teacher's logits are computed from: its model, or what that is fitted on."""
        if name == TREES:
            return self.trees_fingerprint()
        teacher = self.config.teachers[name]
        if teacher.base is not None:
            return self.finetune_fingerprint(name)
        if teacher.scores is not None:
            files = self.score_files(name)
            read = ([*f.identity, *f.reading, sorted(f.columns.items())] for f in files)
            return fingerprint("scores", sorted(read))
        model = self.model(teacher.source or "").fingerprint
        return self._cosine_identity(model) if teacher.bi_encoder is not None else model

    def _cosine_identity(self, model: str) -> str:
        """A cosine's logit also depends on the judged pairs that its scale is fitted on."""
        fitted_on = self.prepare_fingerprint("judged") if self.calibrates else None
        return fingerprint("cosine", model, COSINE_SCALE, COSINE_BIAS, fitted_on)

    @property
    def calibrates(self) -> bool:
        """Whether judged train pairs fit the scale and the bias of cosines."""
        return self.config.learns_from_judged

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
        relevant_at = config.relevant_at("dev")  # in the dev AUC that selects the best epoch
        return fingerprint(
            "train", role, self.prepare_fingerprint(dataset), targets, settings, relevant_at
        )
