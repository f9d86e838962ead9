"""The HTTP server in a thread, a client, and bundles that it takes up."""

import http.client
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from raydistill.server.app import create_app
from raydistill.server.hosts.connection import Connection
from raydistill.server.limits import Settings
from raydistill.serving.bundle import CURRENT
from raydistill.serving.scorer import Scorer
from tests.helpers.bundles import make_bundle

GOLDEN = [
    ("grey sofa", "Sofa, 3 seats, grey"), ("grey sofa", "Cable"), ("café ½ in", "Ca\u0301fe 1/2in")
]  # fmt: skip


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401
        return json.loads(self.body)


@dataclass
class Client:
    """One connection, which is kept."""

    address: str
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=30)

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, None, headers)

    def post(self, path: str, content: object, **headers: str) -> Answer:
        """`content`: bytes as they are, or else what is sent as JSON."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.request("POST", path, body, {"content-type": "application/json", **headers})

    def request(
        self,
        method: str,
        path: str,
        body: Any,  # noqa: ANN401 - bytes, or an iterable of them
        headers: dict[str, str],
        *,
        encode_chunked: bool = False,
    ) -> Answer:
        whole = {**self.headers, **headers}
        if encode_chunked:
            whole["transfer-encoding"] = "chunked"
        self._connection.request(method, path, body, whole, encode_chunked=encode_chunked)
        found = self._connection.getresponse()
        named = {name.lower(): value for name, value in found.getheaders()}
        return Answer(found.status, named, found.read())

    def close(self) -> None:
        self._connection.close()


@contextmanager
def served(app: Any) -> Iterator[str]:  # noqa: ANN401 - an ASGI application
    """An application at a free port; gives its address."""
    config = uvicorn.Config(
        app, port=0, http=Connection, log_config=None, access_log=False, lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def served_bundle(bundle: Path, **settings: Any) -> Iterator[str]:  # noqa: ANN401 - of Settings
    """A bundle at a free port; gives the URL of its page."""
    with served(create_app(bundle, settings=Settings(**settings))) as address:
        yield f"{address}/"


def until(is_so: Callable[[], bool], *, most_s: float = 30) -> None:
    end_s = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < end_s, "it took too long"
        time.sleep(0.01)


def golden_bundle(folder: Path, **settings: Any) -> Path:  # noqa: ANN401 - of bundle.json
    """A bundle with golden pairs that score as golden.json says."""
    with tempfile.TemporaryDirectory() as plain:
        scorer = Scorer.load(make_bundle(Path(plain) / "one", **settings))
    pairs = [
        {"query": query, "title": title, "score": float(scorer.score_pairs([query], [title])[0])}
        for query, title in GOLDEN
    ]
    return make_bundle(folder, golden=pairs, **settings)


def add_bundle(bundles: Path, **settings: Any) -> str:  # noqa: ANN401 - of bundle.json
    """Add a bundle to a folder of bundles, and point to it as `export` does; its name."""
    made = golden_bundle(bundles / "new", **settings)
    name: str = Scorer.load(made).settings["fingerprint"]
    if (bundles / name).exists():
        shutil.rmtree(made)
    else:
        made.rename(bundles / name)
    point_to(bundles, name)
    return name


def point_to(bundles: Path, name: str) -> None:
    (bundles / "pointer").write_text(json.dumps({"bundle": name, "previous": []}))
    os.replace(bundles / "pointer", bundles / CURRENT)
