"""deploy/spot_notice.sh with a metadata service like EC2's and a real Ray cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.helpers.ray_cluster import RayCluster, ray_cluster

SCRIPT = Path(__file__).parents[2] / "deploy/spot_notice.sh"
NOTICE = '{"action": "terminate", "time": "2026-11-27T13:00:00Z"}'
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("curl") is None, reason="no curl"),
]


class Metadata(BaseHTTPRequestHandler):
    """IMDSv2: a token for a session, then the notice; 404 as long as there is none."""

    is_noticed = threading.Event()
    num_asked = 0

    def do_PUT(self) -> None:
        is_right = "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        self._answer(200 if is_right and self.path == "/latest/api/token" else 400, "session")

    def do_GET(self) -> None:
        type(self).num_asked += 1
        if self.headers["X-aws-ec2-metadata-token"] != "session":
            self._answer(401, "")
        elif self.path == "/latest/meta-data/spot/instance-action" and self.is_noticed.is_set():
            self._answer(200, NOTICE)
        else:
            self._answer(404, "")

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def metadata_service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def variables(cluster: RayCluster, node_id: str, **more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"RAY_ADDRESS": cluster.address, "RAY_NODE_ID": node_id, "PATH": path}
    return {**cluster.environment, **own, **more}


def wait_until_gone(cluster: RayCluster, node_id: str) -> None:
    gone = threading.Event()
    for _ in range(120):
        if node_id not in cluster.alive():
            return
        gone.wait(0.5)
    raise AssertionError(f"{node_id} was not drained")


def test_a_notice_drains_the_node_and_no_other() -> None:
    with ray_cluster() as cluster, metadata_service() as address:
        going, staying = cluster.add_node(), cluster.add_node()
        environment = variables(cluster, going.node_id, METADATA=address, INTERVAL_S="0.2")
        script = subprocess.Popen(
            ["bash", str(SCRIPT)], env=environment, stdout=subprocess.PIPE, text=True
        )
        while Metadata.num_asked < 3:
            assert script.poll() is None
        assert {going.node_id, staying.node_id} <= set(cluster.alive())
        Metadata.is_noticed.set()
        said, _ = script.communicate(timeout=90)
        assert script.returncode == 0 and NOTICE in said
        wait_until_gone(cluster, going.node_id)  # it is idle, so it leaves at once
        assert staying.node_id in cluster.alive()
        # The preStop hook of a pod: at once, and it stays for the deadline.
        environment = variables(cluster, staying.node_id, DEADLINE_S="1")
        hook = subprocess.run(["bash", str(SCRIPT), "--now"], env=environment, check=False)
        assert hook.returncode == 0
        wait_until_gone(cluster, staying.node_id)


def test_a_cluster_that_is_gone_fails_the_hook(tmp_path: Path) -> None:
    ray = tmp_path / "ray"
    ray.write_text('#!/bin/sh\necho x >> "$HOME/calls"; exit 1\n')
    ray.chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    hook = subprocess.run(["bash", str(SCRIPT), "--now"], env=environment, check=False)
    assert hook.returncode == 1  # it does not wait for nothing
    assert (tmp_path / "calls").read_text() == "x\nx\n"
