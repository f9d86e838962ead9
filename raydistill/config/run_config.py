"""The settings of a run: all tables of the run file, validated together.

Reads no data and uses no cluster.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated

import tomli_w
from pydantic import Field, model_validator

from raydistill.config.base import ConfigSection
from raydistill.config.data import ClusterConfig, JudgedConfig, PairsConfig
from raydistill.config.prompt import Prompt
from raydistill.config.search import TuneConfig
from raydistill.config.student import (
    HIDDEN,
    SEARCHED,
    TARGET,
    ExportConfig,
    NgramsConfig,
    SoftLabelsConfig,
    StudentConfig,
    Target,
    TrainConfig,
)
from raydistill.config.teachers import (
    TREES,
    FinetuneConfig,
    LabelConfig,
    TeacherConfig,
    TreesConfig,
)

_GONE = "it is gone, as it gained nothing: leave it out"
# Names of older run files, and what such a file must say now.
RENAMED = {
    "labels": "it is now soft_labels",
    "train.loss": 'it is now train.target ("logit" for "mse", "probability" for "cross_entropy")',
    **dict.fromkeys(
        ("ngrams.bags", "student.start", "train.optimizer", "train.weight_decay"), _GONE
    ),
}


class RunConfig(ConfigSection):
    """The settings of a run, as read from the run file and stored in the run folder as run.toml."""

    RUNTIME_ONLY = frozenset({"run_dir", "cluster"})

    run_dir: str
    """The run folder, on a disk that all machines share or at `s3://`."""
    pairs: PairsConfig
    """The transfer set: unlabeled pairs."""
    judged: JudgedConfig
    """Pairs with human labels, split into train, dev and test by query."""
    teachers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], TeacherConfig] = Field(
        min_length=1
    )
    """The teachers, by name; at least one."""
    trees: TreesConfig = TreesConfig()
    """Boosted trees on the match features, a teacher fitted on the judged pairs."""
    finetune: FinetuneConfig = FinetuneConfig()
    """How a `base` encoder becomes a cross-encoder."""
    label: LabelConfig = LabelConfig()
    """How the teachers score pairs."""
    soft_labels: SoftLabelsConfig = SoftLabelsConfig()
    """How logits become soft labels."""
    ngrams: NgramsConfig = NgramsConfig()
    """How text becomes n-gram ids and match features."""
    student: StudentConfig = StudentConfig()
    """The student's network."""
    train: TrainConfig = TrainConfig()
    """How the student is fitted."""
    export: ExportConfig = ExportConfig()
    """How the student becomes a bundle."""
    tune: TuneConfig = TuneConfig()
    """How settings are searched."""
    cluster: ClusterConfig = ClusterConfig()
    """The Ray cluster."""

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if bool(self.pairs.query) != bool(self.judged.query):
            raise ValueError('pairs.query and judged.query: give both, or "" for single texts')
        self._check_prompts()
        if TREES in self.teachers:
            raise ValueError(f"teachers.{TREES}: the name is that of the trees; give another one")
        self._check_weights()
        for name in self.tune.space:
            _check_searched(name)
        return self

    @property
    def target(self) -> Target:
        """The student's target: the soft label as a probability, or its logit."""
        train = self.train
        return train.target or TARGET[self.ngrams.preset]

    @property
    def resolved(self) -> RunConfig:
        """The settings with the preset's values in place of those that the run file omits."""
        preset = self.ngrams.preset
        hidden = self.student.hidden or HIDDEN[preset]
        rate = self.train.table_rate(preset)
        student = self.student.model_copy(update={"hidden": hidden})
        train = self.train.model_copy(update={"target": self.target, "table_learning_rate": rate})
        return self.model_copy(update={"student": student, "train": train})

    @property
    def has_trees(self) -> bool:
        """Whether the trees are a teacher: enabled, with queries, not excluded by the weights."""
        weights = self.soft_labels.weights
        is_wanted = TREES in weights if isinstance(weights, dict) else True
        return self.trees.enabled and bool(self.judged.query) and is_wanted

    @property
    def teacher_names(self) -> list[str]:
        """The names of all teachers, the trees last, in the order of the logit columns."""
        return [*self.teachers, *([TREES] if self.has_trees else [])]

    def stacking_weights(self) -> dict[str, float] | None:
        """Weight of each teacher in the order of the logit columns, sum 1; None: to be fitted."""
        names, given = self.teacher_names, self.soft_labels.weights
        if given == "fitted" or (given is None and len(names) > 1):
            return None
        return normalised(dict.fromkeys(names, 1.0) if given is None else given, names=names)

    def _check_prompts(self) -> None:
        for name, teacher in self.teachers.items():
            if teacher.prompt is None:
                continue
            if Prompt.parse(teacher.prompt).has_query != bool(self.pairs.query):
                problem = "has no {query}" if self.pairs.query else "has {query}: texts are single"
                raise ValueError(f"teachers.{name}.prompt {problem}")

    def _check_weights(self) -> None:
        weights, names = self.soft_labels.weights, self.teacher_names
        if not isinstance(weights, dict):
            return
        if set(weights) != set(names):
            raise ValueError(
                f"soft_labels.weights names {sorted(weights)} but the teachers are "
                f"{sorted(names)}; "
                "give one weight per teacher"
            )
        if sum(weights.values()) <= 0:
            raise ValueError("soft_labels.weights are all 0; give at least one teacher a weight")

    def to_toml(self) -> str:
        """The configuration as TOML; fields that are None are omitted, as TOML has no null."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def normalised(weights: Mapping[str, float], *, names: Sequence[str]) -> dict[str, float]:
    """The weights of `names`, in this order, divided by their sum."""
    total = sum(weights[name] for name in names)
    return {name: weights[name] / total for name in names}


def _check_searched(name: str) -> None:
    section, _, field = name.partition(".")
    for old in (name, section):
        if old in RENAMED:
            raise ValueError(f"tune.space: unknown setting {name}: {RENAMED[old]}")
    kind = SEARCHED.get(section)
    if kind is None:
        raise ValueError(
            f'tune.space: {name!r} cannot be searched; write "section.field" of '
            f"{', '.join(SEARCHED)}"
        )
    if name in ("ngrams.units", "ngrams.extra_units"):
        raise ValueError(
            f"tune.space: {name} cannot be searched: words are counted with it as it is"
        )
    allowed = [f for f in kind.model_fields if f not in kind.RUNTIME_ONLY]
    if field not in allowed:
        near = difflib.get_close_matches(field, allowed, n=3, cutoff=0.5) or sorted(allowed)
        raise ValueError(f"tune.space: unknown setting {name}; did you mean {', '.join(near)}?")
