"""The JSON of requests and answers, other than those of /rerank, with examples for OpenAPI."""

from __future__ import annotations

from reprlib import Repr
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from raydistill.server.limits import Refused

_Model = TypeVar("_Model", bound=BaseModel)
_MOST_ERRORS = 3
_SHORT = Repr()  # of a value in a message: a body may be megabytes of it
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 2
_NOT_JSON = "json_invalid"
# One error, not one for each of a million numbers in place of texts: that takes minutes.
Texts = Annotated[list[str], Field(fail_fast=True)]


class _Own(BaseModel):
    """A request of our own form: a field of another name is a mistake."""

    model_config = ConfigDict(extra="forbid")


class ScoreRequest(_Own):
    """One query and its titles."""

    query: Annotated[
        str | None,
        Field(description="Needed, except for a bundle of single texts.", examples=["grey sofa"]),
    ] = None
    titles: Annotated[
        Texts, Field(description="In any order.", examples=[["Sofa, 3 seats, grey", "Sofa cover"]])
    ]


class ScorePairsRequest(_Own):
    """Queries and titles of the same number."""

    queries: Annotated[Texts, Field(examples=[["grey sofa", "drill"]])]
    titles: Annotated[Texts, Field(examples=[["Sofa, 3 seats, grey", "Drill 18 V"]])]


class ExplainRequest(_Own):
    """One pair."""

    query: Annotated[str | None, Field(examples=["grey sofa"])] = None
    title: Annotated[str, Field(examples=["Sofa, 3 seats, grey"])]


class Scores(BaseModel):
    """Scores in the order of the titles."""

    scores: Annotated[list[float], Field(description="From 0 to 1.", examples=[[0.912, 0.034]])]
    relevant: Annotated[
        list[bool],
        Field(description="Whether a score reaches the threshold.", examples=[[True, False]]),
    ]
    threshold: Annotated[float, Field(examples=[0.616])]
    bundle: Annotated[
        str, Field(description="Fingerprint of the bundle.", examples=["0e40b7e9120f9fa4"])
    ]


class Info(BaseModel):
    """The bundle that scores, the last failure to load one, and the limits."""

    bundle: Annotated[str, Field(examples=["0e40b7e9120f9fa4"])]
    source: Annotated[str, Field(description="As given to the server.")]
    loaded_at: Annotated[str, Field(description="UTC.", examples=["2026-01-31T12:00:00Z"])]
    threshold: float
    single_texts: Annotated[bool, Field(description="Titles alone are read, without a query.")]
    title_columns: Annotated[
        list[str], Field(description="Columns of training; a title is their values with spaces.")
    ]
    golden_pairs: Annotated[int, Field(description="Pairs that were scored again at the load.")]
    model_bytes: int
    settings: Annotated[dict[str, Any], Field(description="bundle.json.")]
    card: Annotated[str, Field(description="The model card, Markdown.")]
    failure: Annotated[
        str | None, Field(description="Why the newest bundle was not taken, if it was not.")
    ]
    max_titles: int
    max_body_bytes: int
    version: Annotated[str, Field(description="Of raydistill.")]


class Example(BaseModel):
    """A query with titles, for the page; of single texts the query is empty."""

    query: str
    titles: Texts


class Status(BaseModel):
    """Whether a process lives, or takes requests."""

    status: Annotated[str, Field(examples=["ok", "ready", "stopping"])]


class Error(BaseModel):
    """Why a request was refused."""

    error: Annotated[str, Field(examples=["titles.3: Input should be a valid string, got 7"])]
    hint: Annotated[str | None, Field(examples=["give a list of strings"])] = None


def parsed(kind: type[_Model], body: bytes) -> _Model:
    """A request of a body.

    Raises:
        Refused: it is not JSON (400) or not of that form (422); the message names the field.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error, kind) from error


def _refusal(error: ValidationError, kind: type[BaseModel]) -> Refused:
    found = error.errors(include_url=False, include_context=False)
    if found[0]["type"] == _NOT_JSON:
        text = found[0]["msg"].removeprefix("Invalid JSON: ")
        return Refused(400, f"the body is not JSON: {text}")
    more = f" (and {len(found) - _MOST_ERRORS} more)" if len(found) > _MOST_ERRORS else ""
    said = "; ".join(map(_said, found[:_MOST_ERRORS]))
    return Refused(422, said + more, hint=f"fields: {', '.join(kind.model_fields)}")


def _said(error: ErrorDetails) -> str:
    where = ".".join(map(str, error["loc"])) or "the body"
    if error["type"] in ("missing", "extra_forbidden"):
        return f"{where}: {error['msg']}"
    return f"{where}: {error['msg']}, got {_SHORT.repr(error['input'])}"
