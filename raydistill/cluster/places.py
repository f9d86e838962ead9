"""Which local paths the machines of the cluster see: checked by the driver, then on each machine.

The driver refuses a path that only one machine can see before any work. Each worker process then
looks once for the folders that its work needs.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from raydistill.config.cluster import ClusterConfig
from raydistill.errors import UserError
from raydistill.files.folder import MARKER
from raydistill.files.uris import without_scheme

_T = TypeVar("_T")
Node = Mapping[str, Any]
Named = tuple[str, str]  # the name of a setting, and the path or URI that it has
_PACKAGES = "runtime_resources"  # in Ray's session folder: working directories of jobs, unpacked
_GROUP = "ray.io/node-group"  # the label of nodes that a cluster launcher or KubeRay has started
_WAIT_S, _LOOK_EVERY_S = 10.0, 0.5  # a network file system shows a new file after some seconds

# On the driver: what the workers must see, as (folder, file inside it).
_needed: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("needed", default=())
# In a worker: what it has seen already.
_seen: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Machines:
    """The machines that run the work."""

    driver: str  # host names
    workers: frozenset[str]
    grows: str = ""  # why further ones may come; "" if none can

    @staticmethod
    def of(nodes: Sequence[Node], config: ClusterConfig) -> Machines:
        """Those of Ray's list of nodes that are alive and have cores or GPUs."""
        alive = [node for node in nodes if node["Alive"]]
        workers = [n for n in alive if any(n["Resources"].get(unit) for unit in ("CPU", "GPU"))]
        names = frozenset(node["NodeManagerHostname"] for node in workers)
        return Machines(socket.gethostname(), names, _why_it_grows(alive, config))

    @property
    def others(self) -> str:
        """Why a disk of the driver's machine is not enough; "" if it is."""
        if self.grows:
            return self.grows
        if not self.workers:
            return "this machine runs no work, and no other one is up"
        away = sorted(self.workers - {self.driver})
        if not away:
            return ""
        names = f"{', '.join(away[:3])}{' and others' if len(away) > 3 else ''}"
        return f"{names} {'work' if len(away) > 1 else 'works'} too"


def _why_it_grows(nodes: Sequence[Node], config: ClusterConfig) -> str:
    if any(_GROUP in node.get("Labels", {}) for node in nodes):
        return "machines of this cluster come and go"
    for unit, most in (("GPU", config.gpus), ("CPU", config.cpus)):
        now = sum(node["Resources"].get(unit, 0.0) for node in nodes)
        if most is not None and most > now:
            name = f"cluster.{unit.lower()}s"
            return f"{name} = {most} says that machines are added to its {now:.0f}"
    return ""


def package_folder() -> str:
    """The folder of this job's working-dir package; "" outside of a job with a package."""
    parts = Path.cwd().parts
    if not _is_in_package(parts):
        return ""
    return str(Path(*parts[: parts.index(_PACKAGES) + 3]))  # .../working_dir_files/_ray_pkg_<hash>


def _is_in_package(parts: Sequence[str]) -> bool:
    """Whether a path lies in `.../session_<time>/runtime_resources/`, in any temporary folder."""
    return any(
        name == _PACKAGES and above.startswith("session_") for above, name in pairwise(parts)
    )


def check_not_in_package(name: str, path: str, *, shared: Sequence[str] = ()) -> None:
    """Raise UserError if results would be written into Ray's copy of the working directory."""
    place = _local(path)
    if place is not None and _is_in_package(Path(place).parts):
        raise UserError(
            f"{name} = {path!r} would be {place}, in Ray's copy of --working-dir, which Ray "
            f"deletes: {_ways_out(path, shared=shared)}; on a cluster of one machine any absolute "
            "path will do"
        )


def check_places(
    outputs: Sequence[Named],
    inputs: Sequence[Named],
    config: ClusterConfig,
    *,
    machines: Machines | None = None,
) -> None:
    """Raise UserError if a machine of the cluster does not see a local path.

    Ray unpacks the working-dir package on every machine, so an input may lie there, an output may
    not.
    """
    for name, path in outputs:
        check_not_in_package(name, path, shared=config.shared_paths)
    others = (machines or _machines(config)).others
    if not others:
        return
    package = package_folder()
    seen = [*config.shared_paths, *([package] if package else [])]
    for name, path in (*outputs, *inputs):
        place = _local(path)
        if place is not None and not any(_is_below(place, folder) for folder in seen):
            raise UserError(
                f"{name} = {path!r} is on one machine, but {others}: "
                f"{_ways_out(path, shared=config.shared_paths)}"
            )


@contextmanager
def needing(outputs: Sequence[Named], inputs: Sequence[Named]) -> Iterator[None]:
    """Tasks and actors that are started inside look for these folders on their machines."""
    package = package_folder()
    folders = [str(Path(without_scheme(path)).absolute()) for _, path in outputs if _local(path)]
    needed = [(folder, MARKER) for folder in folders]
    places = filter(None, (_local(path) for _, path in inputs))
    if package and any(_is_below(place, package) for place in places):
        needed.append((package, ""))
    token = _needed.set(tuple(needed))
    try:
        yield
    finally:
        _needed.reset(token)


def _machines(config: ClusterConfig) -> Machines:
    import ray

    if config.address is None and not os.environ.get("RAY_ADDRESS"):  # a Ray of this process
        here = socket.gethostname()
        return Machines(here, frozenset([here]))
    nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
    return Machines.of(nodes, config)


def _ways_out(path: str, *, shared: Sequence[str]) -> str:
    name = Path(path.partition("*")[0]).name or "relevance"
    where = shared[0] if shared else "/mnt/efs"
    named = "" if shared else f', with cluster.shared_paths = ["{where}"]'
    return (
        f'give a place in a bucket, such as "s3://bucket/{name}", or one on a disk that all '
        f'machines mount, such as "{where}/{name}"{named}'
    )


def _local(path: str) -> str | None:
    """A local path, absolute and with links resolved; None for a URI."""
    path = without_scheme(path)
    return None if "://" in path else os.path.realpath(path)


def _is_below(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(os.path.realpath(folder))


# --- on the workers


def guarded(work: Callable[..., _T]) -> Callable[..., _T]:
    """`work`, which first looks whether its machine sees the folders of `needing`."""
    needed = _needed.get()
    return partial(_guarded, needed, _WAIT_S, work) if needed else work


def _guarded(
    needed: Sequence[tuple[str, str]],
    wait_s: float,
    work: Callable[..., _T],
    *args: Any,  # noqa: ANN401
) -> _T:
    for folder, file in needed:
        check_seen(folder, file, wait_s=wait_s)
    return work(*args)


def check_seen(folder: str, file: str, *, wait_s: float = _WAIT_S) -> None:
    """Check once in this process that its machine sees a file of a folder, or the folder.

    Raises:
        UserError: it does not, for `wait_s`; the message names the machine.
    """
    if (folder, file) in _seen:
        return
    path, until_s = Path(folder) / file, time.monotonic() + wait_s
    while not path.exists():
        if time.monotonic() > until_s:
            raise UserError(
                f"the machine {socket.gethostname()} does not see {path}: mount the same disk at "
                f"{folder} on every machine, take that machine away, or use a bucket (s3://)"
            )
        time.sleep(_LOOK_EVERY_S)
    _seen.add((folder, file))
