"""What the run file says of raw files: where they lie, what their columns, text and labels are."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from raydistill.config.base import Section
from raydistill.errors import UserError


class CsvConfig(Section):
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


class InputConfig(Section):
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
