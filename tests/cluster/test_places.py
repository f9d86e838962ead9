"""Which places of a run are refused: each row of the table in docs/operations.md."""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from raydistill.cli.main import main
from raydistill.cluster import places
from raydistill.cluster.places import Machines, check_not_in_package, check_places
from raydistill.config.cluster import ClusterConfig
from raydistill.errors import UserError

HERE = socket.gethostname()


def node(host: str = HERE, *, cpus: int = 2, gpus: int = 0, group: str = "") -> dict[str, Any]:
    units = {"CPU": cpus, "GPU": gpus}
    return {
        "Alive": True,
        "NodeManagerHostname": host,
        "Resources": {name: float(value) for name, value in units.items() if value},
        "Labels": {"ray.io/node-group": group} if group else {},
    }


def refusal(
    path: str, nodes: list[dict[str, Any]], *, inputs: tuple[str, ...] = (), **config: object
) -> str:
    """The error text for a run folder and inputs on a cluster; "" if they are accepted."""
    settings = ClusterConfig(**config)
    named = [("pairs.input", one) for one in inputs]
    try:
        check_places([("run_dir", path)], named, settings, machines=Machines.of(nodes, settings))
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a job, in any temporary folder of Ray's."""
    folder = tmp_path / "tmp/session_2026-11-27_13-13-00_8_1/runtime_resources"
    folder = folder / "working_dir_files/_ray_pkg_825340a6342af0ba"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_one_machine_takes_any_path() -> None:
    for path in ("runs/x", "/data/x", "~/x", "s3://bucket/x"):
        assert refusal(path, [node()], inputs=("data/*.csv",)) == ""
        assert refusal(path, [node(cpus=0), node(), node()]) == ""  # several nodes of Ray's on it


def test_a_place_in_rays_package_is_refused_everywhere(package: Path) -> None:
    for path in ("runs/x", f"{package}/x", f"file://{package}/x"):
        error = refusal(path, [node()])
        assert error.startswith(f"run_dir = {path!r} would be ") and str(package) in error
        assert '"s3://bucket/x"' in error and 'cluster.shared_paths = ["/mnt/efs"]' in error
        assert refusal(path, [node()], shared_paths=("/mnt/efs", "/")) != ""
    assert refusal("/data/x", [node()]) == ""
    assert refusal("s3://bucket/x", [node()]) == ""
    with pytest.raises(UserError, match="--output = 'out'"):
        check_not_in_package("--output", "out")


def test_a_made_up_shop_is_not_written_into_rays_package(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["synthesize", "--output", "shop"]) == 2
    assert "--output = 'shop' would be " in capsys.readouterr().err
    assert not list(package.iterdir())


def test_a_link_into_the_package_is_found(package: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(package)
    assert "Ray's copy" in refusal(f"{tmp_path}/link/x", [node()])


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([node(), node("gpu-1")], "gpu-1 works too"),
        ([node(cpus=0), node("gpu-1"), node("gpu-2")], "gpu-1, gpu-2 work too"),
        ([node(), *(node(f"gpu-{n}") for n in range(5))], "gpu-0, gpu-1, gpu-2 and others work"),
        ([node(cpus=0)], "this machine runs no work"),
        ([node(group="head")], "come and go"),
    ],
)
def test_a_local_path_on_several_machines_is_refused(nodes: list[dict[str, Any]], why: str) -> None:
    error = refusal("/data/x", nodes)
    assert error.startswith("run_dir = '/data/x' is on one machine, but ") and why in error
    assert '"s3://bucket/x"' in error and 'cluster.shared_paths = ["/mnt/efs"]' in error
    assert refusal("s3://bucket/x", nodes) == ""
    assert refusal("/mnt/efs/x", nodes, shared_paths=("/mnt/efs",)) == ""
    elsewhere = refusal("/mnt/efs2/x", nodes, shared_paths=("/mnt/efs",))
    assert '"/mnt/efs/x"' in elsewhere and "cluster.shared_paths" not in elsewhere


def test_a_dead_machine_is_none() -> None:
    assert refusal("/data/x", [node(), {**node("gone"), "Alive": False}]) == ""


def test_a_cluster_that_is_said_to_grow_is_several_machines() -> None:
    error = refusal("/data/x", [node(cpus=2)], gpus=8)
    assert "cluster.gpus = 8 says that machines are added to its 0" in error
    assert "cluster.cpus = 64" in refusal("/data/x", [node(cpus=2)], cpus=64)
    assert refusal("/data/x", [node(cpus=2, gpus=8)], gpus=8, cpus=2) == ""


def test_inputs_are_refused_like_run_folders_but_may_come_with_the_package(package: Path) -> None:
    nodes, run = [node(), node("gpu-1")], "s3://bucket/x"
    assert refusal(run, nodes, inputs=("data/*.parquet",)) == ""  # Ray unpacks it everywhere
    assert refusal(run, nodes, inputs=("s3://bucket/*.parquet",)) == ""
    assert "pairs.input = '/data/*.parquet'" in refusal(run, nodes, inputs=("/data/*.parquet",))
    assert refusal(run, nodes, inputs=("/mnt/x/*",), shared_paths=("/mnt",)) == ""


def test_shared_paths_are_absolute() -> None:
    with pytest.raises(ValueError, match="'efs' is no absolute path"):
        ClusterConfig(shared_paths=("efs",))


# --- on the workers


def test_work_looks_once_for_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_WAIT_S", 0.1)
    monkeypatch.setattr(places, "_seen", set())
    with places.needing([("run_dir", str(tmp_path))], []):
        work = places.guarded(lambda one, two: one + two)
    with pytest.raises(UserError, match=f"the machine {HERE} does not see {tmp_path}/_RAYDISTILL"):
        work(1, 2)
    (tmp_path / "_RAYDISTILL.json").touch()
    assert work(1, 2) == 3
    (tmp_path / "_RAYDISTILL.json").unlink()
    assert work(1, 2) == 3  # once a process


def test_a_new_file_may_take_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_seen", set())
    monkeypatch.setattr(places, "_LOOK_EVERY_S", 0.02)

    def appear() -> None:
        time.sleep(0.1)
        (tmp_path / "_RAYDISTILL.json").touch()

    thread = threading.Thread(target=appear)
    thread.start()
    places.check_seen(str(tmp_path), "_RAYDISTILL.json")
    thread.join()


def test_work_on_a_bucket_looks_for_nothing(package: Path) -> None:
    def work() -> None: ...

    with places.needing([("run_dir", "s3://bucket/x")], [("pairs.input", "s3://bucket/*")]):
        assert places.guarded(work) is work
    with places.needing([("run_dir", "s3://bucket/x")], [("pairs.input", "data/*.csv")]):
        places.guarded(work)()  # the package is there
    assert (str(package), "") in places._seen
    assert places.guarded(work) is work
