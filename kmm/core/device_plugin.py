"""The objects that run a Module's device plugin where its driver is loaded: what a renderer makes, finished by us."""

from __future__ import annotations

from typing import Any

from kmm.contract import DevicePlugin, DevicePluginRequest
from kmm.core import names
from kmm.core.kernel import expand
from kmm.core.loader_daemonset import DAEMON_SET, selector_labels, service_account
from kmm.core.rendered import render
from kmm.core.view import Operator, Subject
from kmm.errors import PluginError, SpecError


def render_device_plugin(subject: Subject, renderer: DevicePlugin, operator: Operator) -> dict[str, Any]:
    """Return `apiVersion`, `kind` and `spec` of the device plugin's DaemonSet.

    Raises SpecError for a template that cannot be read, PluginError for what the renderer may not make.
    """
    spec = subject.spec
    wanted = spec.device_plugin if spec else None
    container = wanted.container if wanted else None
    if spec is None or wanted is None or container is None or container.image is None:
        raise SpecError("devicePlugin.container.image is missing")
    ready = names.ready_label(subject.ref.namespace, subject.ref.name)
    request = DevicePluginRequest(
        module=subject.ref,
        image=expand(container.image, subject.ref, None),
        image_pull_policy=container.image_pull_policy,
        command=container.command,
        args=container.args,
        env=container.env,
        resources=container.resources or {},
        volume_mounts=container.volume_mounts,
        volumes=wanted.volumes,
        init_container=wanted.init_container,
        service_account_name=service_account(subject, wanted.service_account_name, names.DEVICE_PLUGIN, operator),
        pull_secret=spec.image_repo_secret.name if spec.image_repo_secret else None,
        node_selector={**spec.selector, ready: ""},
        tolerations=spec.tolerations,
        params=wanted.params,
    )
    (made, *more) = render(renderer, request, subject.ref.namespace)
    if more or (made["apiVersion"], made["kind"]) != (DAEMON_SET.api_version, DAEMON_SET.kind):
        raise PluginError(f'"{renderer.name}" must render exactly one DaemonSet')
    return _selected(made, subject, operator, renderer.name)


def _selected(made: Any, subject: Subject, operator: Operator, renderer: str) -> dict[str, Any]:
    """Return the DaemonSet with the labels that we find its pods by, and our way of updating it."""
    labels = selector_labels(subject.ref.name, names.DEVICE_PLUGIN)
    try:
        spec, template = dict(made["spec"]), dict(made["spec"]["template"])
        template["metadata"] = dict(template.get("metadata") or {})
        template["metadata"]["labels"] = {**(template["metadata"].get("labels") or {}), **labels}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PluginError(f'"{renderer}" rendered a DaemonSet without a pod template') from None
    rolling = {"maxUnavailable": operator.max_unavailable, "maxSurge": 0}
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    spec |= {"selector": {"matchLabels": labels}, "template": template, "updateStrategy": strategy}
    return {**made, "spec": spec}
