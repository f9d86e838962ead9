"""The page of a server: its files, which lie beside this module, and examples for it.

The page asks no other host for anything, and the browser is told so.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from raydistill.server.bundles import Loaded
from raydistill.serving.bundle import GOLDEN

logger = logging.getLogger("raydistill")
_FOLDER = Path(__file__).parent / "page"
_INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # asked for again with its tag: a new version is seen at once
}
_NUM_EXAMPLES, _LEAST_TITLES, _MOST_TITLES = 4, 3, 20
_MOST_CHARS = 200  # of a text of an example: golden pairs have odd ones too


def page_routes() -> list[Route]:
    """`/`, and `/page/NAME` for each other file of the page."""
    files = [file.name for file in sorted(_FOLDER.iterdir()) if file.suffix in _TYPES]
    return [
        _file_route("/", _INDEX),
        *(_file_route(f"/page/{name}", name) for name in files if name != _INDEX),
    ]


def _file_route(path: str, name: str) -> Route:
    async def file(request: Request) -> Response:
        content, tag = _content(name)
        headers = {**_HEADERS, "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_TYPES[Path(name).suffix])

    return Route(path, file, include_in_schema=False)


@cache
def _content(name: str) -> tuple[bytes, str]:
    """A file's content, and its tag."""
    content = (_FOLDER / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def examples_of(bundle: Loaded) -> list[dict[str, Any]]:
    """Queries of a bundle's golden pairs with their titles, those with most titles first.

    Golden pairs are of the shop that the student was made for. Empty without golden.json.
    """
    file = bundle.folder / GOLDEN
    try:
        pairs = json.loads(file.read_bytes())["pairs"] if file.is_file() else []
        return _examples(pairs, is_single=bundle.is_single)
    except (OSError, ValueError, KeyError, TypeError) as error:  # written over after the load
        logger.warning("serve     no examples: %s cannot be read (%r)", file, error)
        return []


def _examples(pairs: Iterable[Mapping[str, str]], *, is_single: bool) -> list[dict[str, Any]]:
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for pair in pairs:
        query, title = pair["query"], pair["title"]
        if len(query) <= _MOST_CHARS and len(title) <= _MOST_CHARS and title.strip():
            found[query][" ".join(title.split())] = None
    ranked = sorted(found.items(), key=lambda one: -len(one[1]))
    return [
        {"query": query, "titles": list(titles)[:_MOST_TITLES]}
        for query, titles in ranked[:_NUM_EXAMPLES]
        if is_single or (query.strip() and len(titles) >= _LEAST_TITLES)
    ]
