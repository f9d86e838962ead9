"""Limits: bodies, waiting requests, large requests beside small ones."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raydistill.errors import UserError
from raydistill.server import limits
from raydistill.server.app import create_app
from raydistill.server.bundles import Bundles
from raydistill.server.limits import Refused, Settings, Turns
from raydistill.server.service import SLICE_TITLES, Service
from tests.helpers.server import Client, served, until


def test_more_requests_than_may_wait_are_refused(bundle: Path) -> None:
    service = Service(Bundles(bundle), Settings(max_waiting=3))

    async def all_at_once() -> list[object]:
        asked = [service.score(service.bundles.current, "a", ["b"]) for _ in range(5)]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(all_at_once())
    refused = [one for one in found if isinstance(one, Refused)]
    assert [(one.status, (one.headers or {})["retry-after"]) for one in refused] == 2 * [(429, "1")]
    assert [len(one) for one in found if not isinstance(one, Refused)] == [1, 1, 1]  # type: ignore[arg-type]
    assert service.turns.num_waiting == 0


def test_a_refused_request_waits_no_longer() -> None:
    turns = Turns(1)
    with pytest.raises(ZeroDivisionError), turns.turn():
        raise ZeroDivisionError
    with turns.turn(), pytest.raises(Refused, match="1 requests wait"), turns.turn():
        pass


def test_small_requests_have_a_turn_while_a_large_one_is_scored(bundle: Path) -> None:
    service, order = Service(Bundles(bundle), Settings()), list[str]()

    async def ask(name: str, num_titles: int) -> None:
        await service.score(service.bundles.current, "a", ["b"] * num_titles)
        order.append(name)

    async def both() -> None:
        await asyncio.gather(ask("large", 10 * SLICE_TITLES), ask("small", 1))

    asyncio.run(both())
    assert order == ["small", "large"]


def test_bodies_that_are_read_count_as_waiting(bundle: Path) -> None:
    """Else any number of clients could each have the server hold a large body."""
    done = threading.Event()

    def parts() -> Iterator[bytes]:
        yield b'{"query": "a",'
        done.wait(30)
        yield b'"titles": ["b"]}'

    app = create_app(bundle, settings=Settings(max_waiting=1))
    with served(app) as address, ThreadPoolExecutor() as pool:
        slow, other = Client(address), Client(address)
        asked = pool.submit(slow.request, "POST", "/score", parts(), {}, encode_chunked=True)
        until(lambda: app.state.service.turns.num_waiting == 1)
        assert other.post("/score", {"query": "a", "titles": ["b"]}).status == 429
        done.set()
        assert asked.result(30).status == 200
        assert other.post("/score", {"query": "a", "titles": ["b"]}).status == 200
        slow.close()
        other.close()


def test_a_slow_body_is_given_up(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_BODY_S", 0.1)
    done = threading.Event()
    with served(create_app(bundle)) as address:
        client = Client(address)

        def parts():  # noqa: ANN202
            yield b'{"query": "a",'
            done.wait(0.5)
            yield b"}"

        found = client.request("POST", "/score", parts(), {}, encode_chunked=True)
        assert (found.status, found.json["error"]) == (408, "no whole body within 0 s")
        client.close()


def test_settings_are_checked() -> None:
    for wrong in ({"max_titles": 0}, {"max_waiting": -1}, {"reload_s": float("nan")}):
        (name,) = wrong
        with pytest.raises(UserError, match=name):
            Settings(**wrong)  # type: ignore[arg-type]
    assert "secret" not in repr(Settings(token="secret"))
