"""The manifests of deploy/kuberay against the operator's schema, made strict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from raydistill.config.loading import load_config

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(Path(__file__).with_name("kuberay_schema.json").read_text())
KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}


def manifest(name: str) -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((ROOT / "deploy/kuberay" / name).read_text())
    return made


def strict(node: Any) -> Any:  # noqa: ANN401 - any JSON
    """A field that the schema does not name is refused; Kubernetes would drop it silently."""
    if isinstance(node, list):
        return [strict(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {name: strict(value) for name, value in node.items()}
    if node.get("type") == "object" and isinstance(node.get("properties"), dict):
        made.setdefault("additionalProperties", False)
    return made


def check(made: dict[str, Any]) -> None:
    schema = strict({**SCHEMA[KINDS[made["kind"]]], "$defs": SCHEMA["$defs"]})
    jsonschema.Draft202012Validator(schema).validate(made)
    assert made["apiVersion"] == "ray.io/v1"


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_the_operator_knows_every_field(name: str) -> None:
    check(manifest(name))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("autoscalerOptions", "idleTimeoutSecond"), 300),
        (("autoscalerOptions", "version"), "v3"),
        (("authOptions", "mod"), "token"),
        (("authOptions", "mode"), "tokens"),
        (("workerGroupSpecs", 0, "maxReplica"), 8),
        (("workerGroupSpecs", 0, "maxReplicas"), "8"),
        (("workerGroupSpecs", 1, "template", "spec", "toleration"), []),
        (("headGroupSpec", "template", "spec", "containers", 0, "volumeMount"), []),
        (("headGroupSpec", "template", "spec", "volumes", 0, "emptyDirs"), {}),
        (("headGroupSpec", "rayStartParams", "num-cpus"), 0),
    ],
)
def test_a_typo_is_found(path: tuple[str | int, ...], value: object) -> None:
    made = manifest("raycluster.yaml")
    node = made["spec"]
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        check(made)


def test_the_job_has_the_cluster_of_the_other_file() -> None:
    assert manifest("rayjob.yaml")["spec"]["rayClusterSpec"] == manifest("raycluster.yaml")["spec"]


def test_it_is_the_cluster_of_cluster_yaml_and_of_the_run_file() -> None:
    groups = manifest("raycluster.yaml")["spec"]["workerGroupSpecs"]
    types = yaml.safe_load((ROOT / "cluster.yaml").read_text())["available_node_types"]
    by_type = {t["node_config"]["InstanceType"]: t["max_workers"] for t in types.values()}
    num_gpus = num_cpus = 0
    for group in groups:
        assert group["minReplicas"] == 0
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        gpus = int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
        num_gpus += gpus * group["maxReplicas"]
        if not gpus:
            num_cpus += int(group["rayStartParams"]["num-cpus"]) * group["maxReplicas"]
        machine = spec["nodeSelector"].get("node.kubernetes.io/instance-type", "m6i.4xlarge")
        assert by_type.pop(machine) == group["maxReplicas"]
    cluster = load_config(str(ROOT / "jobs/cloud.toml")).cluster
    assert (cluster.gpus, cluster.cpus) == (num_gpus, num_cpus)


def test_the_head_works_not_and_the_operator_may_autoscale() -> None:
    spec = manifest("raycluster.yaml")["spec"]
    pins = dict(line.split("==") for line in pin_lines())
    assert spec["rayVersion"] == pins["ray"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    account = manifest("serviceaccount.yaml")["metadata"]["name"]
    for pod in pods:
        inner = pod["template"]["spec"]
        assert inner["serviceAccountName"] == account
        assert "restartPolicy" not in inner  # autoscaler v2 takes Never alone


def pin_lines() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if "==" in line]


def test_every_start_parameter_is_an_option_of_ray_start() -> None:
    from ray.scripts.scripts import start

    options = {name.removeprefix("--") for one in start.params for name in one.opts}
    spec = manifest("raycluster.yaml")["spec"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        assert set(group["rayStartParams"]) <= options


def test_a_worker_has_time_to_drain_memory_for_its_store_and_room_to_spill() -> None:
    for group in manifest("raycluster.yaml")["spec"]["workerGroupSpecs"]:
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        script = container["lifecycle"]["preStop"]["exec"]["command"][1]
        assert script == "/home/ray/raydistill/spot_notice.sh"  # where the image has it
        assert spec["terminationGracePeriodSeconds"] >= 120  # it drains for 110
        volumes = {volume["name"]: volume["emptyDir"] for volume in spec["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        store_bytes = int(group["rayStartParams"]["object-store-memory"])
        assert int(mounts["/dev/shm"]["sizeLimit"].removesuffix("Gi")) << 30 > store_bytes
        assert mounts["/dev/shm"]["medium"] == "Memory"
        assert group["rayStartParams"]["object-spilling-directory"] in mounts


def test_the_service_is_a_cluster_and_a_config_of_serve() -> None:
    from ray.serve.schema import ServeDeploySchema

    from raydistill.server.hosts.ray_serve import ServeArguments, application

    made = manifest("rayservice.yaml")
    assert (made["apiVersion"], made["kind"]) == ("ray.io/v1", "RayService")
    assert set(made["spec"]) == {"serveConfigV2", "rayClusterConfig"}
    check({**manifest("raycluster.yaml"), "spec": made["spec"]["rayClusterConfig"]})
    pins = dict(line.split("==") for line in pin_lines())
    assert made["spec"]["rayClusterConfig"]["rayVersion"] == pins["ray"]
    config = ServeDeploySchema(**yaml.safe_load(made["spec"]["serveConfigV2"]))
    (app,) = config.applications
    assert app.import_path == f"{application.__module__}:{application.__name__}"
    assert ServeArguments(**app.args).max_replicas == 8
    account = manifest("serviceaccount.yaml")["metadata"]["name"]
    cluster = made["spec"]["rayClusterConfig"]
    for pod in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert pod["template"]["spec"]["serviceAccountName"] == account
