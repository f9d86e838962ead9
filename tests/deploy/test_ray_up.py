"""`ray up cluster.yaml` as a user runs it, and what the head's autoscaler does with a worker.

EC2 is a server on this machine. `ssh` runs the command in a folder that stands for the machine's
home, through the shells and quotes that it would go through; rsync is real. On the machines pip,
ray, apt and others are stand-ins that write down how they were called.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from tests.deploy.accounts import make_roles

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync"),
]
# The last words after user@host are the command; sshd gives them to the user's shell as one text.
_SSH = """#!/bin/bash
while [ $# -gt 0 ]; do
    case "$1" in *@*) shift; break;; ubuntu) shift; break;; -l) shift 2; break;; *) shift;; esac
done
if [[ "$1" =~ ^[0-9.]+$ ]]; then shift; fi
cd "$MACHINE" && HOME=$MACHINE exec env -u RAY_AUTH_MODE bash -c "$*"
"""
_RECORD = """#!/bin/bash
printf '%s|%s|%s\\n' "$(basename "$0")" "$*" "${RAY_AUTH_MODE:-}" >> ~/calls
"""


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def make_machine(folder: Path) -> Path:
    """A home on a new machine, whose tools write down how they are called."""
    for name in ("cloud-init", "apt-get", "nohup"):
        write(folder / "tools" / name, _RECORD)
    write(folder / "tools/dpkg", "#!/bin/bash\nexit 1\n")  # python3-venv is not installed
    write(folder / "tools/nvidia-smi", "#!/bin/bash\nexit 9\n")
    write(folder / "tools/sudo", '#!/bin/bash\nexec "$@"\n')
    for name in ("pip", "python", "ray"):
        write(folder / "venv/bin" / name, _RECORD)
    (folder / ".bashrc").write_text("PATH=$HOME/tools:$PATH\n")
    return folder


def calls(machine: Path) -> list[list[str]]:
    return [line.split("|") for line in (machine / "calls").read_text().splitlines()]


def check_machine(machine: Path) -> None:
    """The files are there, and every step was taken in its order."""
    assert (machine / ".ray/auth_token").read_text() == "the token"
    for name in ("constraints.txt", "pyproject.toml", "raydistill/__init__.py", "spot_notice.sh"):
        assert (machine / "raydistill" / name).is_file(), name
    assert not list((machine / "raydistill").rglob("__pycache__"))
    names = [name for name, *_ in calls(machine)]
    assert names[:6] == ["cloud-init", "apt-get", "apt-get", "pip", "python", "ray"]
    (install,) = (words for name, words, _ in calls(machine) if name == "pip")  # once
    assert install.endswith(f"{machine}/raydistill[distill] boto3")


@pytest.fixture
def laptop(aws_account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's machine: keys of the account, a token, ssh."""
    make_roles(aws_account)
    write(tmp_path / "bin/ssh", _SSH)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("the token")
    python = Path(sys.executable).parent
    path = os.pathsep.join([str(tmp_path / "bin"), str(python), os.environ["PATH"]])
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    return tmp_path


def test_a_head_is_set_up_and_sets_up_a_worker(
    laptop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = make_machine(tmp_path / "head")
    monkeypatch.setenv("MACHINE", str(head))
    launch("up", "--no-config-cache")
    check_machine(head)
    start = calls(head)[-1]
    assert start[1].startswith("start --head --port=6379 --dashboard-host=127.0.0.1")
    assert start[2] == "token"
    # The rest is the head's own work.
    bootstrap = json.loads((head / "ray_bootstrap_config.yaml").read_text())
    worker = make_machine(tmp_path / "worker")
    monkeypatch.setenv("MACHINE", str(worker))
    monkeypatch.setenv("HOME", str(head))
    install_worker(bootstrap, name="g6")
    check_machine(worker)
    start, notice = calls(worker)[-2:]
    assert start[1].startswith("start --address=10.1.2.3:6379") and start[2] == "token"
    assert notice[:2] == ["nohup", f"bash {worker}/raydistill/spot_notice.sh"]
    monkeypatch.setenv("HOME", str(laptop))
    launch("down")
    assert states() == {"terminated"}


def launch(command: str, *options: str) -> None:
    words = ["ray", command, "--yes", *options, "cluster.yaml"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def states() -> set[str]:
    """Of all machines of the account."""
    found = boto3.client("ec2").describe_instances()["Reservations"]
    return {machine["State"]["Name"] for one in found for machine in one["Instances"]}


def install_worker(config: dict, *, name: str) -> None:  # type: ignore[type-arg]
    """As autoscaler v2 does it."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.instance_manager.ray_installer import RayInstaller
    from ray.core.generated.instance_manager_pb2 import Instance

    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    node_config = config["available_node_types"][name]["node_config"]
    (node_id,) = provider.create_node(node_config, {"ray-node-type": "worker"}, 1)
    assert node_id in provider.non_terminated_nodes({})  # fills its cache of tags
    instance = Instance(instance_type=name, cloud_instance_id=node_id)
    settings = AutoscalingConfig(config, skip_content_hash=False)
    RayInstaller(provider, settings, subprocess).install_ray(instance, "10.1.2.3")
