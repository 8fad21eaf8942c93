"""Write the parts of Kubernetes' own API schema that are used here.

Usage: kubernetes_schema.py SWAGGER_JSON VERSION (api/openapi-spec/swagger.json of that Kubernetes release).

kmm/api/kubernetes.json: what a Module embeds. Kept as Kubernetes has it, but for list types and merge keys: the Go
operator's definition has none of those that would refuse two equal names in `env`, which must stay acceptable.
kmm/embedded/kubernetes.json: what the kinds of the embedded cluster need beside that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOTS = ("Container", "EnvVar", "ResourceRequirements", "Toleration", "Volume", "VolumeMount")
KEPT = ("type", "format", "description", "required", "enum", "default", "x-kubernetes-map-type")
ROOT = Path(__file__).parent.parent
KINDS = (
    "ConfigMap", "CustomResourceDefinition", "DaemonSet", "Event", "Job", "Lease", "Namespace", "Node", "Pod",
    "Secret", "ServiceAccount",
)  # fmt: skip
GROUPS = (
    "io.k8s.api.apps.v1.", "io.k8s.api.batch.v1.", "io.k8s.api.coordination.v1.", "io.k8s.api.core.v1.",
    "io.k8s.apiextensions-apiserver.", "io.k8s.apimachinery.",
)  # fmt: skip


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


def closure(roots: Iterable[str], every: dict[str, Any], known: Iterable[str] = ()) -> dict[str, Any]:
    """Return the definitions that `roots` need, without the known ones."""
    wanted, waiting = {}, list(roots)
    while waiting:
        name = waiting.pop()
        if name not in wanted and name not in known:
            wanted[name] = every[name]
            waiting += references(every[name])
    return dict(sorted(wanted.items()))


def main(swagger_path: str, version: str) -> None:
    swagger = json.loads(Path(swagger_path).read_text())
    every = {short(name): trim(schema) for name, schema in swagger["definitions"].items() if name.startswith(GROUPS)}
    whole = every["ObjectMeta"]
    # A pod template's metadata: the parts that a user may write in a volume claim's template.
    of_users = ("annotations", "finalizers", "labels", "name", "namespace")
    every["ObjectMeta"] = whole | {"properties": {name: whole["properties"][name] for name in of_users}}
    module = closure(ROOTS, every)
    every["ObjectMeta"] = whole
    rest = closure(KINDS, every, module.keys() - {"ObjectMeta"})
    for path, found in (("kmm/api", module), ("kmm/embedded", rest)):
        text = json.dumps({"version": version, "definitions": found}, indent=0)
        (ROOT / path / "kubernetes.json").write_text(text + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
