"""The DaemonSet that loads a kernel module on the nodes of one kernel.

Its rendered template is frozen (tests/core/golden): a release that changes it reloads every driver in a fleet.
"""

from __future__ import annotations

from typing import Any

from kmm.api.module import ModuleSpec
from kmm.contract import Kind
from kmm.core import commands, names
from kmm.core.mapping import KernelTarget
from kmm.core.view import Operator, Subject
from kmm.errors import SpecError

DAEMON_SET = Kind(api_version="apps/v1", kind="DaemonSet", plural="daemonsets")
# sleep as PID 1 ignores SIGTERM: this is what preStop may take, and one second for sleep to be killed.
GRACE_PERIOD_S = 30


def render_loader(subject: Subject, target: KernelTarget, kernel_label: str, operator: Operator) -> dict[str, Any]:
    """Return `apiVersion`, `kind` and `spec` of the DaemonSet. Raises SpecError for words that cannot be split."""
    spec = subject.spec
    loader = spec.module_loader if spec else None
    container = loader.container if loader else None
    if spec is None or loader is None or container is None or container.modprobe is None:
        raise SpecError("moduleLoader.container.modprobe is missing")
    modprobe = container.modprobe
    modules = f"/lib/modules/{target.kernel}"
    volumes: list[dict[str, Any]] = [
        {"name": "node-lib-modules", "hostPath": {"path": modules, "type": "Directory"}},
    ]
    mounts: list[dict[str, Any]] = [{"name": "node-lib-modules", "mountPath": modules, "readOnly": True}]
    if modprobe.firmware_path:
        host = {"path": commands.FIRMWARE, "type": "DirectoryOrCreate"}
        volumes.append({"name": "node-var-lib-firmware", "hostPath": host})
        mounts.append({"name": "node-var-lib-firmware", "mountPath": commands.FIRMWARE})
    labels = selector_labels(subject.ref.name, names.LOADER, kernel_label)
    made_container: dict[str, Any] = {
        "name": "module-loader",
        "image": target.image,
        "command": ["sleep", "infinity"],
        "lifecycle": {
            "postStart": {"exec": {"command": list(commands.load_command(modprobe, target.in_tree_modules))}},
            "preStop": {"exec": {"command": list(commands.unload_command(modprobe, target.kernel))}},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["SYS_MODULE"]},
            "runAsUser": 0,
            "seLinuxOptions": {"type": "spc_t"},
        },
        "volumeMounts": mounts,
    }
    if container.image_pull_policy:
        made_container["imagePullPolicy"] = container.image_pull_policy
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "containers": [made_container],
        "nodeSelector": {**spec.selector, names.KERNEL: kernel_label},
        "priorityClassName": "system-node-critical",
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": GRACE_PERIOD_S,
        "volumes": volumes,
    }
    pod |= pod_extras(spec, service_account(subject, loader.service_account_name, names.LOADER, operator))
    return daemon_set(labels, pod, operator)


def selector_labels(module: str, role: str, kernel_label: str | None = None) -> dict[str, str]:
    """Return what a DaemonSet of ours selects its pods by: immutable, so never anything else."""
    labels = {names.MODULE_NAME: module, names.ROLE: role}
    return labels | ({names.KERNEL: kernel_label} if kernel_label is not None else {})


def daemon_set(labels: dict[str, str], pod: dict[str, Any], operator: Operator) -> dict[str, Any]:
    """Return a DaemonSet around a pod."""
    return {
        "apiVersion": DAEMON_SET.api_version,
        "kind": DAEMON_SET.kind,
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": operator.max_unavailable, "maxSurge": 0},
            },
        },
    }


def pod_extras(spec: ModuleSpec, account: str | None) -> dict[str, Any]:
    """Return the pod fields that are there only where they are set."""
    extras: dict[str, Any] = {}
    if account:
        extras["serviceAccountName"] = account
    if spec.image_repo_secret and spec.image_repo_secret.name:
        extras["imagePullSecrets"] = [{"name": spec.image_repo_secret.name}]
    if spec.tolerations:
        extras["tolerations"] = [dict(toleration) for toleration in spec.tolerations]
    return extras


def service_account(subject: Subject, explicit: str | None, role: str, operator: Operator) -> str | None:
    """Return the service account of a role's pods: the explicit one, ours in our namespace, else that namespace's."""
    if explicit:
        return explicit
    return f"kmm-operator-{role}" if subject.ref.namespace == operator.namespace else None
