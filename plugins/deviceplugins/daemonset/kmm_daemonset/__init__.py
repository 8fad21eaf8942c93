"""Runs a Module's device plugin as a DaemonSet on the nodes where the driver is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kmm.contract import DevicePlugin, DevicePluginRequest, Kind, Manifest, Progress, Settings, State

_SOCKETS = "/var/lib/kubelet/device-plugins"
_SOCKETS_VOLUME = "kubelet-device-plugins"


@dataclass(frozen=True, slots=True)
class DaemonSet:
    """Renders one DaemonSet. Where the kubelet keeps its sockets comes first in volumes, last in mounts."""

    name: str = "daemonset"
    owns: tuple[Kind, ...] = (Kind(api_version="apps/v1", kind="DaemonSet", plural="daemonsets"),)
    requires: tuple[str, ...] = ("image",)

    def render(self, request: DevicePluginRequest) -> Sequence[Manifest]:
        """Return the DaemonSet. The core adds its name, labels and selector."""
        if request.params:
            raise ValueError(f"devicePlugin.params: the renderer daemonset takes none, not {sorted(request.params)}")
        container: dict[str, Any] = {
            "name": "device-plugin",
            "image": request.image,
            "command": list(request.command),
            "args": list(request.args),
            "env": list(request.env),
            "imagePullPolicy": request.image_pull_policy,
            "resources": dict(request.resources),
            "securityContext": {"privileged": True},
            "volumeMounts": [*request.volume_mounts, {"name": _SOCKETS_VOLUME, "mountPath": _SOCKETS}],
        }
        pod: dict[str, Any] = {
            "initContainers": [{"name": "init", **request.init_container}] if request.init_container else [],
            "containers": [_without_empty(container)],
            "imagePullSecrets": [{"name": request.pull_secret}] if request.pull_secret else [],
            "nodeSelector": dict(request.node_selector),
            "priorityClassName": "system-node-critical",
            "serviceAccountName": request.service_account_name,
            "tolerations": list(request.tolerations),
            "volumes": [
                {"name": _SOCKETS_VOLUME, "hostPath": {"path": _SOCKETS, "type": "Directory"}},
                *request.volumes,
            ],
        }
        template = {"spec": _without_empty(pod)}
        return [{"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": {"template": template}}]

    def observe(self, objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:  # noqa: ARG002
        """Say whether the DaemonSet's controller has seen it, and how many of its pods are available."""
        status = objects[0].get("status") if objects else None
        status = status if isinstance(status, dict) else {}
        wanted, available = status.get("desiredNumberScheduled", 0), status.get("numberAvailable", 0)
        return Progress(
            state=State.RUNNING if status else State.PENDING, message=f"{available} of {wanted} available"
        )


def _without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def kmm_device_plugins(settings: Settings) -> list[DevicePlugin]:
    """Offer it, under the name `daemonset`."""
    settings.only()
    return [DaemonSet()]
