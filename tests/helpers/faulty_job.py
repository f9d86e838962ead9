"""A job in a process of its own on a cluster of processes, and what goes wrong around it.

The stage that is at work is seen from outside: by its lease, its files and its `_SUCCESS.json`. A
fault is inside a stage if the lease is there, and the stage is not complete right after the fault.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from pyarrow import fs

from tests.helpers.ray_cluster import AUTH, Node, RayCluster, ray_cluster
from tests.helpers.seaweed import Seaweed

ROOT = Path(__file__).parents[2]
STAGES = ("prepare", "label", "train")
# The lease of a stage, what it writes while it works, and its last file.
_MARKS = {
    "prepare": (r"_leases/prepare\.json", r"(pairs|judged)/", r"pairs/_SUCCESS\.json"),
    "label": (r"_leases/label-", r"logits/.*part-", r"logits/[^/]+/_SUCCESS\.json"),
    "train": (r"_leases/train\.json", r"(_fits|student)/", r"student/student-[^/]+/_SUCCESS\.json"),
}
# All commands in one process, as `distill` has them, without the report.
_JOB = """
import sys
from raydistill.cli.main import main
for stage in sys.argv[2].split(","):
    code = main([stage, "--config", sys.argv[1]])
    if code:
        sys.exit(code)
"""
# With Ray's defaults a silent node is dead after 30 to 60 s, and a job without a head after 60 s.
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
}
_WORKER = re.compile(r"^ray::(?!IDLE|DashboardAgent|RuntimeEnvAgent)")
_AT_WORK = re.compile("MapBatches|MapWorker|StepActor|apply|RayTrainWorker")
_LISTED_EVERY_S = 0.1
# What differs between two undisturbed runs: times, and the folder's own name.
_OF_THE_RUN = re.compile(r"run\.toml$|/tensorboard/|^_leases/|^report/")
# `stamp`: none while a raw file is so new that it could change unseen.
_TIMES = {"seconds", "rows_per_s", "tokens_per_s", "actor_us_per_pair", "created", "stamp"}
_ATTEMPT = {  # of the last attempt only
    "rows_scored",
    "tokens",
    "actors",
    "tried_again",
    "padding",
    "device",
    "dtype",
    "device_name",
    "out_of_memory",
    "lost_machines",
    "wasted_rows",
}


class Job:
    """One start of the job; its log goes to a file."""

    def __init__(
        self, config: Path, log: Path, *, environment: Mapping[str, str], stages: Sequence[str]
    ) -> None:
        """Start the commands of `stages` one after the other, on the cluster of `environment`."""
        self.log = log
        command = [sys.executable, "-c", _JOB, str(config), ",".join(stages)]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, env=dict(environment), cwd=ROOT,
                start_new_session=True,
            )  # fmt: skip

    def wait(self, timeout_s: float) -> int | None:
        """The exit code; None if the job still runs after `timeout_s`: it is then killed."""
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


class Listing:
    """The files of a run folder, listed again and again; local or on S3."""

    def __init__(self, uri: str, *, environment: Mapping[str, str]) -> None:
        """`environment` says where S3 is."""
        if uri.startswith("s3://"):
            self.files: fs.FileSystem = fs.S3FileSystem(
                access_key=environment["AWS_ACCESS_KEY_ID"],
                secret_key=environment["AWS_SECRET_ACCESS_KEY"],
                endpoint_override=environment["AWS_ENDPOINT_URL"],
                region=environment["AWS_DEFAULT_REGION"],
            )
        else:
            self.files = fs.LocalFileSystem()
        self.path = uri.removeprefix("s3://")
        self.seen: set[str] = set()  # files that were there once

    def now(self) -> dict[str, int]:
        """Each file below the folder, and when it was written (nanoseconds)."""
        selector = fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        infos = self.files.get_file_info(selector)
        cut = len(self.path) + 1
        found = {i.path[cut:]: i.mtime_ns for i in infos if i.type == fs.FileType.File}
        self.seen |= found.keys()
        return found

    def num_seen(self, stage: str) -> int:
        """How many files of a stage were there at some time."""
        return sum(bool(re.match(_MARKS[stage][1], name)) for name in self.seen)

    def is_at_work(self, stage: str, now: Mapping[str, int]) -> bool:
        """Whether a stage has its lease and is not complete."""
        lease, _, last = _MARKS[stage]
        has = [any(re.match(mark, name) for name in now) for mark in (lease, last)]
        return has == [True, False]

    def is_complete(self, stage: str, now: Mapping[str, int]) -> bool:
        """Whether a stage has written its last file."""
        return any(re.match(_MARKS[stage][2], name) for name in now)

    def wait_for(self, stage: str, num: int, *, job: Job, timeout_s: float) -> dict[str, int]:
        """Wait until a stage at work has written `num` files; its files; {}: it was too late."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s and job.process.poll() is None:
            now = self.now()
            if self.is_complete(stage, now):
                return {}
            if self.is_at_work(stage, now) and self.num_seen(stage) >= num:
                return now
            time.sleep(_LISTED_EVERY_S)
        return {}

    def contents(self) -> dict[str, str]:
        """The hash of each file's content, without times; no file that belongs to one run only."""
        names = [name for name in self.now() if not _OF_THE_RUN.search(name)]
        return {name: self._hash(name) for name in sorted(names)}

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with self.files.open_input_stream(f"{self.path}/{name}", compression=None) as stream:
            return bytes(stream.read())

    def _hash(self, name: str) -> str:
        data = self.read(name)
        if name.endswith(("_SUCCESS.json", "prepare.json")):
            data = json.dumps(_without_times(json.loads(data))).encode()
        return hashlib.blake2b(data, digest_size=16).hexdigest()


def _without_times(content: Any) -> Any:  # noqa: ANN401
    if isinstance(content, list):
        return [_without_times(one) for one in content]
    if isinstance(content, dict):
        kept = {name: one for name, one in content.items() if name not in _TIMES | _ATTEMPT}
        return {name: _without_times(one) for name, one in kept.items()}
    return content


@dataclass
class Machines:
    """The cluster and the S3 server that faults hit."""

    store: Seaweed | None
    environment: dict[str, str]
    num_nodes: int = 3
    cluster: RayCluster = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start a head without cores, and the nodes."""
        self._stack = ExitStack()
        variables = {**self.environment, **QUICK}
        self.cluster = self._stack.enter_context(ray_cluster(environment=variables))
        while len(self.cluster.nodes) < self.num_nodes:
            self.cluster.add_node()

    def stop(self) -> None:
        """End the cluster."""
        self._stack.close()

    def restart(self) -> None:
        """A new cluster in place of this one."""
        self.stop()
        self.start()

    def of_job(self) -> dict[str, str]:
        """The environment of a job."""
        variables = {**self.environment, **QUICK, **AUTH}
        return {**os.environ, **variables, "RAY_ADDRESS": self.cluster.address}

    def living(self) -> list[Node]:
        """The nodes whose raylet runs and that the cluster believes in."""
        alive = set(self.cluster.alive())
        return [n for n in self.cluster.nodes if n.process.poll() is None and n.node_id in alive]

    def fill(self) -> None:
        """Add nodes until there are as many as at the start."""
        while len(self.living()) < self.num_nodes:
            self.cluster.add_node()


def workers(node: Node) -> list[psutil.Process]:
    """The worker processes of a node that do something."""
    found = []
    for process in psutil.Process(node.process.pid).children(recursive=True):
        try:
            if _WORKER.match(" ".join(process.cmdline())):
                found.append(process)
        except psutil.Error:
            continue
    return found


def busy_node(machines: Machines, rng: random.Random) -> Node:
    """A node at random: of those that compute, else of those with any process of the job."""
    nodes = machines.living()
    at_work = [node for node in nodes if _AT_WORK.search(_names(node))]
    return rng.choice(at_work or [node for node in nodes if workers(node)] or nodes)


# --- the faults: each does its harm at once, and returns what was hit and how it is mended

Mend = Callable[[], None]
Fault = Callable[[Machines, Job, random.Random], tuple[str, Mend]]


def _end_job(number: signal.Signals) -> Fault:
    def fault(machines: Machines, job: Job, rng: random.Random) -> tuple[str, Mend]:
        job.process.send_signal(number)
        return f"process {job.process.pid}", lambda: None

    return fault


def _kill_worker(machines: Machines, job: Job, rng: random.Random) -> tuple[str, Mend]:
    found = [worker for node in machines.living() for worker in workers(node)]
    if not found:
        return "no worker yet", lambda: None
    worker = rng.choice(found)
    name = " ".join(worker.cmdline())[:40]
    worker.kill()
    return f"process {worker.pid} {name}", lambda: None


def _kill_node(machines: Machines, job: Job, rng: random.Random) -> tuple[str, Mend]:
    node, wait_s = busy_node(machines, rng), rng.uniform(2, 5)
    names = _names(node)
    node.kill()

    def mend() -> None:
        time.sleep(wait_s)
        machines.fill()

    return f"{node.node_id[:8]} with {names}, a new one after {wait_s:.0f} s", mend


def _drain_node(machines: Machines, job: Job, rng: random.Random) -> tuple[str, Mend]:
    node, deadline_s = busy_node(machines, rng), rng.uniform(3, 15)
    names = _names(node)
    machines.cluster.drain(node, deadline_s=deadline_s)

    def mend() -> None:
        time.sleep(deadline_s)
        node.kill()
        machines.fill()

    return f"{node.node_id[:8]} with {names}, killed after {deadline_s:.0f} s", mend


def _freeze_node(machines: Machines, job: Job, rng: random.Random) -> tuple[str, Mend]:
    node = busy_node(machines, rng)
    names = _names(node)
    node.freeze()

    def mend() -> None:  # when it goes on, its cluster has replaced it
        until_s = time.monotonic() + 60
        while node.node_id in machines.cluster.alive() and time.monotonic() < until_s:
            time.sleep(0.5)
        node.thaw()
        machines.fill()

    return f"{node.node_id[:8]} with {names}", mend


def _restart_store(machines: Machines, job: Job, rng: random.Random) -> tuple[str, Mend]:
    store, down_s = machines.store, rng.uniform(3, 10)
    if store is None:
        raise ValueError("no S3 server to restart")
    store.kill()

    def mend() -> None:
        time.sleep(down_s)
        store.start()

    return f"down {down_s:.0f} s, then starting", mend


def _kill_head(machines: Machines, job: Job, rng: random.Random) -> tuple[str, Mend]:
    head = machines.cluster.head
    head.kill()

    def mend() -> None:  # a job notices that by itself
        job.wait(90)
        machines.restart()

    return f"{head.node_id[:8]}", mend


FAULTS: dict[str, Fault] = {
    "driver_kill": _end_job(signal.SIGKILL),
    "driver_term": _end_job(signal.SIGTERM),
    "worker_kill": _kill_worker,
    "node_kill": _kill_node,
    "node_drain": _drain_node,
    "node_freeze": _freeze_node,
    "store_restart": _restart_store,
    "head_kill": _kill_head,
}


def _names(node: Node) -> str:
    names = []
    for worker in workers(node):
        try:
            names.append(worker.cmdline()[0].removeprefix("ray::")[:30])
        except (psutil.Error, IndexError):
            continue
    return ", ".join(sorted(names)) or "no work"


@dataclass
class Outcome:
    """What a disturbed run came to."""

    stage: str = ""
    fault: str = ""
    moment: str = ""
    hit: str = ""
    is_inside: bool = False
    attempts: int = 0
    codes: list[int | None] = field(default_factory=list)
    seconds: float = 0.0
    wasted_rows: int | None = None  # that `label` says its last attempt lost
    differences: list[str] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """Whether the last attempt ended with exit code 0, and none hung."""
        return bool(self.codes) and self.codes[-1] == 0 and None not in self.codes


def differences(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Files that are missing, that nobody expects, or that differ."""
    return [
        *(f"missing: {name}" for name in sorted(expected.keys() - found.keys())),
        *(f"unexpected: {name}" for name in sorted(found.keys() - expected.keys())),
        *(f"different: {n}" for n in sorted(found.keys() & expected) if found[n] != expected[n]),
    ]


def written_again(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """The shards of pairs' logits that were there at the fault and were written once more."""
    is_logits = re.compile(_MARKS["label"][1])
    return [n for n, at in before.items() if is_logits.match(n) and after.get(n) != at]


def wasted_rows(listing: Listing) -> int | None:
    """The pairs that were scored and lost, as the last attempt of `label` counted them."""
    done = [n for n in listing.now() if re.match(_MARKS["label"][2], n)]
    return json.loads(listing.read(done[0])).get("wasted_rows") if done else None
