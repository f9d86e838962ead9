"""What docs/cluster.md has a user make in an AWS account."""

from __future__ import annotations

from pathlib import Path

import boto3

_FOLDER = Path(__file__).parents[2] / "deploy/aws"


def make_roles(region: str) -> None:
    """Both roles; the test of the page makes them with the commands of the page."""
    iam = boto3.client("iam", region_name=region)
    bucket = (_FOLDER / "bucket.json").read_text().replace("BUCKET", "bucket")
    machines = (_FOLDER / "head.json").read_text()
    trust = (_FOLDER / "trust.json").read_text()
    policies = {"raydistill-head": [machines, bucket], "raydistill-worker": [bucket]}
    for name, documents in policies.items():
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        for i, document in enumerate(documents):
            iam.put_role_policy(RoleName=name, PolicyName=f"p{i}", PolicyDocument=document)
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def forget_clients() -> None:
    """Ray keeps boto's clients, with the keys that they began with, for the life of the process."""
    from ray.autoscaler._private.aws import utils

    utils.resource_cache.cache_clear()
    utils.client_cache.cache_clear()
