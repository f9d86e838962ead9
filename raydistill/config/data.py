"""The tables `[pairs]`, `[judged]` and `[cluster]`: raw files, columns, text, labels; Ray."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from raydistill.config.base import ConfigSection, Count, Share
from raydistill.errors import UserError


class CsvConfig(ConfigSection):
    """How delimited text is written, where its suffix and its first lines do not tell."""

    quote: str | None = None  # "": quotes are text; default: the double quote, in TSV none
    escape: str | None = None  # of a quote in quotes; "": none; default: doubled, or a backslash
    delimiter: str | None = None
    encoding: str | None = None  # as Python calls it: cp1252, latin-1, shift_jis

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
Scale = tuple[float, float]


class InputConfig(ConfigSection):
    """One input; columns that are not named here are named as the section says."""

    path: str  # a file, a folder or a glob, local or s3://
    query: str | None = None
    title: str | None = None
    label: str | None = None
    source: str | None = None
    split: Literal["train", "dev", "test"] | None = None  # of all its pairs; judged pairs alone
    csv: CsvConfig | None = None  # what is not given here is as the section says
    scale: Scale | None = None  # judged pairs alone, as are grades
    grades: dict[str, Label] | None = None


def _to_inputs(given: object) -> object:
    """`input = "log/*.parquet"` is what people write first; a list of those, or of tables."""
    if isinstance(given, (str, dict, InputConfig)):
        given = [given]
    if not isinstance(given, (list, tuple)):
        return given
    return tuple({"path": one} if isinstance(one, str) else one for one in given)


Inputs = Annotated[tuple[InputConfig, ...], Field(min_length=1), BeforeValidator(_to_inputs)]


def check_labels(where: str, scale: Scale | None, grades: Mapping[str, float] | None) -> None:
    """Raise ValueError unless there is at most one of a scale and grades, and it is one."""
    if scale and grades:
        raise ValueError(f"{where} has a scale and grades; give one of them")
    if scale and scale[0] == scale[1]:
        raise ValueError(f"{where}: a scale has two ends, the labels that stand for 0 and for 1")


def to_csv_config(given: Mapping[str, str | None]) -> CsvConfig:
    """Options of a command as the run file has them.

    Raises:
        UserError: one that is not allowed.
    """
    try:
        return CsvConfig.model_validate(dict(given))
    except ValidationError as error:
        raise UserError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


class TextRules(ConfigSection):
    """Columns and cleaning rules that `[pairs]` and `[judged]` share."""

    # The files, and how each is read, are part of the fingerprint another way (data/manifest.py).
    RUNTIME_ONLY = frozenset({"input", "csv", "max_bad_fraction"})
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

    def fingerprint_fields(self) -> dict[str, Any]:
        """As of any section; of the source columns only whether there is one."""
        return {**super().fingerprint_fields(), "source": self.keeps_source}

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

    RUNTIME_ONLY = TextRules.RUNTIME_ONLY | {"scale", "grades"}
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


class ClusterConfig(ConfigSection):
    """Where Ray is; None: the cluster of the job, or a Ray of our own on this machine."""

    address: str | None = None
    gpus: int | None = Field(default=None, ge=0)  # what it may grow to; None: those there now
