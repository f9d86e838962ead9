"""A Ray cluster of several machines, as processes on this one: a head, and nodes that come and go.

Each node is a `ray start --block` with a process group of its own; `kill` ends all its processes at
once with signal 9, as a lost machine does. A driver connects by `address` from another process, or
by `ray.init(address=...)`. `autoscaler` starts a head whose autoscaler (v2, Ray's fake provider)
adds and removes nodes itself; those are processes of the head's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.helpers.ports import free_port

_STORE_BYTES = 100 << 20
_START_S = 90.0
RAY = str(Path(sys.executable).with_name("ray"))
_HEAD_ID = "f" * 51 + "00000"  # the fake provider counts its nodes from here
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
AUTH = {"RAY_AUTH_MODE": "disabled"}  # of a cluster that listens on 127.0.0.1 for one test


@dataclass
class Node:
    """A raylet and what it started."""

    process: subprocess.Popen[bytes]
    node_id: str
    log: Path

    def kill(self) -> None:
        """End all processes of the node at once, without a word to the cluster."""
        for process in _family(self.process.pid):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()

    def freeze(self) -> None:
        """Stop all processes of the node, as if its host were cut off; `thaw` continues them."""
        for process in _family(self.process.pid):
            process.suspend()

    def thaw(self) -> None:
        """Continue the processes of the node."""
        for process in _family(self.process.pid):
            process.resume()

    def stop(self) -> None:
        """End the node as `ray stop` does."""
        family = _family(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        until_s = time.monotonic() + 10
        while any(_is_alive(p) for p in family) and time.monotonic() < until_s:
            self.process.poll()  # psutil.wait_procs fails where the kernel has no pidfd_open
            time.sleep(0.1)
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()


@dataclass
class RayCluster:
    """A head without cores, and the nodes that were added to it."""

    head: Node
    address: str
    temp_dir: Path
    environment: dict[str, str]
    nodes: list[Node] = field(default_factory=list)

    def add_node(self, *, num_cpus: int = 1, num_gpus: int = 0, core: int | None = None) -> Node:
        """Start a node and wait until the cluster has it; `core`: all its processes use that."""
        before = set(self.alive())
        options = [f"--address={self.address}", f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}"]
        log = self.temp_dir / f"node-{len(self.nodes)}.log"
        process = start_node(options, log=log, environment=self.environment, core=core)
        node_id = wait_for(lambda: next(iter(set(self.alive()) - before), None), log=log)
        node = Node(process, node_id, log)
        self.nodes.append(node)
        return node

    def alive(self) -> list[str]:
        """The ids of the nodes that the cluster believes to be alive, the head's among them."""
        infos = self._gcs().get_all_node_info()
        return [node_id.hex() for node_id, info in infos.items() if info.state == 0]

    def drain(self, node: Node, *, deadline_s: float) -> None:
        """Give notice that a node goes away in `deadline_s`, as a spot machine's provider does."""
        from ray.core.generated import autoscaler_pb2

        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline_ms = int(1_000 * (time.time() + deadline_s))
        accepted, why = self._gcs().drain_node(node.node_id, reason, "spot", deadline_ms)
        if not accepted:
            raise RuntimeError(f"not drained: {why}")

    def _gcs(self):  # noqa: ANN202 - without types
        from ray._raylet import GcsClient

        return GcsClient(address=self.address)

    def stop(self) -> None:
        """End all nodes and the head."""
        for node in (*self.nodes, self.head):
            node.stop()


@contextmanager
def ray_cluster(
    *,
    head_cpus: int = 0,
    environment: Mapping[str, str] | None = None,
    head_options: tuple[str, ...] = (),
    port: int | None = None,
) -> Iterator[RayCluster]:
    """A head on this machine; nodes are added by the caller.

    The temporary folder is directly in the system's one: a socket's path has at most 107 bytes.
    """
    temp_dir = Path(tempfile.mkdtemp(prefix="rd-"))
    port = port or free_port()
    variables = {**os.environ, **AUTH, "RAY_USAGE_STATS_ENABLED": "0", **(environment or {})}
    options = [
        *("--head", f"--port={port}", f"--num-cpus={head_cpus}", "--num-gpus=0"),
        *("--include-dashboard=false", f"--temp-dir={temp_dir}", *head_options),
    ]
    log = temp_dir / "head.log"
    process = start_node(options, log=log, environment=variables)
    cluster = RayCluster(Node(process, "", log), f"127.0.0.1:{port}", temp_dir, variables)
    before = os.environ.get("RAY_AUTH_MODE")
    os.environ.update(AUTH)
    try:
        cluster.head.node_id = wait_for(lambda: next(iter(_alive(cluster)), None), log=log)
        yield cluster
    finally:
        cluster.stop()
        if before is None:
            del os.environ["RAY_AUTH_MODE"]
        else:
            os.environ["RAY_AUTH_MODE"] = before
        shutil.rmtree(temp_dir, ignore_errors=True)


@contextmanager
def autoscaler(
    *,
    max_nodes: int,
    node: Mapping[str, float],
    idle_s: float = 3.0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[RayCluster]:
    """A head without cores whose autoscaler starts up to `max_nodes` machines like `node`.

    `node` is what each has, such as `{"CPU": 1, "GPU": 1}`. Machines without work for `idle_s`
    are removed.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="rd-") as folder:
        path = Path(folder) / "autoscaler.json"  # JSON is YAML
        path.write_text(json.dumps(_autoscaling(port, max_nodes, node, idle_s)))
        variables = {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
            "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
            "RAY_enable_autoscaler_v2": "1",
            **(environment or {}),
        }
        options = (f"--autoscaling-config={path}",)
        with ray_cluster(port=port, environment=variables, head_options=options) as cluster:
            yield cluster


def _autoscaling(
    port: int, max_nodes: int, node: Mapping[str, float], idle_s: float
) -> dict[str, object]:
    nothing: dict[str, object] = {
        "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [],
        "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
        "worker_setup_commands": [], "head_start_ray_commands": [],
        "worker_start_ray_commands": [], "file_mounts_sync_continuously": False,
        "rsync_exclude": [], "rsync_filter": [],
    }  # fmt: skip
    return {
        **nothing,
        "cluster_name": "fake",
        "max_workers": max_nodes,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": idle_s / 60,
        "provider": {
            "type": "external",
            "module": _PROVIDER,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": _HEAD_ID,
            "gcs_address": f"127.0.0.1:{port}",
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {**node, "object_store_memory": _STORE_BYTES},
                "node_config": {},
                "min_workers": 0,
                "max_workers": max_nodes,
            },
        },
    }


def _alive(cluster: RayCluster) -> list[str]:
    with socket.socket() as probe:  # a client of a server that is not there yet waits for a minute
        if probe.connect_ex(("127.0.0.1", int(cluster.address.rpartition(":")[2]))):
            return []
    return cluster.alive()


def start_node(
    options: list[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    core: int | None = None,
    within: tuple[str, ...] = (),
) -> subprocess.Popen[bytes]:
    command = [
        *within,
        *([] if core is None else ["taskset", "-c", str(core)]),
        *(RAY, "start", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
        *(f"--object-store-memory={_STORE_BYTES}", f"--dashboard-agent-listen-port={free_port()}"),
        *options,
    ]
    with log.open("wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=file, env=dict(environment), start_new_session=True
        )


def wait_for(find, *, log: Path) -> str:  # noqa: ANN001
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s:
        found = find()
        if found:
            return str(found)
        time.sleep(0.2)
    raise RuntimeError(f"Ray did not start: {log.read_text()[-2_000:]}")


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _family(pid: int) -> list[psutil.Process]:
    """A process and all that it started, the youngest first."""
    try:
        process = psutil.Process(pid)
        return [*reversed(process.children(recursive=True)), process]
    except psutil.NoSuchProcess:
        return []
