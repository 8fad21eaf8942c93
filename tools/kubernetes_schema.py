"""Write kmm/api/kubernetes.json: the part of Kubernetes' own API schema that a Module embeds.

Usage: kubernetes_schema.py SWAGGER_JSON VERSION (api/openapi-spec/swagger.json of that Kubernetes release).
Kept as Kubernetes has it, but for list types and merge keys: the Go operator's definition has none of those that
would refuse two equal names in `env`, which must stay acceptable.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOTS = ("Container", "EnvVar", "ResourceRequirements", "Toleration", "Volume", "VolumeMount")
KEPT = ("type", "format", "description", "required", "enum", "default", "x-kubernetes-map-type")
TARGET = Path(__file__).parent.parent / "kmm/api/kubernetes.json"


def short(reference: str) -> str:
    return reference.rpartition(".")[2]


def trim(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        trimmed: dict[str, Any] = {"$ref": short(schema["$ref"])}
        return trimmed | ({"description": schema["description"]} if "description" in schema else {})
    trimmed = {key: schema[key] for key in KEPT if key in schema}
    for key in ("items", "additionalProperties"):
        if key in schema:
            trimmed[key] = trim(schema[key])
    if "properties" in schema:
        trimmed["properties"] = {name: trim(below) for name, below in schema["properties"].items()}
    return trimmed


def references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(references, schema)) if schema else set()
    if isinstance(schema, dict):
        here = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
        return here.union(*map(references, schema.values()))
    return set()


def main(swagger_path: str, version: str) -> None:
    swagger = json.loads(Path(swagger_path).read_text())
    every = {
        short(name): trim(schema)
        for name, schema in swagger["definitions"].items()
        if name.startswith(("io.k8s.api.core.v1.", "io.k8s.apimachinery."))
    }
    # A pod template's metadata: the parts that a user may write in a volume claim's template.
    every["ObjectMeta"]["properties"] = {
        name: every["ObjectMeta"]["properties"][name]
        for name in ("annotations", "finalizers", "labels", "name", "namespace")
    }
    wanted, waiting = {}, list(ROOTS)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted[name] = every[name]
            waiting += references(every[name])
    TARGET.write_text(json.dumps({"version": version, "definitions": dict(sorted(wanted.items()))}, indent=0) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
