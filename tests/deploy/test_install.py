"""The set-up commands of cluster.yaml and the steps of deploy/Dockerfile, run as they stand.

Each has a home of its own. All packages take minutes, so `make test` has pip install our package
alone and lends it the others of this environment; RAYDISTILL_FULL_INSTALL=1 installs them all. That
the pins fit together is checked without an installation.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.bundles import make_bundle

ROOT = Path(__file__).parents[2]
IS_FULL = os.environ.get("RAYDISTILL_FULL_INSTALL") == "1"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]
PACKAGES = Path(yaml.__file__).parents[1]
# Ray's launcher runs a command like this, on the machine (autoscaler/_private/command_runner.py).
AS_RAY_DOES = "source ~/.bashrc; export OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore && ({command})"


def cluster_file() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return config


def set_up_commands() -> list[str]:
    commands: list[str] = cluster_file()["head_setup_commands"]
    assert cluster_file()["worker_setup_commands"] == commands
    return commands


def environment(home: Path) -> dict[str, str]:
    """Of a machine that has just started: no virtual environment, no variables of Python or Ray."""
    ours = ("PYTHON", "VIRTUAL_ENV", "RAY", "PYTEST", "COV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    folders = kept["PATH"].split(os.pathsep)
    kept["PATH"] = os.pathsep.join(
        one for one in folders if one != str(Path(sys.executable).parent)
    )
    kept["HOME"] = str(home)
    # The library of this machine, where it has been made; the compiled functions.
    kept["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    if not IS_FULL:  # pip reads "no build isolation = 0" as "no isolation"
        kept |= {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
    return kept


def lend_packages(environment_folder: Path) -> None:
    """Let a new environment see the packages of this one, except the project's own."""
    (site,) = environment_folder.glob("lib/python*/site-packages")
    if not IS_FULL:
        # Before its own: the setuptools of a new environment is too old to build the package.
        (site / "lent.pth").write_text(f"import sys; sys.path.insert(0, {str(PACKAGES)!r})\n")


def scores(python: Path, tmp_path: Path, environment: dict[str, str]) -> list[str]:
    """What the command of an installation says of two pairs; it must be that installation's."""
    bundle = make_bundle(tmp_path / "bundle")
    where = [str(python), "-c", "import raydistill; print(raydistill.__file__)"]
    found = subprocess.run(where, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout.startswith(str(python.parents[1])), found.stdout + found.stderr
    command = [
        str(python.with_name("raydistill")),
        "score",
        "--bundle",
        str(bundle),
        "--input",
        "-",
    ]
    scored = subprocess.run(
        command,
        input="grey sofa\tSofa, grey\ngrey sofa\toak table\n",
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert scored.returncode == 0, scored.stderr
    return scored.stdout.split("\n")[:2]


# --- cluster.yaml


def copy_mounts(home: Path) -> None:
    for remote, local in cluster_file()["file_mounts"].items():
        target = Path(remote.replace("~", str(home)))
        target.parent.mkdir(parents=True, exist_ok=True)
        if local.startswith("~"):
            target.write_text("a token")
        elif (ROOT / local).is_dir():
            skipped = shutil.ignore_patterns(*cluster_file()["rsync_exclude"], "lib")
            shutil.copytree(ROOT / local, target, ignore=skipped)
        else:
            shutil.copy(ROOT / local, target)


def write_command(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def run_as_ray_does(command: str, *, variables: dict[str, str]) -> None:
    words = ["bash", "--login", "-c", "-i", AS_RAY_DOES.format(command=command)]
    found = subprocess.run(
        words, env=variables, cwd=variables["HOME"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, f"{command}\n{found.stdout}\n{found.stderr}"


def test_the_set_up_commands_make_an_installation_that_scores(tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy_mounts(home)
    # The machine's Python is this one, whose packages are lent.
    write_command(tmp_path / "bin/python3", f'exec {sys._base_executable} "$@"')
    (home / ".bashrc").write_text(f"PATH={tmp_path}/bin:$PATH\n")
    variables = environment(home)
    commands = set_up_commands()
    for command in commands:
        run_as_ray_does(command, variables=variables)
        lend_packages(home / "venv")
    python = home / "venv/bin/python"
    assert len(scores(python, tmp_path, variables)) == 2
    for command in commands:  # `ray up` again runs them again
        run_as_ray_does(command, variables=variables)
    assert (home / ".bashrc").read_text().count("RAY_AUTH_MODE=token") == 1
    check = 'test "$RAY_AUTH_MODE" = token -a "$(command -v raydistill)" = ~/venv/bin/raydistill'
    run_as_ray_does(check, variables=variables)


@pytest.mark.parametrize("has_gpu", [True, False])
def test_only_machines_without_a_gpu_read_where_torch_without_cuda_is(
    tmp_path: Path, *, has_gpu: bool
) -> None:
    """Two stand-ins: pip writes down its arguments, NVIDIA's tool says whether there is a GPU."""
    (command,) = (line for line in set_up_commands() if "constraints.txt" in line)
    write_command(
        tmp_path / "venv/bin/pip", 'printf "%s\\n" "$@" "config=$PIP_CONFIG_FILE" > ~/arguments'
    )
    write_command(tmp_path / "bin/nvidia-smi", f"exit {0 if has_gpu else 9}")
    (tmp_path / ".bashrc").write_text(f"PATH={tmp_path}/bin:$PATH\n")
    run_as_ray_does(command, variables=environment(tmp_path))
    arguments = (tmp_path / "arguments").read_text().split("\n")
    file = f"{tmp_path}/raydistill/pip_without_gpu.conf"
    assert (f"config={file}" in arguments) is not has_gpu
    assert Path(file).relative_to(tmp_path).as_posix() in {
        remote.removeprefix("~/") for remote in cluster_file()["file_mounts"]
    }
    assert f"{tmp_path}/raydistill[distill]" in arguments


def test_pip_reads_the_file_for_machines_without_a_gpu(tmp_path: Path) -> None:
    """As it is, and with the line that a user makes of its last one."""
    text = (ROOT / "deploy/pip_without_gpu.conf").read_text()
    address = "https://torch.example/cpu"
    filled = text.replace("# extra-index-url = ADDRESS", f"extra-index-url = {address}")
    for content, says in ((text, ""), (filled, f"global.extra-index-url='{address}'")):
        (tmp_path / "pip.conf").write_text(content)
        command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
        names = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        variables = {**names, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
        found = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        assert [line for line in found.stdout.splitlines() if "extra-index" in line] == (
            [says] if says else []
        )


# --- Dockerfile

_STEP = re.compile(r"^(FROM|ARG|ENV|WORKDIR|COPY|RUN)\s+(.*)$")


def docker_steps() -> list[tuple[str, str]]:
    """The instructions; a line that none of them begins fails the test."""
    text = (ROOT / "deploy/Dockerfile").read_text()
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    steps = []
    for line in filter(str.strip, lines):
        found = _STEP.match(line)
        assert found is not None, line
        steps.append((found[1], found[2]))
    return steps


def image_path(root: Path, work_dir: str, path: str) -> Path:
    return root / (path if path.startswith("/") else f"{work_dir}/{path}").lstrip("/")


def test_the_steps_of_the_image_make_an_installation_that_scores(tmp_path: Path) -> None:
    """A virtual environment stands for the base image; installing a linker is left to apt."""
    root, work_dir = tmp_path / "image", "/"
    python = tmp_path / "base/bin/python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "base")], check=True)
    lend_packages(tmp_path / "base")
    variables = environment(tmp_path)
    variables["PATH"] = f"{python.parent}{os.pathsep}{variables['PATH']}"
    for step, text in docker_steps():
        if step in ("ARG", "ENV"):
            name, _, value = text.partition("=")
            variables[name] = value.strip('"')
        elif step == "WORKDIR":
            work_dir = text
            image_path(root, work_dir, ".").mkdir(parents=True, exist_ok=True)
        elif step == "COPY":
            *sources, target = text.split()
            for source in sources:
                copy(ROOT / source, image_path(root, work_dir, target))
        elif step == "RUN" and not is_left_out(text):
            subprocess.run(
                ["/bin/sh", "-c", text],
                cwd=image_path(root, work_dir, "."),
                env=variables,
                check=True,
            )
    assert len(scores(python, tmp_path, variables)) == 2


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        skipped = shutil.ignore_patterns("__pycache__", "lib")
        shutil.copytree(source, target, ignore=skipped, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def is_left_out(command: str) -> bool:
    """apt needs root; the library takes a minute and has its own tests (tests/serving/native)."""
    return "sudo" in command or (not IS_FULL and "native.emit" in command)


def test_the_image_is_of_the_pinned_ray_and_copies_what_there_is() -> None:
    steps = docker_steps()
    pins = pinned()
    assert steps[0] == ("FROM", f"rayproject/ray:{pins['ray']}-py311")
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    for step, text in steps:
        if step == "COPY":
            for source in text.split()[:-1]:
                assert (ROOT / source).exists() and f"!{source}" in ignored, source


# --- pins


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def needed(requirement: Requirement) -> list[Requirement]:
    """What a requirement needs in its turn, on a cluster's Linux machine."""
    asked = requirement.extras or {""}
    return [
        one
        for one in map(Requirement, distribution(requirement.name).requires or [])
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in asked)
    ]


def test_everything_that_a_cluster_installs_is_pinned_and_fits() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["numba"], *extras["distill"], "boto3"]
    queue = [one for one in map(Requirement, wanted) if one.name != "raydistill"]
    pins, seen = pinned(), set()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name == "setuptools":  # torch's; `pip freeze` leaves it out
            continue
        assert name in pins, f"{requirement} has no pin in constraints.txt"
        assert requirement.specifier.contains(pins[name], prereleases=True), requirement
        key = (name, frozenset(requirement.extras))
        if key not in seen:
            seen.add(key)
            queue += needed(requirement)
    assert len(seen) > 60
