"""Which nodes a Module targets: its selector, and tolerations that cover their taints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kmm.api.module import ModuleSpec
from kmm.contract import Manifest
from kmm.core.view import KernelNodes

# What the DaemonSet controller adds to every pod: these taints never keep a loader away.
_DAEMON_SETS_OWN = frozenset(
    f"node.kubernetes.io/{what}"
    for what in (
        "not-ready",
        "unreachable",
        "disk-pressure",
        "memory-pressure",
        "pid-pressure",
        "unschedulable",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """A node's taint."""

    key: str
    effect: str
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What is used of a node."""

    name: str
    kernel: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...] = ()
    architecture: str = ""
    os_image: str = ""
    ready: bool = True


def targeted(spec: ModuleSpec, nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """Return the targeted nodes by kernel. A cordoned node is still targeted: it keeps its loader."""
    found: dict[str, list[Node]] = {}
    for node in nodes:
        if is_targeted(spec, node):
            found.setdefault(node.kernel, []).append(node)
    return found


def by_kernel(targets: Mapping[str, Sequence[Node]]) -> dict[str, KernelNodes]:
    """Return what a View wants to know of targeted nodes."""
    return {
        kernel: KernelNodes(
            nodes=len(nodes),
            architectures=frozenset(node.architecture for node in nodes if node.architecture),
            os_images=frozenset(node.os_image for node in nodes if node.os_image),
        )
        for kernel, nodes in targets.items()
    }


def is_targeted(spec: ModuleSpec, node: Node) -> bool:
    """Whether the Module wants its driver on that node."""
    labels = node.labels
    if any(labels.get(key) != value for key, value in spec.selector.items()):
        return False
    return all(tolerated(spec.tolerations, taint) for taint in node.taints)


def tolerated(tolerations: Iterable[Manifest], taint: Taint) -> bool:
    """Whether a pod of a DaemonSet with these tolerations may run beside that taint."""
    if taint.effect not in ("NoSchedule", "NoExecute"):
        return True
    if taint.key in _DAEMON_SETS_OWN:
        return True
    return any(_covers(toleration, taint) for toleration in tolerations)


def _covers(toleration: Manifest, taint: Taint) -> bool:
    if (toleration.get("effect") or taint.effect) != taint.effect:
        return False
    key, operator = toleration.get("key") or "", toleration.get("operator") or "Equal"
    if key and key != taint.key:
        return False
    if operator == "Exists":
        return True
    return bool(key) and operator == "Equal" and (toleration.get("value") or "") == taint.value


def node_of(manifest: Manifest) -> Node:
    """Return what is used of a Node's manifest; what is missing or of a wrong type counts as absent."""
    metadata, spec, status = (_object(manifest, key) for key in ("metadata", "spec", "status"))
    info = _object(status, "nodeInfo")
    conditions = status.get("conditions")
    ready = any(
        isinstance(each, Mapping) and each.get("type") == "Ready" and each.get("status") == "True"
        for each in (conditions if isinstance(conditions, list) else ())
    )
    taints = spec.get("taints")
    return Node(
        name=str(metadata.get("name") or ""),
        kernel=str(info.get("kernelVersion") or "").encode("utf-8", "replace").decode(),
        labels={str(key): str(value) for key, value in _object(metadata, "labels").items()},
        taints=tuple(
            Taint(
                key=str(each.get("key", "")), effect=str(each.get("effect", "")), value=str(each.get("value") or "")
            )
            for each in (taints if isinstance(taints, list) else ())
            if isinstance(each, Mapping)
        ),
        architecture=str(info.get("architecture") or ""),
        os_image=str(info.get("osImage") or ""),
        ready=ready,
    )


def _object(of: Manifest, key: str) -> Manifest:
    value = of.get(key)
    return value if isinstance(value, Mapping) else {}


def why_not(spec: ModuleSpec, node: Node) -> str:
    """Return why a node is not targeted, or an empty text where it is."""
    for key, value in spec.selector.items():
        if key not in node.labels:
            return f'without the label "{key}"'
        if node.labels[key] != value:
            return f'whose label "{key}" is not "{value}"'
    for taint in node.taints:
        if not tolerated(spec.tolerations, taint):
            value = f"={taint.value}" if taint.value else ""
            return f'with the taint "{taint.key}{value}:{taint.effect}", which is not tolerated'
    return ""
