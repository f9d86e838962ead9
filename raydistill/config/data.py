"""The tables `[pairs]` and `[judged]` of the run file."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from raydistill.config.base import ConfigSection, Count, Share
from raydistill.errors import UserError


class CsvConfig(ConfigSection):
    """The format of delimited text, where the suffix and the first lines do not show it."""

    quote: str | None = None
    """The quote character. `""`: quotes are text. Default: `"`; in TSV none."""
    escape: str | None = None
    """The character before a quote inside quotes. `""`: none. Default: a doubled quote, or a
    backslash where a record cannot be read otherwise."""
    delimiter: str | None = None
    """The character between fields. Default: detected from the header in CSV; a tab in TSV."""
    encoding: str | None = None
    """The encoding, by its Python name: `cp1252`, `latin-1`, `shift_jis`. Default: UTF-8, UTF-16 or
    UTF-32, by the byte-order mark."""

    @field_validator("delimiter", mode="before")
    @classmethod
    def _tab(cls, given: object) -> object:
        return "\t" if given in ("\\t", "tab") else given

    @model_validator(mode="after")
    def _are_marks(self) -> Self:
        for name in ("quote", "escape", "delimiter"):
            given = getattr(self, name)
            most = "one ASCII character" + (' or ""' if name != "delimiter" else "")
            if given is None or (not given and name != "delimiter"):
                continue
            if len(given) != 1 or not given.isascii() or given in "\r\n\0":
                raise ValueError(f"csv.{name} = {given!r}: give {most}")
        if self.delimiter is not None and self.delimiter in (self.quote, self.escape):
            raise ValueError(f"csv.delimiter = {self.delimiter!r} is the quote or the escape too")
        _check_encoding(self.encoding)
        return self


def _check_encoding(name: str | None) -> None:
    try:
        codecs.lookup(name or "utf-8")
    except LookupError as error:
        raise ValueError(f"csv.encoding: {error}; give cp1252, latin-1, shift_jis, ...") from error


Label = Annotated[float, Field(ge=0, le=1)]
# A column, or several of which prepare makes one text; a manifest has them as lists.
Column = str | list[str]


def _to_columns(given: object) -> object:
    """A list of one column as that column, so that both forms are the same setting."""
    return given[0] if isinstance(given, (list, tuple)) and len(given) == 1 else given


def _check_names(given: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if not isinstance(given, str) and not (given and all(given)):
        raise ValueError(f"{list(given)!r}: give the name of a column, or a list of names")
    if not isinstance(given, str) and len(set(given)) < len(given):
        raise ValueError(f"{list(given)!r} names a column twice")
    return given


Columns = Annotated[
    str | tuple[str, ...], BeforeValidator(_to_columns), AfterValidator(_check_names)
]
Scale = tuple[float, float]


class InputConfig(ConfigSection):
    """One input as a table; a setting that is not given here has the section's value."""

    path: str
    """A file, a folder or a glob, local or `s3://`."""
    query: str | None = None
    """The column of the query."""
    title: Columns | None = None
    """The column of the title, or a list of columns."""
    label: str | None = None
    """The column of the label. `[judged]` only."""
    source: str | None = None
    """A column that is stored beside each pair."""
    split: Literal["train", "dev", "test"] | None = None
    """The split of all its pairs. `[judged]` only. Default: a hash of the query decides."""
    csv: CsvConfig | None = None
    """How this input's delimited text is written."""
    scale: Scale | None = None
    """The labels that stand for 0 and for 1. `[judged]` only."""
    grades: dict[str, Label] | None = None
    """The label in 0..1 of each word. `[judged]` only."""


def _to_inputs(given: object) -> object:
    """A path such as `"log/*.parquet"`, a table, or a list of either, as a tuple of tables."""
    if isinstance(given, (str, dict, InputConfig)):
        given = [given]
    if not isinstance(given, (list, tuple)):
        return given
    return tuple({"path": one} if isinstance(one, str) else one for one in given)


Inputs = Annotated[tuple[InputConfig, ...], Field(min_length=1), BeforeValidator(_to_inputs)]


def check_labels(where: str, scale: Scale | None, grades: Mapping[str, float] | None) -> None:
    """Raise ValueError if both a scale and grades are given, or if a scale has equal ends."""
    if scale and grades:
        raise ValueError(f"{where} has a scale and grades; give one of them")
    if scale and scale[0] == scale[1]:
        raise ValueError(
            f"{where}: the scale {scale[0]:g} to {scale[1]:g} is one label; give those that stand "
            "for 0 and for 1"
        )


def to_csv_config(given: Mapping[str, str | None]) -> CsvConfig:
    """A command's CSV options as the run file's `csv` table.

    Raises:
        UserError: an option that is not allowed.
    """
    try:
        return CsvConfig.model_validate(dict(given))
    except ValidationError as error:
        raise UserError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


class TextRules(ConfigSection):
    """Columns and cleaning rules that `[pairs]` and `[judged]` share."""

    RUNTIME_ONLY = frozenset({"input", "csv", "max_bad_fraction"})
    # The manifest's identities contain the files and their reading options (data/manifest.py).
    FINGERPRINTED_ELSEWHERE = frozenset({"input", "csv"})
    input: Inputs
    """The raw files: a path, a list of paths, or a list of tables (see `[[pairs.input]]`)."""
    query: str = "query"
    """The column of the query. `""`: the task has single texts, in `title`."""
    title: Columns = "title"
    """The column of the title; or a list, `["title", "brand", "color"]`, whose values are joined by
    a space in this order, without empty ones, for teachers and student alike."""
    source: str | None = None
    """A column that is stored beside each pair, such as the shop or the month. Default: none."""
    lowercase: bool = False
    """Whether texts are stored in lower case. Both presets fold case themselves."""
    max_query_chars: Count = 200
    """Characters of a query; a row with a longer one goes to quarantine."""
    max_title_chars: Count = 1_000
    """Characters of a title; a row with a longer one goes to quarantine."""
    csv: CsvConfig = CsvConfig()
    """How the delimited text of all inputs of the section is written."""
    max_bad_fraction: float = Field(default=0.05, ge=0, le=1)
    """The share of rows that may go to quarantine; with more `prepare` stops."""

    def csv_options(self, given: InputConfig) -> dict[str, str]:
        """The given settings of an input's delimited text, as fields of `CsvOptions`."""
        own = given.csv.model_dump(exclude_none=True) if given.csv else {}
        return {**self.csv.model_dump(exclude_none=True), **own}

    def label_rule(self, given: InputConfig) -> dict[str, Any]:
        """The scale or grades of an input's labels, as arguments of `LabelRule.of`."""
        del given
        return {}

    def columns(self, given: InputConfig) -> dict[str, Column]:
        """The columns to read: the name in shards to the name or names in an input's files."""
        own: dict[str, str | tuple[str, ...] | None]
        own = {"query": self.query, "title": self.title, "source": self.source}
        if isinstance(self, JudgedConfig):
            own["label"] = self.label
        if not self.query:
            del own["query"]
        names = {ours: getattr(given, ours) or theirs for ours, theirs in own.items()}
        return {
            ours: theirs if isinstance(theirs, str) else list(theirs)
            for ours, theirs in names.items()
            if theirs
        }

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

    def fingerprint_fields(self) -> dict[str, Any]:
        """As of any section; for `source`, only whether any input has a source column."""
        return {**super().fingerprint_fields(), "source": self.keeps_source}

    @property
    def keeps_source(self) -> bool:
        """Whether any input names a source column; if so, the shards have one."""
        return bool(self.source) or any(given.source for given in self.input)


class ScoreInputs(TextRules):
    """The files of a teacher's scores: texts as in `[pairs]`, and columns of scores."""

    score_columns: tuple[str, ...] = ()

    def columns(self, given: InputConfig) -> dict[str, Column]:
        """As of any input, with the columns of the scores."""
        return {**super().columns(given), **{f"score {name}": name for name in self.score_columns}}


class PairsConfig(TextRules):
    """The transfer set: unlabeled pairs."""

    # The shares are among the settings of the splits that are drawn (runs/sources.py).
    RUNTIME_ONLY = TextRules.RUNTIME_ONLY | {"dev_share", "test_share"}
    FINGERPRINTED_ELSEWHERE = TextRules.FINGERPRINTED_ELSEWHERE | {"dev_share", "test_share"}
    shard_rows: Count = 65_536
    """Pairs of a shard at most. A shard is the work that a lost machine costs."""
    dedupe: bool = True
    """Whether equal pairs become one pair with a weight."""
    hold_out: bool = True
    """Whether pairs of dev and test queries are left out of the transfer set."""
    dev_share: Share = 0.1
    """The share of queries from which dev is drawn where no judged pairs are it: at most 20,000
    pairs, whose queries are left out of training."""
    test_share: Share = 0.1
    """The same for test, without `[judged]`."""

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        if self.dev_share + self.test_share >= 1:
            raise ValueError("dev_share and test_share leave nothing to train on")
        return self


class OtherLabelsConfig(ConfigSection):
    """A second source of labels of the judged test pairs, such as an LLM beside humans."""

    name: str = "other"
    """The name of the source in the report, such as `LLM`."""
    input: Inputs | None = None
    """The raw files, as in `[judged]`. Default: those of `[judged]`, with another column."""
    query: str | None = None
    """The column of the query. Default: that of `[judged]`."""
    title: Columns | None = None
    """The column of the title, or a list of columns. Default: that of `[judged]`."""
    label: str = "label"
    """The column of the label. A row without a label is left out."""
    scale: Scale | None = None
    """The labels that stand for 0 and for 1. Default: labels are 0..1."""
    grades: dict[str, Label] = Field(default={})
    """The label in 0..1 of each word. Not with `scale`."""
    relevant_at: float | None = Field(default=None, ge=0, le=1)
    """The label from which a pair counts as relevant. Default: that of `[judged]`."""

    @model_validator(mode="after")
    def _labels_fit(self) -> Self:
        check_labels("judged.other", self.scale, self.grades)
        for given in self.input or ():
            check_labels(given.path, given.scale, given.grades)
        return self


class JudgedConfig(TextRules):
    """Human-judged pairs; a hash of the query decides the split if their input names none."""

    # Other labels are in the fingerprint of the report (runs/run_folder.py).
    RUNTIME_ONLY = TextRules.RUNTIME_ONLY | {"scale", "grades", "other"}
    FINGERPRINTED_ELSEWHERE = TextRules.FINGERPRINTED_ELSEWHERE | {"scale", "grades", "other"}
    label: str = "label"
    """The column of the label."""
    scale: Scale | None = None
    """The labels that stand for 0 and for 1, such as `[0, 3]` or `[5, 1]`. Default: labels are
    0..1."""
    grades: dict[str, Label] = Field(default={})
    """The label in 0..1 of each word: `Exact = 1.0`, `Substitute = 0.5`. Not with `scale`."""
    relevant_at: float = Field(default=0.5, ge=0, le=1)
    """The label from which a pair counts as relevant in AUC, accuracy and binary targets."""
    dev_share: float = Field(default=0.1, ge=0, lt=1)
    """The share of queries in the dev split. No effect where an input is the dev split. 0: all
    judged pairs are the test split, and dev is drawn from the transfer set."""
    test_share: Share = 0.1
    """The share of queries in the test split. No effect where an input is the test split, or where
    `dev_share` is 0."""

    other: OtherLabelsConfig | None = None
    """A second source of labels of the test pairs, which the report shows beside these."""

    def label_rule(self, given: InputConfig) -> dict[str, Any]:
        """The input's own scale or grades, or the section's."""
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

    @property
    def other_inputs(self) -> JudgedConfig:
        """The files of `other`, read by the rules of this section where it says nothing.

        An input of this section keeps its columns of texts, and neither its label nor its scale.
        """
        other = self.other
        if other is None:
            raise ValueError("there is no [judged.other]")
        gone = {"label": None, "scale": None, "grades": None, "source": None}
        own = tuple(one.model_copy(update=gone) for one in self.input)
        texts = {name: value for name in ("query", "title") if (value := getattr(other, name))}
        rules = {"label": other.label, "scale": other.scale, "grades": other.grades}
        more = {"input": other.input or own, "source": None, "other": None, **texts, **rules}
        return self.model_copy(update=more)

    @property
    def is_test_only(self) -> bool:
        """Whether all judged pairs are the test split, and nothing is fitted on any of them."""
        return self.dev_share == 0 and all(given.split != "dev" for given in self.input)

    @model_validator(mode="after")
    def _tests_alone(self) -> JudgedConfig:
        for given in self.input:
            if self.is_test_only and given.split == "train":
                raise ValueError(
                    f'{given.path} has split = "train", but dev_share = 0 makes all judged pairs '
                    "the test split; give a dev_share above 0, or an input of the dev split"
                )
        return self

    @model_validator(mode="after")
    def _leaves_some(self) -> JudgedConfig:
        if self.dev_share + self.test_share >= 1:
            raise ValueError("dev_share and test_share leave nothing to train on")
        return self

    def share(self, split: str) -> float:
        """The share of queries that go to dev or test by hash; 0 if an input is that split."""
        if self.is_test_only:
            return float(split == "test")
        if any(given.split == split for given in self.input):
            return 0.0
        return self.dev_share if split == "dev" else self.test_share


def to_judged_config(given: Mapping[str, object]) -> JudgedConfig:
    """A command's options as the run file's `[judged]`.

    Raises:
        UserError: an option that is not allowed.
    """
    try:
        return JudgedConfig.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        place, reason = ".".join(map(str, first["loc"])), first["msg"]
        reason = reason.removeprefix("Value error, ")
        raise UserError(f"{place}: {reason}, not {first['input']}" if place else reason) from error
