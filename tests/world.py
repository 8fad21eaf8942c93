"""A cluster that operators work in, be it the embedded one or a real control plane."""

from __future__ import annotations

from typing import Any

from apiserver import samples
from apiserver.client import Api
from apiserver.conftest import register

from kmm.api.crd import custom_resource_definition
from kmm.api.kinds import KINDS

NAMESPACE = "kmm-system"
PREFIX = "kmm.node.kubernetes.io/"


class World:
    """What an administrator sees of it."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def furnish(self) -> None:
        """Make our kinds and the operator's namespace."""
        for kind in KINDS:
            register(self.api, custom_resource_definition(kind))
        assert self.api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}}).code == 201

    def module(self, name: str = "m", namespace: str = NAMESPACE) -> dict[str, Any]:
        return self.api.get(f"{samples.modules(namespace)}/{name}").body

    def condition(self, kind: str = "Ready", name: str = "m", namespace: str = NAMESPACE) -> dict[str, Any]:
        conditions = self.module(name, namespace).get("status", {}).get("conditions", ())
        return next((each for each in conditions if each["type"] == kind), {})

    def ready(self, name: str = "m", namespace: str = NAMESPACE) -> bool:
        return self.condition("Ready", name, namespace).get("status") == "True"

    def sets(self, namespace: str = NAMESPACE) -> list[dict[str, Any]]:
        return self.api.get(samples.sets(namespace)).body["items"]

    def loaders(self, namespace: str = NAMESPACE) -> dict[str, dict[str, Any]]:
        """Return the loaders by their kernel."""
        return {
            each["metadata"].get("annotations", {}).get(f"{PREFIX}kernel", ""): each
            for each in self.sets(namespace)
            if each["metadata"].get("labels", {}).get(f"{PREFIX}role") == "module-loader"
        }

    def labels(self, node: str) -> set[str]:
        """Return our labels of a node, without the prefix."""
        found = self.api.get(f"/api/v1/nodes/{node}").body["metadata"]["labels"]
        return {key.removeprefix(PREFIX) for key in found if key.startswith(PREFIX)}
