"""How Acme's device plugin runs on the nodes where the driver is loaded: with folders of its own, and probes.

Both functions are pure: what they return follows from what they are given, and from nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kmm.contract import DevicePluginRequest, Kind, Manifest, Progress, State

from acme_kmm import params
from acme_kmm.driver import NAME

_SOCKETS = "/var/lib/kubelet/device-plugins"
# Which pod has which card: it outlives the pod of the device plugin.
_STATE = "/var/lib/acme"
_VOLUMES = (
    {"name": "acme-sockets", "hostPath": {"path": _SOCKETS, "type": "Directory"}},
    {"name": "acme-state", "hostPath": {"path": _STATE, "type": "DirectoryOrCreate"}},
    {"name": "acme-run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
)
_MOUNTS = (
    {"name": "acme-sockets", "mountPath": _SOCKETS},
    {"name": "acme-state", "mountPath": _STATE},
    {"name": "acme-run", "mountPath": "/run/acme"},
)


@dataclass(frozen=True, slots=True)
class AcmeDevicePlugin:
    """Renders one DaemonSet. What a user gives of the same name as something of ours replaces it."""

    name: str = NAME
    owns: tuple[Kind, ...] = (Kind(api_version="apps/v1", kind="DaemonSet", plural="daemonsets"),)
    requires: tuple[str, ...] = ("image",)

    def render(self, request: DevicePluginRequest) -> Sequence[Manifest]:
        """Return the DaemonSet. The core adds its name, labels, selector and owner."""
        given = params.read(request.params)
        own_env = (
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "ACME_HEALTH_PORT", "value": str(given.health_port)},
            {"name": "ACME_VIRTUAL_FUNCTIONS", "value": str(given.virtual_functions)},
        )
        container: dict[str, Any] = {
            "name": "device-plugin",
            "image": request.image,
            "imagePullPolicy": request.image_pull_policy,
            "command": list(request.command),
            "args": list(request.args),
            "env": _replaced("name", own_env, request.env),
            "ports": [{"name": "health", "containerPort": given.health_port}],
            "resources": dict(request.resources),
            # Splitting a card into functions takes a while at first; after that, one that hangs is started again.
            "startupProbe": _probe("/healthz", period_s=2, failures=60),
            "livenessProbe": _probe("/healthz", period_s=10, failures=3),
            "readinessProbe": _probe("/readyz", period_s=5, failures=1),
            "securityContext": {"privileged": True},
            "volumeMounts": _replaced("mountPath", _MOUNTS, request.volume_mounts),
        }
        pod: dict[str, Any] = {
            "initContainers": [{"name": "init", **request.init_container}] if request.init_container else [],
            "containers": [_set(container)],
            "imagePullSecrets": [{"name": request.pull_secret}] if request.pull_secret else [],
            "nodeSelector": dict(request.node_selector),
            "priorityClassName": "system-node-critical",
            "serviceAccountName": request.service_account_name,
            "tolerations": list(request.tolerations),
            "volumes": _replaced("name", _VOLUMES, request.volumes),
        }
        return [{"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": {"template": {"spec": _set(pod)}}}]

    def observe(self, objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:  # noqa: ARG002
        """Say how many nodes the device plugin runs on, whatever a status may be."""
        status = objects[0].get("status") if objects else None
        if not isinstance(status, Mapping) or not status:
            return Progress(state=State.PENDING)
        available, wanted = (status.get(key, 0) for key in ("numberAvailable", "desiredNumberScheduled"))
        return Progress(state=State.RUNNING, message=f"{available} of {wanted} available")


def _probe(path: str, *, period_s: int, failures: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "health"}, "periodSeconds": period_s, "failureThreshold": failures}


def _replaced(key: str, own: Iterable[Manifest], users: Sequence[Manifest]) -> list[Manifest]:
    """Return ours and the user's, without those of ours that the user has one of the same `key` for."""
    taken = {each.get(key) for each in users}
    return [*(each for each in own if each[key] not in taken), *users]


def _set(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that say something."""
    return {name: value for name, value in fields.items() if value not in (None, [], {})}
