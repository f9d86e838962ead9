"""Ray: whether it starts here, and whether the cluster of the run file answers."""

from __future__ import annotations

import os
import socket
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raydistill.machine.check import Check, first_line, in_other_process, missing, ok, warning
from raydistill.machine.versions import installed

_START_S, _ANSWER_S = 120.0, 60.0  # a busy machine takes 30 s to start Ray
_TOKEN, _TOKEN_FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_LOCAL = """
import json, os, ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
    logging_level="fatal", object_store_memory=80 << 20, _temp_dir=os.environ["RAY_TMPDIR"])
print(json.dumps({"answer": ray.get(ray.remote(lambda: 6 * 7).remote(), timeout=60)}))
"""
_REMOTE = """
import json, os, ray
ray.init(address=os.environ["RAYDISTILL_ADDRESS"], log_to_driver=False, logging_level="fatal")
nodes = [node for node in ray.nodes() if node["Alive"]]
total = ray.cluster_resources()
print(json.dumps({"nodes": len(nodes), "cores": total.get("CPU", 0), "gpus": total.get("GPU", 0)}))
"""


def check_ray(address: str | None, *, needs_ray: bool) -> Iterator[Check]:
    """Ray's version; that it starts; the token; that the cluster's address answers."""
    found = installed("ray")
    if found is None:
        if needs_ray:
            mend = "pip install 'raydistill[distill]'"
            yield missing("Ray", "is not installed", mend=mend)
        return
    yield ok("Ray", found)
    if address is None:
        yield _check_start()
        return
    yield _check_token()
    yield (
        _check_job_server(address)
        if "://" in address and not address.startswith("ray:")
        else (_check_cluster(address))
    )


def _environment(**more: str) -> dict[str, str]:
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    return {**os.environ, **quiet, **more}


def _check_start() -> Check:
    """Start a small Ray of its own in another process, with a token of its own."""
    # Ray's sockets are below this folder, and their paths have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rd", dir=os.environ.get("RAY_TMPDIR")) as folder:
        mine = {"RAY_AUTH_MODE": "token", _TOKEN: uuid.uuid4().hex * 2, "RAY_TMPDIR": folder}
        environment = _environment(**mine)
        environment.pop("RAY_ADDRESS", None)
        found = in_other_process(_LOCAL, timeout_s=_START_S, environment=environment)
    if found.get("answer") == 42:
        return ok("Ray", "a local Ray starts and runs a task")
    mend = "python -c 'import ray; ray.init()'"
    return missing("Ray", f"a local Ray does not start: {found.get('error', found)}", mend=mend)


def _check_token() -> Check:
    """Whether this machine has the cluster's token; its value is never shown."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode == "disabled":
        text = "RAY_AUTH_MODE=disabled: whoever reaches the head's ports runs code on the cluster"
        return warning("Ray's token", text, mend="export RAY_AUTH_MODE=token")
    file = os.environ.get(_TOKEN_FILE) or str(Path.home() / ".ray" / "auth_token")
    if os.environ.get(_TOKEN):
        return ok("Ray's token", f"in {_TOKEN}")
    if Path(file).is_file() and Path(file).stat().st_size:
        return ok("Ray's token", f"in {file}")
    mend = f"copy the head's token to {file}, and export RAY_AUTH_MODE=token"
    return warning("Ray's token", f"neither {_TOKEN} nor {file} has one", mend=mend)


def _check_cluster(address: str) -> Check:
    environment = _environment(RAYDISTILL_ADDRESS=address)
    found: dict[str, Any] = in_other_process(_REMOTE, timeout_s=_ANSWER_S, environment=environment)
    if "error" in found:
        mend = f"ray status --address {address}"
        return missing("cluster", f"no Ray at {address}: {found['error']}", mend=mend)
    text = f"{address}: {found['nodes']} machines, {found['cores']:g} CPUs, {found['gpus']:g} GPUs"
    return ok("cluster", text)


def _check_job_server(address: str) -> Check:
    """RAY_ADDRESS of `ray job submit` is the dashboard's URL: whether its port answers."""
    place = urlsplit(address)
    try:
        socket.create_connection((place.hostname or "", place.port or 8265), timeout=10).close()
    except OSError as error:
        text = f"nothing answers at {address}: {first_line(error)}"
        return missing("cluster", text, mend=f"curl -sS {address}/api/version")
    return ok("cluster", f"{address} answers; jobs are submitted there")
