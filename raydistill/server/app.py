"""The HTTP application: routes, and what each of them answers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from raydistill.credentials import masked
from raydistill.server.bundles import Bundles, Loaded
from raydistill.server.explanations.queue import Explanations, NotExplained
from raydistill.server.limits import Refused, Settings, check_token
from raydistill.server.metrics import CONTENT_TYPE, Measured
from raydistill.server.openapi import document
from raydistill.server.page_routes import examples_of, page_routes
from raydistill.server.rerank import RerankRequest
from raydistill.server.schemas import ExplainRequest, ScorePairsRequest, ScoreRequest, parsed
from raydistill.server.service import VERSION, Service

logger = logging.getLogger("raydistill")
BUNDLE_HEADER = "x-raydistill-bundle"
_RERANK_APIS = {"/rerank": "2", "/v1/rerank": "1", "/v2/rerank": "2"}
_Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(bundle: str | Path, *, settings: Settings | None = None) -> Starlette:
    """The application that serves a bundle: a folder of one or several, `s3://`, a hub's name.

    `app.state.service` is its Service.

    Raises:
        UserError: there is no bundle, or it is damaged.
    """
    service = Service(Bundles(bundle), settings or Settings())

    @asynccontextmanager
    async def refreshed(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(service.refresh())
        yield
        task.cancel()

    routes = _routes(service)
    measured = Middleware(
        Measured, metrics=service.metrics, routes=[route.path for route in routes]
    )
    app = Starlette(
        routes=routes,
        lifespan=refreshed,
        middleware=[measured],
        exception_handlers={Refused: _refused, HTTPException: _http_error, Exception: _failed},
    )
    app.state.service = service
    return app


def answer(
    content: Any,  # noqa: ANN401
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """JSON; scores may be NumPy arrays of float32."""
    try:
        body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:  # a client's document with an integer of more than 64 bits
        body = json.dumps(content, default=_plain).encode()
    return Response(body, status, headers, media_type="application/json")


def _plain(value: np.generic) -> object:
    return value.item()


def _refused(_: Request, error: Exception) -> Response:
    refusal = error if isinstance(error, Refused) else Refused(500, "internal error")
    content = {"error": refusal.error, **({"hint": refusal.hint} if refusal.hint else {})}
    return answer(content, status=refusal.status, headers=refusal.headers)


def _http_error(request: Request, error: Exception) -> Response:
    refusal = error if isinstance(error, HTTPException) else HTTPException(500)
    said = {404: "no such route", 405: "no such method"}.get(refusal.status_code, refusal.detail)
    text = f"{said}: {request.method} {request.url.path}"
    hint = "GET /openapi.json has all routes"
    headers = dict(refusal.headers or {})
    return _refused(request, Refused(refusal.status_code, text, hint=hint, headers=headers))


def _failed(request: Request, error: Exception) -> Response:
    logger.error("serve     %s failed", request.url.path, exc_info=error)
    return answer({"error": f"internal error: {type(error).__name__}"}, status=500)


def _routes(service: Service) -> list[Route]:
    token = service.settings.token

    def guarded(endpoint: _Endpoint) -> _Endpoint:
        if token is None:
            return endpoint

        async def checked(request: Request) -> Response:
            check_token(request.headers.get("authorization"), token=token)
            return await endpoint(request)

        return checked

    posts = {
        "/score": _score,
        "/score_pairs": _score_pairs,
        "/explain": _explain,
        **dict.fromkeys(_RERANK_APIS, _rerank),
    }
    described = orjson.dumps(document(version=VERSION, has_token=token is not None))

    async def openapi(_: Request) -> Response:
        return Response(described, media_type="application/json")

    async def info(_: Request) -> Response:
        content = service.info()
        return answer({**content, "source": masked(content["source"])})

    async def health(_: Request) -> Response:
        return answer({"status": "ok"})

    async def ready(_: Request) -> Response:
        if service.is_stopping:
            return answer({"status": "stopping"}, status=503)
        return answer({"status": "ready"})

    async def metrics(_: Request) -> Response:
        service.metrics.show(service.bundles)
        text = await asyncio.to_thread(service.metrics.text)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    return [
        *(
            Route(path, guarded(endpoint(service)), methods=["POST"])
            for path, endpoint in posts.items()
        ),
        Route("/info", guarded(info)),
        Route("/examples", guarded(_examples(service))),
        Route("/openapi.json", openapi),
        Route("/health", health),
        Route("/ready", ready),
        Route("/metrics", metrics),
        *page_routes(),
    ]


def _score(service: Service) -> _Endpoint:
    async def score(request: Request) -> Response:
        asked = parsed(ScoreRequest, await service.body(request))
        bundle = service.bundles.current
        return _scores(bundle, await service.score(bundle, asked.query, asked.titles))

    return score


def _score_pairs(service: Service) -> _Endpoint:
    async def score_pairs(request: Request) -> Response:
        asked = parsed(ScorePairsRequest, await service.body(request))
        bundle = service.bundles.current
        return _scores(bundle, await service.score_pairs(bundle, asked.queries, asked.titles))

    return score_pairs


def _scores(bundle: Loaded, scores: NDArray[np.float32]) -> Response:
    threshold = bundle.scorer.threshold
    content = {
        "scores": scores,
        "relevant": scores >= threshold,
        "threshold": threshold,
        "bundle": bundle.name,
    }
    return answer(content, headers={BUNDLE_HEADER: bundle.name})


def _explain(service: Service) -> _Endpoint:
    explanations = Explanations()

    async def explain(request: Request) -> Response:
        asked = parsed(ExplainRequest, await service.body(request))
        bundle = service.bundles.current
        if asked.query is None and not bundle.is_single:
            raise Refused(422, "query: Field required", hint="the bundle scores (query, title)")
        try:
            found = await explanations.explain(bundle, query=asked.query or "", title=asked.title)
        except NotExplained as error:
            raise Refused(error.status, error.error, hint=error.hint) from error
        return answer(found.model_dump(), headers={BUNDLE_HEADER: bundle.name})

    return explain


def _examples(service: Service) -> _Endpoint:
    async def examples(_: Request) -> Response:
        return answer(examples_of(service.bundles.current))

    return examples


def _rerank(service: Service) -> _Endpoint:
    async def rerank(request: Request) -> Response:
        asked = parsed(RerankRequest, await service.body(request))
        bundle = service.bundles.current
        scores = await service.score(bundle, asked.query, asked.titles())
        ranked = asked.answer(
            scores, bundle=bundle.name, api=_RERANK_APIS.get(request.url.path, "2")
        )
        return answer(ranked, headers={BUNDLE_HEADER: bundle.name})

    return rerank
