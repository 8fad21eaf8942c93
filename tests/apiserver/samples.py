"""Objects that the tests make."""

from __future__ import annotations

from typing import Any

GROUP = "/apis/kmm.sigs.x-k8s.io/v1beta1"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def a_module(name: str = "m", **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
        "kind": "Module",
        "metadata": {"name": name},
        "spec": {
            "moduleLoader": {
                "container": {
                    "modprobe": {"moduleName": "m"},
                    "kernelMappings": [{"regexp": ".*", "containerImage": "registry.example.com/m:1"}],
                }
            },
            "selector": {"a": "b"},
            **more,
        },
    }


def a_node(name: str, labels: dict[str, str], kernel: str = "6.1.0") -> dict[str, Any]:
    """A node that is ready, as its kubelet would say."""
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    resources = {"cpu": "8", "memory": "32Gi", "pods": "110"}
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {
            "conditions": [ready],
            "nodeInfo": {"kernelVersion": kernel, "architecture": "amd64", "operatingSystem": "linux"},
            "capacity": resources,
            "allocatable": resources,
        },
    }


def a_daemon_set(
    name: str = "d", labels: dict[str, str] | None = None, nodes: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name} if labels is None else labels},
                "spec": {
                    "containers": [{"name": "c", "image": "registry.example.com/c:1"}],
                    "nodeSelector": nodes or {"lab": "none"},
                },
            },
            **spec,
        },
    }


def a_job(name: str = "j", nodes: dict[str, str] | None = None, outcome: str = "", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "template": {
                "metadata": {"annotations": {"controlplane/outcome": outcome} if outcome else {}},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "c", "image": "registry.example.com/c:1"}],
                    "nodeSelector": nodes or {"lab": "none"},
                },
            },
            **spec,
        },
    }


def a_definition(kind: str, schema: dict[str, Any], **version: Any) -> dict[str, Any]:
    """A definition in a group of its own."""
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{kind.lower()}.example.com"},
        "spec": {
            "group": f"{kind.lower()}.example.com",
            "names": {"kind": kind, "plural": plural},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": schema,
                                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                            },
                        }
                    },
                    **version,
                }
            ],
        },
    }


def objects_of(kind: str, namespace: str) -> str:
    return f"/apis/{kind.lower()}.example.com/v1/namespaces/{namespace}/{kind.lower()}s"


def core(namespace: str, plural: str) -> str:
    return f"/api/v1/namespaces/{namespace}/{plural}"


def sets(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/daemonsets"


def jobs(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def modules(namespace: str) -> str:
    return f"{GROUP}/namespaces/{namespace}/modules"


def owner(body: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A reference to an owner."""
    return {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "name": body["metadata"]["name"],
        "uid": body["metadata"]["uid"],
        **more,
    }
