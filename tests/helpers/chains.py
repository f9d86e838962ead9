"""A driver whose items take a given time, for tests of clusters that change while it works.

`python -m tests.helpers.chains ADDRESS FOLDER '{"seconds": [0.5, 0.5], "gpus": 0}'` prints a line
of JSON for each result, and one at the end. An actor writes a file into `began`, one into `done`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers.ray_cluster import RayCluster

_ROOT = Path(__file__).parents[2]


class Driver:
    """The process, and what it has printed."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self.folder = process, folder
        self.done: list[int] = []
        self.start_s = 0.0  # when the items were handed in, by `time.time`
        self.end: dict[str, Any] = {}

    def wait_for(self, num: int) -> None:
        """Return when `num` items are done."""
        while len(self.done) < num:
            self._read()

    def finish(self) -> dict[str, Any]:
        """What the driver says at its end."""
        while not self.end:
            self._read()
        return self.end

    def began(self) -> list[tuple[int, str]]:
        """The item and the machine of each start of an item in an actor, in order."""
        files = sorted((self.folder / "began").iterdir(), key=lambda file: file.stat().st_mtime)
        return [(int(name[0]), name[1]) for file in files if (name := file.name.split("-"))]

    def _read(self) -> None:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError((self.folder / "stderr").read_text()[-3_000:])
        if line.startswith("{"):
            said = json.loads(line)
            if "at" in said:
                self.done.append(said["at"])
            elif "start_s" in said:
                self.start_s = said["start_s"]
            else:
                self.end = said


@contextmanager
def chain(
    cluster: RayCluster, folder: Path, seconds: list[float], **settings: object
) -> Iterator[Driver]:
    """A driver on a cluster, one item for each of `seconds`; below 0: it ends its process."""
    for name in ("began", "done"):
        (folder / name).mkdir(parents=True)
    given = json.dumps({"seconds": seconds, **settings})
    command = [sys.executable, "-m", "tests.helpers.chains", cluster.address, str(folder), given]
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            command, env=driver_environment(cluster), cwd=_ROOT, text=True,
            stdout=subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
        try:
            yield Driver(process, folder)
        finally:
            process.kill()
            process.wait()


def driver_environment(cluster: RayCluster) -> dict[str, str]:
    """The environment of a driver on a cluster."""
    return {**cluster.environment, "RAY_ADDRESS": cluster.address, "PYTHONPATH": str(_ROOT)}


def expected(seconds: list[float]) -> dict[str, bytes]:
    """The files in `done` of a chain that nothing disturbed."""
    return {str(at): content(at) for at, s in enumerate(seconds) if s >= 0}


def content(at: int) -> bytes:
    """What an item writes."""
    return f"item {at} ".encode() * 1_000


def main(address: str, folder: Path, given: Mapping[str, Any]) -> None:
    """Run the chain, or the same as tasks."""
    import logging

    import ray

    from raydistill.cluster.connection import connect
    from raydistill.cluster.pools.pieces import Losses
    from raydistill.cluster.tasks import run_chain, run_tasks
    from raydistill.config.cluster import ClusterConfig

    logging.basicConfig(level=logging.INFO)
    connect(ClusterConfig(address=address, cpus=given.get("cpus")))

    def work(item: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        at, node = item["at"], ray.get_runtime_context().get_node_id()
        (folder / "began" / f"{at}-{node}-{uuid.uuid4().hex}").touch()
        if item["s"] < 0:
            os._exit(1)
        time.sleep(item["s"])
        return item, data

    def write(item: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        path = folder / "done" / str(item["at"])
        path.with_suffix(".tmp").write_bytes(bytes(data))
        path.with_suffix(".tmp").rename(path)
        return item, b""

    def whole(item: dict[str, Any]) -> dict[str, Any]:
        return write(*work(item, content(item["at"])))[0]

    items = [{"at": at, "s": s} for at, s in enumerate(given["seconds"])]
    losses, failed = Losses(), dict[int, str]()
    print(json.dumps({"start_s": time.time()}), flush=True)
    if given.get("tasks"):
        results = run_tasks(items, whole, cpus=1)
    else:
        results = run_chain(
            items,
            before=lambda item, _: (item, content(item["at"])),
            make=lambda: work,
            after=write,
            num_actors=given.get("num_actors", 3),
            gpus=given.get("gpus", 0.0),
            on_lost=lambda item, cause: failed.update({item["at"]: cause}),
            losses=losses,
        )
    for result in results:
        print(json.dumps({"at": result["at"]}), flush=True)
    wasted = [item["at"] for item in losses.wasted]
    end = {"wasted": wasted, "machines": sorted(losses.machines), "failed": failed}
    print(json.dumps(end), flush=True)
    time.sleep(given.get("stay_s", 0.0))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
