"""An AWS account on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.accounts import forget_clients

REGION = "us-east-1"


@pytest.fixture
def aws_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A server of AWS's API whose account has nothing but its default network; gives its region."""
    import boto3
    from moto.backends import get_backend
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "owner",
        "AWS_SECRET_ACCESS_KEY": "of-the-account",
        "AWS_DEFAULT_REGION": REGION,
        "HOME": str(tmp_path),  # Ray writes the SSH key there
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    forget_clients()
    yield REGION
    forget_clients()
    # Servers of a process share their state: other tests have buckets that must stay.
    for name in ("ec2", "iam", "ssm", "sts", "servicequotas"):
        get_backend(name).reset()
    server.stop()
