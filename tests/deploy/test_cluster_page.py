"""The commands of docs/cluster.md: they parse, their options exist, the account's part runs."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path

import boto3
import click
import pytest

from raydistill.cli.main import _parser
from tests.helpers.aws_cli import aws_command

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/cluster.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
# Stand-ins: each writes its words down, and reads what is given to it. Ray's one makes the token.
TOOLS = ("aws", "ray", "kubectl", "helm", "docker", "make", "raydistill")
_RECORD = """#!/bin/bash
[ -p /dev/stdin ] && cat > /dev/null
printf '%s\\0' "$(basename "$0")" "$@" >> "$RECORDED"; printf '\\n' >> "$RECORDED"
[ "$*" = "get-auth-token --generate" ] && mkdir -p ~/.ray && echo token > ~/.ray/auth_token
echo dmFsdWU=
"""


def run(script: str, *, folder: Path, **variables: str) -> str:
    """A block as a new user pastes it, in the checkout, with `folder` first on the path.

    `folder` is the user's home too, and no variable of this process is there.
    """
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    found = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env={"PATH": path, "HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, f"{script}\n{found.stdout}\n{found.stderr}"
    return found.stdout


def write_tool(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o755)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What all blocks of the page, run one after the other, give to the tools."""
    folder = tmp_path_factory.mktemp("tools")
    for name in TOOLS:
        write_tool(folder / name, _RECORD)
    recorded = folder / "recorded"
    # Two terminals of the page are one here; `make` makes no environment.
    script = "\n".join(BLOCKS).replace('export PATH="$PWD/.venv/bin:$PATH"', "")
    run(script, folder=folder, RECORDED=str(recorded))
    lines = recorded.read_text().split("\0\n")
    return [line.split("\0") for line in lines if line]


def of_tool(commands: list[list[str]], name: str) -> list[list[str]]:
    found = [command[1:] for command in commands if command[0] == name]
    assert found, f"no command of {name} on the page"
    return found


def test_every_ray_command_and_option_exists(commands: list[list[str]]) -> None:
    from ray.scripts.scripts import cli

    for words in of_tool(commands, "ray"):
        command: click.Command = cli
        rest = words
        while isinstance(command, click.Group):
            command, rest = command.commands[rest[0]], rest[1:]
        with command.make_context(command.name, list(rest)) as context:  # raises for an option
            assert context.command.name in words and not isinstance(command, click.Group), words


def test_every_option_of_aws_exists(commands: list[list[str]]) -> None:
    import botocore.session
    from botocore import xform_name

    session = botocore.session.get_session()
    for service, operation, *rest in of_tool(commands, "aws"):
        if service == "s3":  # of the command line alone
            assert operation == "cp"
            continue
        model = session.get_service_model({"s3api": "s3"}.get(service, service))
        names = {xform_name(name, "-"): name for name in model.operation_names}
        members = {
            xform_name(member, "-")
            for member in model.operation_model(names[operation]).input_shape.members
        }
        short = {"protocol", "port", "cidr", "source-group"}  # for IpPermissions
        given = {word[2:] for word in rest if word.startswith("--")}
        assert given - {"query", "output"} - short <= members, (operation, given - members)


def test_every_job_takes_its_options(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: argparse.ArgumentParser, message: str) -> None:
        raise AssertionError(message)

    monkeypatch.setattr(argparse.ArgumentParser, "error", refuse)
    jobs = [words for words in of_tool(commands, "ray") if "jobs.distill" in words]
    assert len(jobs) >= 3
    for words in jobs:
        options = words[words.index("jobs.distill") + 1 :]
        config = _parser().parse_args(["distill", *options]).config
        assert (ROOT / config).is_file()


def test_every_file_of_a_command_is_there(commands: list[list[str]]) -> None:
    for words in commands:
        for word in words:
            path = word.partition("file://")[2] or word.rpartition("=")[2]
            if path.startswith(("deploy/", "jobs/")):
                assert (ROOT / path).is_file(), word


def test_every_shell_block_parses() -> None:
    assert len(BLOCKS) > 12
    for block in BLOCKS:
        found = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert found.returncode == 0, f"{block}\n{found.stderr}"


@pytest.mark.server
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_account_is_made_and_cleaned_up_as_the_page_says(
    aws_account: str, tmp_path: Path
) -> None:
    (made,) = (block for block in BLOCKS if "create-role" in block)
    (cleaned,) = (block for block in BLOCKS if "delete-role " in block)
    with aws_command(tmp_path / "aws"):
        run(made, folder=tmp_path)
        check_account(aws_account)
        run(cleaned, folder=tmp_path)
    left = boto3.client("iam", region_name=aws_account).list_roles()["Roles"]
    assert not {"raydistill-head", "raydistill-worker"} & {role["RoleName"] for role in left}
    assert allowed(aws_account) == []


def check_account(aws_account: str) -> None:
    iam = boto3.client("iam", region_name=aws_account)
    for name in ("raydistill-head", "raydistill-worker"):
        profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        assert [role["RoleName"] for role in profile["Roles"]] == [name]
        policy = iam.get_role_policy(RoleName=name, PolicyName="bucket")["PolicyDocument"]
        resources = [statement["Resource"] for statement in policy["Statement"]]
        assert resources == ["arn:aws:s3:::my-bucket", "arn:aws:s3:::my-bucket/*"]
    s3 = boto3.client("s3", region_name=aws_account)
    rules = s3.get_bucket_lifecycle_configuration(Bucket="my-bucket")["Rules"]
    assert rules[0]["AbortIncompleteMultipartUpload"]
    assert allowed(aws_account) == [("-1", "the group"), ("tcp", "198.51.100.7/32")]


def allowed(region: str) -> list[tuple[str, str]]:
    """Who may connect to the machines of the group, and with which protocol."""
    ec2 = boto3.client("ec2", region_name=region)
    filters = [{"Name": "group-name", "Values": ["raydistill"]}]
    return sorted(
        (rule["IpProtocol"], rule["IpRanges"][0]["CidrIp"] if rule["IpRanges"] else "the group")
        for group in ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        for rule in group["IpPermissions"]
    )
