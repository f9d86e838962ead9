"""What the routes of a server share: the bundle that scores, the limits, the figures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from raydistill.server.bundles import Bundles, Loaded
from raydistill.server.limits import Refused, Settings, Turns, read_body
from raydistill.server.metrics import Metrics

# A query with 256 titles is scored in half a millisecond; between two slices others have a turn.
SLICE_TITLES = 256
VERSION = version("raydistill")
_Scoring = Callable[[int, int], NDArray[np.float32]]


class Service:
    """Scores titles within the limits; for one event loop."""

    def __init__(self, bundles: Bundles, settings: Settings) -> None:
        """A service that takes requests."""
        self.bundles, self.settings = bundles, settings
        self.turns, self.metrics = Turns(settings.max_waiting), Metrics()
        self.is_stopping = False
        self.metrics.show(bundles)

    async def body(self, request: Request) -> bytes:
        """The body of a request, within the limits.

        Raises:
            Refused: as `read_body`, or too many requests wait (429).
        """
        with self.turns.turn():
            return await read_body(request, max_bytes=self.settings.max_body_bytes)

    async def refresh(self) -> None:
        """Look for a newer bundle for ever; requests that began with one end with it."""
        while True:
            await asyncio.sleep(self.settings.reload_s)
            await _in_daemon(self.bundles.refresh)
            self.metrics.show(self.bundles)

    async def score(
        self, bundle: Loaded, query: str | None, titles: Sequence[str]
    ) -> NDArray[np.float32]:
        """Scores of one query's titles.

        Raises:
            Refused: too many titles (413) or waiting requests (429), or no query (422).
        """
        if query is None and not bundle.is_single:
            raise Refused(422, "query: Field required", hint="the bundle scores (query, title)")
        asked = "" if query is None or bundle.is_single else query
        score = bundle.scorer.score
        return await self._in_slices(
            lambda start, stop: score(asked, titles[start:stop]), num_titles=len(titles)
        )

    async def score_pairs(
        self, bundle: Loaded, queries: Sequence[str], titles: Sequence[str]
    ) -> NDArray[np.float32]:
        """Scores of pairs.

        Raises:
            Refused: too many titles (413) or waiting requests (429), or sides of different length.
        """
        if len(queries) != len(titles):
            raise Refused(422, f"{len(queries)} queries for {len(titles)} titles")
        if bundle.is_single:
            return await self.score(bundle, "", titles)
        score = bundle.scorer.score_pairs
        return await self._in_slices(
            lambda start, stop: score(queries[start:stop], titles[start:stop]),
            num_titles=len(titles),
        )

    async def _in_slices(self, score: _Scoring, *, num_titles: int) -> NDArray[np.float32]:
        if num_titles > self.settings.max_titles:
            raise Refused(
                413,
                f"{num_titles:,} titles; the limit is {self.settings.max_titles:,}",
                hint="send several requests, or start the server with --max-titles",
            )
        with self.turns.turn():
            parts = []
            for start in range(0, max(num_titles, 1), SLICE_TITLES):
                await asyncio.sleep(0)  # requests that came meanwhile are admitted or refused
                parts.append(score(start, start + SLICE_TITLES))
        self.metrics.titles.inc(num_titles)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def info(self) -> dict[str, Any]:
        """The content of /info."""
        bundle = self.bundles.current
        settings = bundle.scorer.settings
        return {
            "bundle": bundle.name,
            "source": self.bundles.source,
            "loaded_at": bundle.loaded_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "threshold": bundle.scorer.threshold,
            "single_texts": bundle.is_single,
            "title_columns": settings.get("title", ["title"]),
            "golden_pairs": bundle.num_golden,
            "model_bytes": len(bundle.scorer.model),
            "settings": settings,
            "card": bundle.card,
            "failure": self.bundles.failure or None,
            "max_titles": self.settings.max_titles,
            "max_body_bytes": self.settings.max_body_bytes,
            "version": VERSION,
        }


async def _in_daemon(call: Callable[[], object]) -> None:
    """Run a call that raises nothing in a thread that does not hold up the end of the process.

    Of a store that does not answer it takes minutes, and asyncio waits for its own threads.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        call()
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, daemon=True).start()
    await done.wait()
