"""The application on a real Ray Serve: two replicas, a newer bundle, a killed replica."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from raydistill.errors import UserError
from raydistill.server.limits import Settings
from raydistill.serving.scorer import Scorer
from tests.helpers.server import Client, add_bundle, until

BODY = {"query": "grey sofa", "titles": ["Sofa, 3 seats, grey", "Cable"]}


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    add_bundle(folder, temperature=1.0)
    return folder


@pytest.fixture
def replicated(local_ray: None, bundles: Path) -> Iterator[str]:
    from ray import serve
    from ray.serve.config import HTTPOptions

    from raydistill.server.hosts.ray_serve import NAME, deployed

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    settings = Settings(reload_s=0.2)
    app = deployed(str(bundles), settings=settings, replicas=(2, 2), num_cpus=0.1)
    serve.run(app, name=NAME, route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def _replicas() -> set[int]:
    """The processes of the replicas, by the names that Ray gives them."""
    found = set[int]()
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if words[0].startswith("ray::ServeReplica:raydistill:raydistill"):
            ancestors = {one.pid for one in process.parents()}
            if os.getpid() in ancestors:
                found.add(process.pid)
    return found


def _names(client: Client, num: int) -> set[str]:
    """The bundles that score some requests."""
    found = [client.post("/score", BODY) for _ in range(num)]
    return {one.json["bundle"] if one.status == 200 else str(one.status) for one in found}


@pytest.mark.slow
def test_replicas_take_up_a_bundle_and_one_that_dies_is_replaced(
    replicated: str, bundles: Path
) -> None:
    client = Client(replicated)
    found = client.post("/score", BODY).json
    wanted = Scorer.load(bundles).score("grey sofa", BODY["titles"])  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.float32(found["scores"]), wanted)
    assert client.post("/rerank", {"query": "a", "texts": ["b"]}).status == 200
    assert client.post("/score", b"abc").status == 400
    newer = add_bundle(bundles, temperature=2.0)
    until(lambda: _names(client, 30) == {newer})  # both: 30 requests go to one by a chance of 2^-29
    before = _replicas()
    assert len(before) == 2
    victim = before.pop()
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(_replicas() - {victim}) == 2, most_s=60)
    until(lambda: _names(client, 30) == {newer})
    client.close()


def test_a_config_of_serve_is_checked() -> None:
    from pydantic import ValidationError

    from raydistill.server.hosts.ray_serve import ServeArguments, deployed

    with pytest.raises(ValidationError, match="max_replica\n"):
        ServeArguments(bundle="x", max_replica=3)  # type: ignore[call-arg]
    with pytest.raises(UserError, match="3 to 2 replicas"):
        deployed("x", settings=Settings(), replicas=(3, 2))
