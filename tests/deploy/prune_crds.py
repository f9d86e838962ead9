"""Make kuberay_schema.json of the operator's CRDs: no descriptions, each repeated part once.

    python tests/deploy/prune_crds.py v1.7.0 ray.io_rayclusters.yaml ray.io_rayjobs.yaml

The files are in ray-operator/config/crd/bases of that tag of github.com/ray-project/kuberay.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

_LEAST_CHARS = 60  # of a part that is worth a name
_NOTE = (
    "Derived from the CustomResourceDefinitions of KubeRay {version} "
    "(https://github.com/ray-project/kuberay, Copyright the KubeRay authors, Apache License 2.0) "
    "by tests/deploy/prune_crds.py: descriptions and status are left out, and equal parts are "
    "written once."
)


def schema_of(file: Path) -> dict[str, Any]:
    """The schema of version v1, without the status that the operator writes."""
    crd = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = (one for one in crd["spec"]["versions"] if one["name"] == "v1")
    schema: dict[str, Any] = without_descriptions(version["schema"]["openAPIV3Schema"])
    del schema["properties"]["status"]
    return schema


def without_descriptions(node: Any) -> Any:  # noqa: ANN401 - any YAML
    """A field may be named `description` too: its schema is no text."""
    if isinstance(node, list):
        return [without_descriptions(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {k: v for k, v in node.items() if k != "description" or not isinstance(v, str)}
    return {name: without_descriptions(value) for name, value in kept.items()}


def text_of(node: Any) -> str:  # noqa: ANN401
    return json.dumps(node, sort_keys=True, separators=(",", ":"))


def count_parts(node: Any, counts: Counter[str]) -> None:  # noqa: ANN401
    """How often each object or list occurs; of a part that occurred, the inside counts no more."""
    if isinstance(node, dict):
        if "properties" in node or node.get("type") == "array":
            counts[text_of(node)] += 1
            if counts[text_of(node)] > 1:
                return
        for value in node.values():
            count_parts(value, counts)
    elif isinstance(node, list):
        for value in node:
            count_parts(value, counts)


def share_parts(schemas: dict[str, Any]) -> dict[str, Any]:
    """The schemas with references to the parts that occur more than once."""
    counts: Counter[str] = Counter()
    count_parts(schemas, counts)
    repeated = [text for text, count in counts.items() if count > 1 and len(text) > _LEAST_CHARS]
    names = {text: f"part{i}" for i, text in enumerate(repeated)}

    def referring(node: Any, *, is_part: bool = False) -> Any:  # noqa: ANN401
        if isinstance(node, list):
            return [referring(one) for one in node]
        if not isinstance(node, dict):
            return node
        name = None if is_part else names.get(text_of(node))
        if name is not None:
            return {"$ref": f"#/$defs/{name}"}
        return {key: referring(value) for key, value in node.items()}

    parts = {name: referring(json.loads(text), is_part=True) for text, name in names.items()}
    return {**referring(schemas), "$defs": parts}


def main(version: str, *files: str) -> None:
    schemas = {
        file.rsplit("_", 1)[1].removesuffix(".yaml"): schema_of(Path(file)) for file in files
    }
    shared = {"$comment": _NOTE.format(version=version), **share_parts(schemas)}
    parts = shared.pop("$defs")
    lines = [f"{json.dumps(name)}:{text_of(value)}" for name, value in shared.items()]
    inner = ",\n".join(f"{json.dumps(name)}:{text_of(value)}" for name, value in parts.items())
    body = ",\n".join([*lines, f'"$defs":{{\n{inner}\n}}'])
    print(f"{{\n{body}\n}}")


if __name__ == "__main__":
    main(*sys.argv[1:])
