"""The description of all routes, OpenAPI 3.1."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from raydistill.server.explanations.answer import Explained
from raydistill.server.rerank import Rank, RankedDocuments, RerankRequest
from raydistill.server.schemas import (
    Error,
    Example,
    ExplainRequest,
    Info,
    ScorePairsRequest,
    ScoreRequest,
    Scores,
    Status,
)

_REF = "#/components/schemas/{model}"
_ERRORS = {
    400: "The body is not JSON.",
    401: "The token is missing or another one.",
    408: "The body did not arrive in time.",
    413: "Too many titles, or too many bytes.",
    422: "A field is missing or of another type.",
    429: "Too many requests wait; send it again after the seconds of Retry-After.",
}
_RERANK = "Texts or documents of one query, the best first: the forms of TEI, Cohere and Jina."
_POSTS: dict[str, tuple[str, type[BaseModel], str]] = {
    "/score": ("Scores of one query's titles.", ScoreRequest, "Scores"),
    "/score_pairs": ("Scores of pairs.", ScorePairsRequest, "Scores"),
    "/explain": ("What drove the score of a pair; needs numba.", ExplainRequest, "Explained"),
    "/rerank": (_RERANK, RerankRequest, ""),
    "/v1/rerank": (_RERANK, RerankRequest, ""),
    "/v2/rerank": (_RERANK, RerankRequest, ""),
}
_GETS = {
    "/info": ("The bundle, its model card, the limits.", "Info"),
    "/health": ("200 as long as the process lives.", "Status"),
    "/ready": ("200 while it takes requests, 503 when it stops.", "Status"),
}
_MODELS: list[type[BaseModel]] = [
    *(ScoreRequest, ScorePairsRequest, ExplainRequest, RerankRequest),
    *(Scores, Explained, Rank, RankedDocuments, Info, Example, Status, Error),
]


def document(*, version: str, has_token: bool) -> dict[str, Any]:
    """The OpenAPI document; `version` of raydistill."""
    modes: list[tuple[type[BaseModel], Literal["validation", "serialization"]]]
    modes = [(model, "validation") for model in _MODELS]
    _, definitions = models_json_schema(modes, ref_template=_REF)
    paths = {path: {"post": _post(path, has_token=has_token)} for path in _POSTS}
    paths |= {path: {"get": _get(path)} for path in _GETS}
    paths["/explain"]["post"]["responses"]["501"] = _said("The server has no numba.")
    paths["/examples"] = {"get": _examples()}
    paths["/metrics"] = {"get": _text("Figures for Prometheus.", "metrics")}
    components: dict[str, Any] = {"schemas": definitions["$defs"]}
    if has_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "raydistill", "version": version},
        "paths": paths,
        "components": components,
    }


def _post(path: str, *, has_token: bool) -> dict[str, Any]:
    text, request, answer = _POSTS[path]
    ranked = {"anyOf": [{"type": "array", "items": _ref("Rank")}, _ref("RankedDocuments")]}
    errors = {status: said for status, said in _ERRORS.items() if has_token or status != 401}
    return {
        "summary": text,
        "operationId": path.strip("/").replace("/", "_"),
        "requestBody": {"required": True, "content": _json(_ref(request.__name__))},
        "responses": {
            "200": {"description": text, "content": _json(_ref(answer) if answer else ranked)},
            **{str(status): _said(said) for status, said in errors.items()},
        },
        **({"security": [{"token": []}]} if has_token else {}),
    }


def _said(text: str) -> dict[str, Any]:
    return {"description": text, "content": _json(_ref("Error"))}


def _examples() -> dict[str, Any]:
    text = "Queries of the bundle's golden pairs, with their titles."
    content = _json({"type": "array", "items": _ref("Example")})
    found = {"200": {"description": text, "content": content}}
    return {"summary": text, "operationId": "examples", "responses": found}


def _get(path: str) -> dict[str, Any]:
    text, answer = _GETS[path]
    statuses = ["200", "503"] if path == "/ready" else ["200"]
    found = {status: {"description": text, "content": _json(_ref(answer))} for status in statuses}
    return {"summary": text, "operationId": path.strip("/"), "responses": found}


def _text(summary: str, name: str) -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    found = {"200": {"description": summary, "content": content}}
    return {"summary": summary, "operationId": name, "responses": found}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=name)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
