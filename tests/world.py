"""A cluster that operators work in, be it the embedded one or a real control plane."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from apiserver import samples
from apiserver.client import Api, eventually
from apiserver.conftest import register
from apiserver.samples import a_node, core
from controlplane.controlplane import ControlPlane

from kmm.api.crd import custom_resource_definition
from kmm.api.kinds import KINDS
from kmm.catalog import Catalog
from kmm.loader import load_catalog
from kmm.runtime.rbac import OPERATOR, manifests

NAMESPACE = "kmm-system"
PREFIX = "kmm.node.kubernetes.io/"
SELECTED = {"a": "b"}  # what a sample's selector asks for
_ROLES = "/apis/rbac.authorization.k8s.io/v1"
_WHERE = {
    "ServiceAccount": core(NAMESPACE, "serviceaccounts"),
    "ClusterRole": f"{_ROLES}/clusterroles",
    "ClusterRoleBinding": f"{_ROLES}/clusterrolebindings",
    "Role": f"{_ROLES}/namespaces/{NAMESPACE}/roles",
    "RoleBinding": f"{_ROLES}/namespaces/{NAMESPACE}/rolebindings",
}


class World:
    """What an administrator sees of it, and does in it."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def furnish(self) -> None:
        """Make our kinds and the operator's namespace."""
        for kind in KINDS:
            register(self.api, custom_resource_definition(kind))
        assert self.api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}}).code == 201

    def add_node(
        self,
        name: str,
        kernel: str,
        *,
        labels: Mapping[str, str] = SELECTED,
        taints: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """Let a node join, and wait until its own taint for that has gone."""
        body = {**a_node(name, dict(labels), kernel), "spec": {"taints": list(taints)}}
        answer = self.api.post("/api/v1/nodes", body)
        assert answer.code == 201, answer.body

        def joined() -> bool:
            found = self.api.get(f"/api/v1/nodes/{name}").body["spec"].get("taints", ())
            return "node.kubernetes.io/not-ready" not in {each["key"] for each in found}

        eventually(joined, f"{name} has joined")

    def change_kernel(self, node: str, kernel: str) -> None:
        """Let a node come back with another kernel, as after an upgrade."""
        patch = {"status": {"nodeInfo": {"kernelVersion": kernel}}}
        answer = self.api.patch(f"/api/v1/nodes/{node}/status", patch)
        assert answer.code == 200, answer.body

    def module(self, name: str = "m", namespace: str = NAMESPACE) -> dict[str, Any]:
        return self.api.get(f"{samples.modules(namespace)}/{name}").body

    def kernel(self, kernel: str, name: str = "m") -> dict[str, Any]:
        """Return what a Module's status says of a kernel."""
        kernels = self.module(name).get("status", {}).get("kernels", ())
        return next((each for each in kernels if each["kernelVersion"] == kernel), {})

    def reasons(self, name: str = "m", namespace: str = NAMESPACE) -> set[str]:
        """Return the reasons of a Module's kernels."""
        return {each["reason"] for each in self.module(name, namespace).get("status", {}).get("kernels", ())}

    def condition(self, kind: str = "Ready", name: str = "m", namespace: str = NAMESPACE) -> dict[str, Any]:
        conditions = self.module(name, namespace).get("status", {}).get("conditions", ())
        return next((each for each in conditions if each["type"] == kind), {})

    def ready(self, name: str = "m", namespace: str = NAMESPACE) -> bool:
        return self.condition("Ready", name, namespace).get("status") == "True"

    def events(self, namespace: str = NAMESPACE) -> dict[str, dict[str, Any]]:
        """Return the operator's events by their reason."""
        found = self.api.get(core(namespace, "events")).body["items"]
        return {each["reason"]: each for each in found if each["source"].get("component") == "kmm"}

    def pods(self, role: str = "", namespace: str = NAMESPACE) -> list[dict[str, Any]]:
        query = {"labelSelector": f"{PREFIX}role={role}"} if role else {}
        return self.api.get(core(namespace, "pods"), **query).body["items"]

    def sets(self, namespace: str = NAMESPACE) -> list[dict[str, Any]]:
        return self.api.get(samples.sets(namespace)).body["items"]

    def jobs(self, namespace: str = NAMESPACE) -> list[dict[str, Any]]:
        return self.api.get(samples.jobs(namespace)).body["items"]

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


class RealWorld(World):
    """A control plane, and in it the operator's account with the generated rights and no others."""

    user = f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        super().__init__(Api(plane.url, plane.ca_file, plane.admin_token))
        self.plane, self.folder = plane, folder
        self._read, self._lines = 0, []
        self.furnish()
        for manifest in manifests(load_catalog(), NAMESPACE):
            answer = self.api.post(_WHERE[manifest["kind"]], manifest)
            assert answer.code == 201, answer.body

    def grant(self, catalog: Catalog) -> None:
        """Give the operator the rights that it needs with these plugins, and no others."""
        role = next(each for each in manifests(catalog, NAMESPACE) if each["kind"] == "ClusterRole")
        path = f"{_WHERE['ClusterRole']}/{role['metadata']['name']}"
        if self.api.get(path).body["rules"] != role["rules"]:
            assert self.api.put(path, role).code == 200
        for rule in role["rules"]:
            eventually(lambda rule=rule: self._may(rule), f"{rule} is granted")

    def _may(self, rule: Mapping[str, Any]) -> bool:
        resource, _, below = rule["resources"][0].partition("/")
        asked = {"group": rule["apiGroups"][0], "resource": resource, "subresource": below, "verb": rule["verbs"][-1]}
        asked["name"] = rule.get("resourceNames", [""])[0]
        review = {"spec": {"user": self.user, "resourceAttributes": asked}}
        answer = self.api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return answer.body["status"]["allowed"]

    def credentials(self, name: str) -> Path:
        """Make a kubeconfig with a token of its own for the operator's account."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
        token = self.api.post(f"{core(NAMESPACE, 'serviceaccounts')}/{OPERATOR}/token", body).body["status"]["token"]
        config = yaml.safe_load(self.plane.kubeconfig().read_text())
        config["users"][0]["user"] = {"token": token}
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def has_kernel(self, node: str, kernel: str) -> bool:
        """Give a node a kernel until it keeps it: kwok's own status is written late, after an outage."""
        if self.api.get(f"/api/v1/nodes/{node}").body["status"]["nodeInfo"]["kernelVersion"] == kernel:
            return True
        self.change_kernel(node, kernel)
        return False

    def audit(self) -> list[dict[str, Any]]:
        """Return the operator's requests, as the API server has them on record; a watch is there twice."""
        with self.plane.audit_log.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # it is being written
                self._read += len(line)
                found = json.loads(line)
                if found["user"]["username"] == self.user:
                    self._lines.append(found)
        return self._lines
