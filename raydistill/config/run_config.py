"""What a run is: one TOML file and `--set section.field=value`, validated, and its fingerprints.

Comes in: a path and overrides. Goes out: a frozen RunConfig. Touches no data and no cluster.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self, get_args

import tomli_w
from pydantic import BaseModel, Field, ValidationError, model_validator

from raydistill.config.base import Count, Section, Share
from raydistill.config.data import CsvConfig, InputConfig, Inputs, Label, Scale, check_labels
from raydistill.config.loading import apply_override, lay_over, parse_tables, read_text
from raydistill.config.prompt import Prompt
from raydistill.config.search import TuneConfig
from raydistill.config.student import (
    HIDDEN,
    LOSS,
    SEARCHED,
    LabelsConfig,
    NgramsConfig,
    StudentConfig,
    TrainConfig,
)
from raydistill.config.teachers import (
    TREES,
    FinetuneConfig,
    LabelConfig,
    TeacherConfig,
    TreesConfig,
)
from raydistill.errors import UserError


class TextRules(Section):
    """Columns and cleaning rules that `[pairs]` and `[judged]` share."""

    # The files themselves, and how each is read, are part of the fingerprint (run.py).
    SPEED = frozenset({"input", "csv", "max_bad_fraction"})
    input: Inputs
    query: str = "query"  # "": the task has single texts, in `title`
    title: str = "title"
    source: str | None = None  # a column that is kept beside the pairs: the shop, the month
    lowercase: bool = False
    max_query_chars: Count = 200
    max_title_chars: Count = 1_000
    csv: CsvConfig = CsvConfig()
    max_bad_fraction: float = Field(default=0.05, ge=0, le=1)  # of the rows, in quarantine

    def csv_options(self, given: InputConfig) -> dict[str, str]:
        """What is known of the delimited text of an input, as fields of `CsvOptions`."""
        own = given.csv.model_dump(exclude_none=True) if given.csv else {}
        return {**self.csv.model_dump(exclude_none=True), **own}

    def label_rule(self, given: InputConfig) -> dict[str, Any]:
        """What the labels of an input stand for, as `LabelRule.of` takes it."""
        del given
        return {}

    def columns(self, given: InputConfig) -> dict[str, str]:
        """Our name of each column that is read, and its name in the files of an input."""
        own: dict[str, str | None]
        own = {"query": self.query, "title": self.title, "source": self.source}
        if isinstance(self, JudgedConfig):
            own["label"] = self.label
        if not self.query:
            del own["query"]
        names = {ours: getattr(given, ours) or theirs for ours, theirs in own.items()}
        return {ours: theirs for ours, theirs in names.items() if theirs}

    @model_validator(mode="after")
    def _inputs_fit(self) -> Self:
        for given in self.input:
            if given.query and not self.query:
                raise ValueError(f'{given.path} names a query column, but query is ""')
            for name in ("label", "split", "scale", "grades"):
                if getattr(given, name) and not isinstance(self, JudgedConfig):
                    raise ValueError(
                        f"{given.path} names a {name}; only judged pairs have a {name}"
                    )
        return self

    def results(self) -> dict[str, Any]:
        """As of any section; of the source columns only whether there is one."""
        return {**super().results(), "source": self.keeps_source}

    @property
    def keeps_source(self) -> bool:
        """Whether any input names a source column: the shards then have one."""
        return bool(self.source) or any(given.source for given in self.input)


class PairsConfig(TextRules):
    """The transfer set: unlabeled pairs."""

    shard_rows: Count = 65_536  # 20 s of an H100: what a lost machine costs
    dedupe: bool = True
    hold_out: bool = True  # leave out the pairs of dev and test queries


class JudgedConfig(TextRules):
    """Human-judged pairs, split by a hash of the query where their input names no split."""

    SPEED = TextRules.SPEED | {"scale", "grades"}
    label: str = "label"
    scale: Scale | None = None  # the labels that stand for 0 and for 1: [0, 3]; None: 0..1
    grades: dict[str, Label] = Field(
        default={}
    )  # what each label stands for: Exact = 1.0, Substitute = 0.5
    relevant_at: float = Field(default=0.5, ge=0, le=1)
    dev_share: Share = 0.1  # without effect where an input is the dev split
    test_share: Share = 0.1

    def label_rule(self, given: InputConfig) -> dict[str, Any]:
        """What the labels of an input stand for: its own scale or grades, or the section's."""
        scale, grades = given.scale, given.grades
        if scale is None and not grades:
            scale, grades = self.scale, self.grades
        return {"scale": list(scale)} if scale else {"grades": dict(grades)} if grades else {}

    @model_validator(mode="after")
    def _labels_fit(self) -> JudgedConfig:
        check_labels("judged", self.scale, self.grades)
        for given in self.input:
            check_labels(given.path, given.scale, given.grades)
        return self

    @model_validator(mode="after")
    def _leaves_some(self) -> JudgedConfig:
        if self.dev_share + self.test_share >= 1:
            raise ValueError("dev_share and test_share leave nothing to train on")
        return self

    def share(self, split: str) -> float:
        """Of the pairs whose input names no split, those that go to dev or to test."""
        if any(given.split == split for given in self.input):
            return 0.0
        return self.dev_share if split == "dev" else self.test_share


class ClusterConfig(Section):
    """Where Ray is; None: the cluster of the job, or a Ray of our own on this machine."""

    address: str | None = None
    gpus: int | None = Field(default=None, ge=0)  # what it may grow to; None: those there now


class RunConfig(Section):
    """A whole run, as read from the file and stored beside its output as run.toml."""

    run_dir: str
    pairs: PairsConfig
    judged: JudgedConfig
    teachers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], TeacherConfig] = Field(
        min_length=1
    )
    trees: TreesConfig = TreesConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    label: LabelConfig = LabelConfig()
    labels: LabelsConfig = LabelsConfig()
    ngrams: NgramsConfig = NgramsConfig()
    student: StudentConfig = StudentConfig()
    train: TrainConfig = TrainConfig()
    tune: TuneConfig = TuneConfig()
    cluster: ClusterConfig = ClusterConfig()

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
        if self.student.start == "words" and not self.ngrams.num_columns:
            raise ValueError('student.start = "words" needs word vectors: preset match, word_dim')
        return self

    @property
    def learns_logits(self) -> bool:
        """Whether the student's loss is on the logits of the soft labels."""
        return self.resolved.train.loss == "mse"

    @property
    def resolved(self) -> RunConfig:
        """With what the preset takes where the run file is silent."""
        preset = self.ngrams.preset
        hidden, loss = self.student.hidden or HIDDEN[preset], self.train.loss or LOSS[preset]
        rate = self.train.table_rate(preset)
        student = self.student.model_copy(update={"hidden": hidden})
        train = self.train.model_copy(update={"loss": loss, "table_learning_rate": rate})
        return self.model_copy(update={"student": student, "train": train})

    @property
    def has_trees(self) -> bool:
        """Whether the trees are a teacher too: with queries, unless the weights leave them out."""
        weights = self.labels.weights
        is_wanted = TREES in weights if isinstance(weights, dict) else True
        return self.trees.enabled and bool(self.judged.query) and is_wanted

    @property
    def teacher_names(self) -> list[str]:
        """Every teacher that gives logits, in the order of their columns."""
        return [*self.teachers, *([TREES] if self.has_trees else [])]

    def stacking_weights(self) -> dict[str, float] | None:
        """Weight of each teacher, in the order of their columns, sum 1; None: to be fitted."""
        names, given = self.teacher_names, self.labels.weights
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
        weights, names = self.labels.weights, self.teacher_names
        if not isinstance(weights, dict):
            return
        if set(weights) != set(names):
            raise ValueError(
                f"labels.weights names {sorted(weights)} but the teachers are {sorted(names)}; "
                "give one weight per teacher"
            )
        if sum(weights.values()) <= 0:
            raise ValueError("labels.weights are all 0; give at least one teacher a weight")

    def to_toml(self) -> str:
        """The resolved configuration; fields that are None are left out, as TOML has no null."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def normalised(weights: Mapping[str, float], *, names: Sequence[str]) -> dict[str, float]:
    """The weights of `names`, in this order, over their sum."""
    total = sum(weights[name] for name in names)
    return {name: weights[name] / total for name in names}


def _check_searched(name: str) -> None:
    section, _, field = name.partition(".")
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
    allowed = [f for f in kind.model_fields if f not in kind.SPEED]
    if field not in allowed:
        near = difflib.get_close_matches(field, allowed, n=3, cutoff=0.5) or sorted(allowed)
        raise ValueError(f"tune.space: unknown setting {name}; did you mean {', '.join(near)}?")


def load_config(
    path: str, *, overlays: Sequence[Mapping[str, Any]] = (), overrides: Sequence[str] = ()
) -> RunConfig:
    """Read the run file at `path`, lay tables and then `section.field=value` over it, validate.

    Raises:
        UserError: no such file, not TOML, or settings that are not allowed, named one a line.
    """
    return parse_config(read_text(path), name=path, overlays=overlays, overrides=overrides)


def parse_config(
    text: str,
    *,
    name: str,
    overlays: Sequence[Mapping[str, Any]] = (),
    overrides: Sequence[str] = (),
) -> RunConfig:
    """The content of a run file; `name` is what error messages call it.

    Raises:
        UserError: as `load_config`.
    """
    raw = parse_tables(text, name=name)
    for overlay in overlays:
        lay_over(raw, overlay)
    for override in overrides:
        apply_override(raw, override)
    return to_config(raw, name=name)


def to_config(raw: Mapping[str, Any], *, name: str) -> RunConfig:
    """The tables of a run file, validated.

    Raises:
        UserError: settings that are not allowed.
    """
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{name}: " + "; ".join(map(_explain, error.errors()))) from error


def _explain(error: Mapping[str, Any]) -> str:
    """One problem in a user's words; an unknown field names its nearest neighbours."""
    loc = [str(part) for part in error["loc"]]
    where = ".".join(loc) or "the file"
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg'].removeprefix('Value error, ')} (given: {error['input']!r})"
    allowed = _fields_at(loc[:-1])
    near = difflib.get_close_matches(loc[-1], allowed, n=3, cutoff=0.5) or sorted(allowed)
    return f"unknown field {where}; did you mean {', '.join(near)}?"


def _fields_at(loc: Sequence[str]) -> list[str]:
    section: type[BaseModel] = RunConfig
    for part in loc:
        if part in section.model_fields:
            kind = section.model_fields[part].annotation
            args = [a for a in get_args(kind) if isinstance(a, type) and issubclass(a, BaseModel)]
            section = args[0] if args else kind  # type: ignore[assignment]
    return list(section.model_fields)


def fingerprint(*parts: object) -> str:
    """Eight hex digits that name what made a folder: a hash of the parts as sorted JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
