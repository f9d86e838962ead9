"""The commands of bindings/README.md build programs as they are written."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bindings.golden import cargo_of_this_machine, check_scores

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
BINDINGS = Path(__file__).parents[2] / "bindings"
COMMANDS = re.findall(r"^\(?(?:cc|c\+\+|cd) .*$", (BINDINGS / "README.md").read_text(), re.M)
CARGO = Path(cargo_of_this_machine() or "/none/cargo")


@pytest.mark.parametrize("command", COMMANDS, ids=["c", "cpp", "rust", "go"])
def test_a_command_builds_a_program(
    command: str, bundle_folder: Path, native_folder: Path, tmp_path: Path
) -> None:
    path = f"{os.environ['PATH']}{os.pathsep}{CARGO.parent}"
    (tool,) = re.findall(r"\b(?:c\+\+|cc|cargo|go)(?= (?:-|build))", command)
    if shutil.which(tool, path=path) is None:
        pytest.skip(f"no {tool} on this machine")
    shutil.copytree(BINDINGS, tmp_path / "bindings", ignore=shutil.ignore_patterns("target"))
    settings = {"N": str(native_folder), "PATH": path, "CARGO_NET_OFFLINE": "1", "GOPROXY": "off"}
    environment = {**os.environ, **settings}
    environment.pop("CARGO_TARGET_DIR", None)
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=environment, check=True)
    folder = tmp_path / "bindings" / "rust" / "target" / "release" if tool == "cargo" else tmp_path
    check_scores([folder / "score"], bundle_folder, tmp_path)
