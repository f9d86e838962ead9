"""A head of Ray that takes jobs, of those who have its token, as processes on this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.ports import free_port
from tests.helpers.ray_cluster import RAY, Node, start_node, wait_for


@dataclass
class JobServer:
    """A head with cores and a dashboard, whose ports want a token."""

    head: Node
    url: str
    gcs: str
    temp_dir: Path
    token: str
    environment: dict[str, str]

    def ask(self, path: str, *, body: dict[str, Any] | None = None, method: str = "GET") -> Any:  # noqa: ANN401
        """The answer of the dashboard's interface of jobs."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{self.url}/{path}", data=data, headers=headers, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def add_machine(self, name: str, *, without: Path, num_cpus: int = 2) -> Node:
        """A node with a host name of its own, on which the folder `without` is empty.

        Needs the right to make namespaces: see `can_make_machines`.
        """
        log = self.temp_dir / f"{name}.log"
        options = [f"--address={self.gcs}", f"--num-cpus={num_cpus}", "--num-gpus=0"]
        # Ray's copies of working directories too: two machines would unpack them in one place.
        (session,) = self.temp_dir.glob("session_2*")
        folders = (without, session / "runtime_resources")
        mounts = "".join(f'mount -t tmpfs none "{folder}" && ' for folder in folders)
        script = f'hostname {name} && {mounts}exec "$@"'
        within = ("unshare", "--uts", "--mount", "sh", "-c", script, "sh")
        node = Node(
            start_node(options, log=log, environment=self.environment, within=within), "", log
        )
        wait_for(lambda: name if name in self.hosts() else None, log=log)
        return node

    def hosts(self) -> list[str]:
        """The host names of the living nodes."""
        found = self.ask("nodes?view=hostNameList")
        return list(found["data"]["hostNameList"])

    def submit(self, command: str, *, package: str | None = None, num_cpus: int = 0) -> str:
        """Start a job, in a package that is there already; returns the job's id.

        `num_cpus`: what its driver holds.
        """
        body = {
            "entrypoint": command,
            "runtime_env": {} if package is None else {"working_dir": package},
            "entrypoint_num_cpus": num_cpus,
        }  # fmt: skip
        return str(self.ask("api/jobs/", body=body, method="POST")["submission_id"])

    def stop_job(self, job: str) -> None:
        """As `ray job stop`."""
        self.ask(f"api/jobs/{job}/stop", method="POST")

    def log(self, job: str) -> str:
        """What a job has printed so far."""
        return str(self.ask(f"api/jobs/{job}/logs")["logs"])

    def hold(self, *, num_cpus: int, package: str) -> str:
        """Take cores of a node that has so many, until the job that is returned is stopped."""
        job = self.submit("sleep 600", package=package, num_cpus=num_cpus)
        state = lambda: self.ask(f"api/jobs/{job}")["status"]  # noqa: E731
        return wait_for(
            lambda: job if state() == "RUNNING" else None, log=self.temp_dir / "head.log"
        )

    def wait(self, job: str, *, timeout_s: float = 120.0) -> dict[str, Any]:
        """What Ray says of a job that has ended."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            found: dict[str, Any] = self.ask(f"api/jobs/{job}")
            if found["status"] in ("SUCCEEDED", "FAILED", "STOPPED"):
                return found
            time.sleep(0.2)
        raise RuntimeError(f"{job} has not ended: {self.log(job)[-2_000:]}")


@contextmanager
def job_server(
    *, num_cpus: int = 4, environment: Mapping[str, str] | None = None
) -> Iterator[JobServer]:
    """A head that takes jobs with token authentication; this process does not connect to it."""
    temp_dir = Path(tempfile.mkdtemp(prefix="rd-"))
    token, port, gcs_port = secrets.token_hex(32), free_port(), free_port()
    (temp_dir / "token").write_text(token)
    variables = {
        **os.environ,
        **{"PATH": f"{Path(RAY).parent}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"},
        **{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(temp_dir / "token")},
        **(environment or {}),
    }
    options = [
        *("--head", f"--port={gcs_port}", f"--num-cpus={num_cpus}", "--num-gpus=0"),
        *("--include-dashboard=true", f"--dashboard-port={port}", f"--temp-dir={temp_dir}"),
    ]
    log = temp_dir / "head.log"
    head = Node(start_node(options, log=log, environment=variables), "", log)
    urls = f"http://127.0.0.1:{port}", f"127.0.0.1:{gcs_port}"
    server = JobServer(head, *urls, temp_dir, token, variables)
    try:
        wait_for(lambda: _takes_jobs(server), log=log)
        yield server
    finally:
        head.stop()
        shutil.rmtree(temp_dir, ignore_errors=True)


def _takes_jobs(server: JobServer) -> bool:
    """Whether a job ran. The head lists jobs before its agent is up, which runs them."""
    try:
        return bool(server.wait(server.submit("true"))["status"] == "SUCCEEDED")
    except OSError:  # no answer, or an error as answer
        return False


def can_make_machines() -> bool:
    """Whether this process may make namespaces of host names and mounts."""
    command = ["unshare", "--uts", "--mount", "sh", "-c", "hostname x && mount -t tmpfs none /mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(command, check=False).returncode == 0
