"""The explanations that a server is asked for: one after the other, in a thread.

They need numba, which compiles the functions that read texts on their first call on a machine. This
module imports without it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from raydistill.errors import UserError

if TYPE_CHECKING:
    from raydistill.server.bundles import Loaded
    from raydistill.server.explanations.answer import Explained
    from raydistill.server.explanations.pair import PairExplainer

MAX_CHARS = 20_000  # of a text: the scorer reads 1,000 at most
MAX_WAITING = 8  # one takes 40 ms


class NotExplained(UserError):
    """A request for an explanation that is refused: the HTTP status, and what to do."""

    def __init__(self, status: int, error: str, *, hint: str) -> None:
        """`error`: what is wrong."""
        super().__init__(error)
        self.status, self.error, self.hint = status, error, hint


class Explanations:
    """Explains scores of the bundle that is asked for; for one event loop."""

    def __init__(self) -> None:
        """Nothing is loaded before the first request."""
        self._lock, self._num_waiting = asyncio.Lock(), 0
        self._pairs: PairExplainer | None = None

    async def explain(self, bundle: Loaded, *, query: str, title: str) -> Explained:
        """What drove the score of a pair; a bundle of single texts ignores the query.

        Raises:
            NotExplained: a text is too long (413), too many wait (429), or numba is missing (501).
        """
        for name, text in (("query", query), ("title", title)):
            if len(text) > MAX_CHARS:
                what = f"{name} has {len(text):,} characters; the limit is {MAX_CHARS:,}"
                raise NotExplained(413, what, hint="the scorer reads the first few hundred")
        if self._num_waiting >= MAX_WAITING:
            what = f"{self._num_waiting} explanations wait, which is the limit"
            raise NotExplained(429, what, hint="send it again later")
        self._num_waiting += 1
        try:
            async with self._lock:
                asked = "" if bundle.is_single else query
                return await asyncio.to_thread(self._explained, bundle, asked, title)
        finally:
            self._num_waiting -= 1

    def _explained(self, bundle: Loaded, query: str, title: str) -> Explained:
        try:
            from raydistill.server.explanations.pair import PairExplainer
        except ImportError as error:
            raise NotExplained(
                501,
                f"this server cannot explain scores: {error}",
                hint="pip install 'raydistill[numba]' on the server, and start it again",
            ) from error
        if self._pairs is None or self._pairs.bundle is not bundle:
            self._pairs = PairExplainer(bundle)
        return self._pairs.explain(query, title)
