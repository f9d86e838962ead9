"""The settings of a run: all tables of the run file, validated together.

Reads no data and uses no cluster.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import tomli_w
from pydantic import Field, model_validator

from raydistill.config.base import OF_QUERIES, ConfigSection
from raydistill.config.cluster import ClusterConfig
from raydistill.config.data import JudgedConfig, PairsConfig, ScoreInputs
from raydistill.config.evaluation import EvaluateConfig, TuneConfig
from raydistill.config.prompt import Prompt
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
    PARTIAL,
    TREES,
    FinetuneConfig,
    LabelConfig,
    TeacherConfig,
    TreesConfig,
)

_TEXTS = ("query", "title")
_ROWS = {TREES: "the trees", "ensemble": "their stack", "mean": "their mean"}  # of a report
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
    judged: JudgedConfig | None = None
    """Pairs with human labels, split into train, dev and test by query. Default: none; dev and test
    are then held-out queries of the transfer set, with the teachers' soft labels."""
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
    evaluate: EvaluateConfig = EvaluateConfig()
    """How the report is measured."""
    cluster: ClusterConfig = ClusterConfig()
    """The Ray cluster."""

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.judged is not None and self.has_query != bool(self.judged.query):
            raise ValueError('pairs.query and judged.query: give both, or "" for single texts')
        self._check_titles()
        self._check_unjudged()
        self._check_prompts()
        self._check_scores()
        self._check_bi_encoders()
        self._check_metrics()
        for name in {*_ROWS} & {*self.teachers}:
            raise ValueError(f"teachers.{name}: the name is that of {_ROWS[name]}; give another")
        self._check_learning()
        self._check_weights()
        self._check_slices()
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
        is_default = self.dev_metric == self._default_dev_metric
        train = self.train.model_copy(
            update={
                "target": self.target,
                "table_learning_rate": rate,
                "metric": None if is_default else self.train.metric,
            }
        )
        return self.model_copy(update={"student": student, "train": train})

    @property
    def dev_metric(self) -> str:
        """The metric that chooses the student's weights, under its name in files.

        `"agreement"` is the rank correlation with the teachers' soft labels.
        """
        metric, default = self.train.metric, self._default_dev_metric
        if metric is None or (default == "agreement" and metric == "spearman"):
            return default
        return metric

    @property
    def tune_metric(self) -> str:
        """The metric on dev that the search improves."""
        default = "spearman" if self.relevant_at("dev") is None else "auc"
        return self.tune.metric or default

    @property
    def _default_dev_metric(self) -> str:
        return "agreement" if self.relevant_at("dev") is None else "auc"

    @property
    def has_trees(self) -> bool:
        """Whether the trees are a teacher: enabled, with queries, not excluded by the weights."""
        weights = self.soft_labels.weights
        is_wanted = TREES in weights if isinstance(weights, dict) else True
        return self.trees.enabled and self.has_query and is_wanted and self.learns_from_judged

    @property
    def has_query(self) -> bool:
        """Whether the task has pairs; False: single texts."""
        return bool(self.pairs.query)

    @property
    def learns_from_judged(self) -> bool:
        """Whether judged pairs are the train and dev splits: something is fitted on them."""
        return self.judged is not None and not self.judged.is_test_only

    def source_of(self, split: str) -> Literal["judged", "held_out"]:
        """The dataset of a split: judged pairs, or held-out queries of the transfer set."""
        is_judged = self.learns_from_judged or (self.judged is not None and split == "test")
        return "judged" if is_judged else "held_out"

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets that `prepare` writes, in this order."""
        has_drawn = "held_out" in (self.source_of("dev"), self.source_of("test"))
        judged = [] if self.judged is None else ["judged"]
        return (*judged, *(["held_out"] if has_drawn else []), "pairs")

    def relevant_at(self, split: str) -> float | None:
        """The label from which a pair of a split is relevant; None: its labels are soft labels."""
        is_judged = self.judged is not None and self.source_of(split) == "judged"
        return self.judged.relevant_at if self.judged is not None and is_judged else None

    @property
    def judged_rules(self) -> JudgedConfig:
        """The table `[judged]`, for code that runs only where it is given."""
        if self.judged is None:
            raise ValueError("the run has no judged pairs")
        return self.judged

    @property
    def teacher_names(self) -> list[str]:
        """The names of all teachers, the trees last, in the order of the logit columns."""
        return [*self.teachers, *([TREES] if self.has_trees else [])]

    def teacher_kind(self, name: str) -> str:
        """The kind of a teacher: a name of `KINDS`, or "trees"."""
        return TREES if name == TREES else self.teachers[name].teacher_kind

    def is_partial(self, name: str) -> bool:
        """Whether a teacher may have no logit of a pair without anything being wrong."""
        return self.teacher_kind(name) in PARTIAL

    def score_inputs(self, name: str) -> ScoreInputs:
        """The files of a teacher of scores, read with the rules of `[pairs]`.

        Their texts may be as long as those of judged pairs, which have scores too.
        """
        teacher, pairs = self.teachers[name], self.pairs
        kept = ("lowercase", "max_bad_fraction", "csv")
        fields = {field: getattr(pairs, field) for field in kept}
        both = [pairs] if self.judged is None else [pairs, self.judged]
        for limit in ("max_query_chars", "max_title_chars"):
            fields[limit] = max(getattr(rules, limit) for rules in both)
        texts = {field: getattr(teacher, field) or getattr(pairs, field) for field in _TEXTS}
        columns = tuple(teacher.gains or (teacher.score or "score",))
        return ScoreInputs(input=teacher.scores or (), score_columns=columns, **texts, **fields)

    def stacking_weights(self) -> dict[str, float] | None:
        """Weight of each teacher in the order of the logit columns, sum 1; None: to be fitted."""
        names, given = self.teacher_names, self.soft_labels.weights
        if given is None and not self.learns_from_judged:
            return normalised(dict.fromkeys(names, 1.0), names=names)
        if given == "fitted" or (given is None and len(names) > 1):
            return None
        return normalised(dict.fromkeys(names, 1.0) if given is None else given, names=names)

    def sources_of(self, name: str) -> list[str]:
        """The teachers that a teacher learns from, directly or through others, the nearest first.

        Raises:
            ValueError: it learns from itself in the end.
        """
        chain = [name]
        while (source := self.teachers[chain[-1]].learns_from) is not None:
            if source in chain:
                circle = " from ".join([*chain[chain.index(source) :], source])
                raise ValueError(f"teachers.{name}.learns_from: a circle, {circle}")
            chain.append(source)
        return chain[1:]

    @property
    def num_label_rounds(self) -> int:
        """How often `finetune` and `label` take turns: 1 if no teacher learns from another."""
        return 1 + max(len(self.sources_of(name)) for name in self.teachers)

    def _check_learning(self) -> None:
        for name, teacher in self.teachers.items():
            source, others = teacher.learns_from, [n for n in self.teachers if n != name]
            if source is None or source in self.teachers:
                continue
            near = difflib.get_close_matches(source, others, n=3, cutoff=0.5) or others
            hint = f"did you mean {', '.join(near)}?" if near else "it is the only teacher"
            raise ValueError(f"teachers.{name}.learns_from: no teacher {source!r}; {hint}")
        for name in self.teachers:
            self.sources_of(name)

    def _check_prompts(self) -> None:
        for name, teacher in self.teachers.items():
            if teacher.prompt is None:
                continue
            if Prompt.parse(teacher.prompt).has_query != bool(self.pairs.query):
                problem = "has no {query}" if self.pairs.query else "has {query}: texts are single"
                raise ValueError(f"teachers.{name}.prompt {problem}")

    def _check_unjudged(self) -> None:
        """Raise ValueError if something is to be fitted on judged pairs, and there are none."""
        if self.learns_from_judged:
            return
        why = "there is no [judged]" if self.judged is None else "judged.dev_share = 0"
        for name, teacher in self.teachers.items():
            if teacher.needs_judged:
                needs = "to choose its best epoch by" if teacher.learns_from else "to learn from"
                raise ValueError(
                    f"teachers.{name}.base = {teacher.base!r} is fine-tuned, but {why}: give a "
                    f"ready-made teacher, or judged pairs {needs}"
                )
        if self.soft_labels.weights == "fitted":
            raise ValueError(
                f'soft_labels.weights = "fitted" needs judged dev pairs, but {why}: leave it out '
                "(equal weights), or give a weight per teacher"
            )
        if not self.pairs.hold_out:
            raise ValueError(
                f"pairs.hold_out = false, but {why}: the dev queries come from the transfer set, "
                "and must be left out of training"
            )

    def _check_titles(self) -> None:
        """Raise ValueError if pairs have titles of several columns, and nobody named judged ones.

        `judged.title = "title"` says that the one column is meant.
        """
        judged, pairs = self.judged, self.pairs
        if judged is None or "title" in judged.model_fields_set:
            return
        several = [t for one in pairs.input if not isinstance(t := one.title or pairs.title, str)]
        if several and not all(given.title for given in judged.input):
            raise ValueError(
                f"pairs.title = {list(several[0])} has several columns, and judged.title is not "
                "given: give judged.title the same list, or the one column that has these texts"
            )

    def _check_scores(self) -> None:
        """Raise ValueError if the texts in files of scores cannot be those of the pairs."""
        for name, teacher in self.teachers.items():
            if teacher.scores is None:
                continue
            if not self.has_query and (teacher.query or any(one.query for one in teacher.scores)):
                raise ValueError(
                    f"teachers.{name} names a query column, but texts are single "
                    '(pairs.query = ""): leave its `query` out'
                )
            if self.judged is not None and self.judged.lowercase != self.pairs.lowercase:
                shown = [str(rules.lowercase).lower() for rules in (self.pairs, self.judged)]
                raise ValueError(
                    f"teachers.{name}.scores: pairs.lowercase = {shown[0]}, judged.lowercase = "
                    f"{shown[1]}; scores are found by equal texts, and no judged pair would have "
                    "one: give both the same value"
                )

    def _check_metrics(self) -> None:
        given = {"train.metric": self.train.metric, "tune.metric": self.tune.metric}
        for name, metric in given.items():
            if metric in OF_QUERIES and not self.has_query:
                raise ValueError(
                    f"{name} = {metric!r} compares the titles of a query, but texts are single "
                    '(pairs.query = ""): give "auc", or another metric of all pairs'
                )

    def _check_bi_encoders(self) -> None:
        for name, teacher in self.teachers.items():
            if teacher.bi_encoder is not None and not self.pairs.query:
                raise ValueError(
                    f"teachers.{name}.bi_encoder compares a query with a title, but texts are "
                    'single (pairs.query = ""): give a `base` or a `model`'
                )

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

    def _check_slices(self) -> None:
        """Raise ValueError if the report is to show columns that the test pairs do not have."""
        if self.source_of("test") == "judged":
            return
        kept = ["source"] if self.pairs.keeps_source else []
        named = [*self.evaluate.slices, *filter(None, [self.evaluate.weight])]
        gone = [name for name in named if name not in kept]
        if gone:
            raise ValueError(
                f"evaluate names the columns {', '.join(gone)}, but the test pairs are drawn from "
                "the transfer set, of which `pairs.source` alone is kept: leave them out"
            )

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
