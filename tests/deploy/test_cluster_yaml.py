"""cluster.yaml against Ray's schema, EC2's API as botocore knows it, and an EC2 server."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
import yaml
from botocore.exceptions import ClientError, ParamValidationError
from botocore.validate import validate_parameters

from raydistill.config.loading import load_config
from tests.deploy.accounts import forget_clients, make_roles

ROOT = Path(__file__).parents[2]
REGION = "us-east-1"
# Ray resolves it to one SubnetId before it calls EC2; it is the launcher's own key.
RAYS_OWN = {"SubnetIds"}


def cluster_file() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return config


def workers() -> dict[str, dict[str, Any]]:
    config = cluster_file()
    types = config["available_node_types"]
    return {name: types[name] for name in types if name != config["head_node_type"]}


# --- Ray's schema, EC2's API


@pytest.mark.ray
def test_ray_accepts_the_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(cluster_file())
    validate_config(config)
    with pytest.raises(Exception, match="max_wokers"):  # the check can fail
        validate_config({**config, "max_wokers": 1})


def check_node_config(node_config: dict[str, Any]) -> None:
    """Raise ParamValidationError for a key, a type or a missing field that EC2 does not know."""
    model = botocore.session.get_session().get_service_model("ec2")
    shape = model.operation_model("RunInstances").input_shape
    given = {name: value for name, value in node_config.items() if name not in RAYS_OWN}
    validate_parameters({**given, "MinCount": 1, "MaxCount": 1}, shape)


def test_every_key_of_a_node_config_is_one_of_ec2() -> None:
    for node_type in cluster_file()["available_node_types"].values():
        check_node_config(node_type["node_config"])


@pytest.mark.parametrize(
    ("typo", "said"),
    [
        ({"IamInstanceProfil": {"Name": "x"}}, "IamInstanceProfil"),
        ({"BlockDeviceMappings": [{"Ebs": {"VolumeSiz": 9}}]}, "VolumeSiz"),
        ({"BlockDeviceMappings": {"Ebs": {}}}, "type for parameter BlockDeviceMappings"),
        ({"InstanceMarketOptions": {"MarketTyp": "spot"}}, "MarketTyp"),
    ],
)
def test_a_typo_in_a_node_config_is_found(typo: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamValidationError, match=said):
        check_node_config({**workers()["g6"]["node_config"], **typo})


# --- what the file promises


def test_the_head_works_not_and_workers_start_from_none() -> None:
    config = cluster_file()
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0} and head["max_workers"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]  # a lost head is a lost job
    for node_type in workers().values():
        assert node_type["min_workers"] == 0
        assert node_type["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert node_type["node_config"]["IamInstanceProfile"] == {"Name": "raydistill-worker"}
    gpus = [t for t in workers().values() if t["resources"].get("GPU")]
    assert len({t["node_config"]["InstanceType"] for t in gpus}) > 1


def test_the_run_file_of_the_cloud_knows_what_the_cluster_may_grow_to() -> None:
    run = load_config(str(ROOT / "jobs/cloud.toml"))
    limit = cluster_file()["max_workers"]
    assert sum(node_type["max_workers"] for node_type in workers().values()) == limit

    types = workers().values()
    assert run.cluster.gpus == sum(t["max_workers"] * t["resources"].get("GPU", 0) for t in types)
    # Of machines without a GPU: tasks that ask for cores alone are not to start the others.
    without = [t for t in types if "GPU" not in t["resources"]]
    assert run.cluster.cpus == sum(t["max_workers"] * t["resources"]["CPU"] for t in without)


def test_every_command_that_starts_ray_asks_for_the_token() -> None:
    config = cluster_file()
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [line for line in config[name] if "ray start" in line]
        assert len(starts) == 1 and "RAY_AUTH_MODE=token" in starts[0]
    assert "~/.ray/auth_token" in config["file_mounts"]
    (head,) = (line for line in config["head_start_ray_commands"] if "ray start" in line)
    assert "--dashboard-host=127.0.0.1" in head


def test_every_option_of_ray_start_exists() -> None:
    from ray.scripts.scripts import start

    options = {name for parameter in start.params for name in parameter.opts}
    config = cluster_file()
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        (line,) = (line for line in config[name] if "ray start" in line)
        given = {word.partition("=")[0] for word in line.split() if word.startswith("--")}
        assert given <= options, given - options


def test_what_is_copied_to_the_machines_is_there() -> None:
    for remote, local in cluster_file()["file_mounts"].items():
        assert remote.startswith("~/")
        assert local.startswith("~") or (ROOT / local).exists(), local


# --- an EC2 server


@pytest.fixture
def ec2(aws_account: str) -> Any:  # noqa: ANN401 - boto's client
    """An account with the roles; gives a client of its owner."""
    make_roles(aws_account)
    return boto3.client("ec2", region_name=aws_account)


def bootstrapped() -> dict[str, Any]:
    """What `ray up` makes of the file before it starts the head."""
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(cluster_file())
    validate_config(config)
    made: dict[str, Any] = bootstrap_aws(config)
    return made


def open_to_the_world(ec2: Any) -> list[tuple[int, int]]:  # noqa: ANN401
    """The ports of the group that take connections from outside of it."""
    filters = [{"Name": "group-name", "Values": ["raydistill"]}]
    (group,) = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    return [
        (rule.get("FromPort", 0), rule.get("ToPort", 65535))
        for rule in group["IpPermissions"]
        if rule["IpRanges"] or rule.get("Ipv6Ranges")
    ]


@pytest.mark.server
def test_ray_brings_up_what_the_file_says(ec2: Any) -> None:  # noqa: ANN401
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = AWSNodeProvider.fillout_available_node_types_resources(bootstrapped())
    for name, node_type in workers().items():  # what EC2 says of the machine is what the file says
        filled = config["available_node_types"][name]["resources"]
        assert filled.items() >= node_type["resources"].items() and filled["memory"] > 16 << 30
    assert open_to_the_world(ec2) == [(22, 22)]
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, node_type in config["available_node_types"].items():
        tags = {"ray-user-node-type": name, "ray-node-type": "worker"}
        provider.create_node(node_type["node_config"], tags, 1)
    machines = [
        machine
        for found in ec2.describe_instances()["Reservations"]
        for machine in found["Instances"]
    ]
    types = config["available_node_types"]
    wanted = {name: types[name]["node_config"]["InstanceType"] for name in types}
    for machine in machines:
        tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
        name = tags["ray-user-node-type"]
        is_head = name == config["head_node_type"]
        assert machine["InstanceType"] == wanted.pop(name)
        assert machine.get("InstanceLifecycle") == (None if is_head else "spot")
        role = "raydistill-head" if is_head else "raydistill-worker"
        assert machine["IamInstanceProfile"]["Arn"].endswith(f"/{role}")
        assert [group["GroupName"] for group in machine["SecurityGroups"]] == ["raydistill"]
    assert wanted == {}


@pytest.mark.server
def test_a_group_of_ones_own_is_left_as_it_is(ec2: Any) -> None:  # noqa: ANN401
    made = ec2.create_security_group(GroupName="raydistill", Description="own")["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    ec2.authorize_security_group_ingress(
        GroupId=made, IpPermissions=[{**ssh, "IpRanges": [{"CidrIp": "198.51.100.7/32"}]}]
    )
    config = bootstrapped()
    for node_type in config["available_node_types"].values():
        assert node_type["node_config"]["SecurityGroupIds"] == [made]
    (group,) = ec2.describe_security_groups(GroupIds=[made])["SecurityGroups"]
    (rule,) = group["IpPermissions"]
    assert [one["CidrIp"] for one in rule["IpRanges"]] == ["198.51.100.7/32"]


@pytest.mark.server
def test_the_roles_may_do_what_they_need_and_no_more(
    ec2: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = bootstrapped()
    s3 = boto3.client("s3", region_name=REGION)
    s3.create_bucket(Bucket="bucket")
    s3.create_bucket(Bucket="other")
    names = ("raydistill-head", "raydistill-worker")
    keys = {name: assume(name) for name in names}

    ask_the_policies()
    for name in names:
        use(keys[name], monkeypatch)
        own = boto3.client("s3", region_name=REGION)
        own.put_object(Bucket="bucket", Key="run/a", Body=b"x")
        assert own.list_objects_v2(Bucket="bucket")["KeyCount"] == 1
        own.delete_object(Bucket="bucket", Key="run/a")
        with pytest.raises(ClientError, match="AccessDenied"):
            own.list_objects_v2(Bucket="other")
    with pytest.raises(ClientError, match="AccessDenied"):  # a worker starts nothing
        boto3.client("ec2", region_name=REGION).describe_instances()
    use(keys["raydistill-head"], monkeypatch)
    forget_clients()
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    node_config = config["available_node_types"]["g6"]["node_config"]
    (worker,) = provider.create_node(node_config, {"ray-node-type": "worker"}, 1)
    assert provider.non_terminated_nodes({}) == [worker]
    provider.terminate_node(worker)
    with pytest.raises(ClientError, match="AccessDenied"):
        boto3.client("iam", region_name=REGION).list_roles()


def ask_the_policies() -> None:
    """From here on the server asks the policies whether a request is allowed."""
    url = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    plain = {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(url, b"0", plain), timeout=30).close()


def assume(role: str) -> dict[str, str]:
    sts = boto3.client("sts", region_name=REGION)
    arn = f"arn:aws:iam::123456789012:role/{role}"
    keys: dict[str, str] = sts.assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
    return keys


def use(keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", keys["SessionToken"])
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
