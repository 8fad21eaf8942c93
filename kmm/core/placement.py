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
            nodes=len(nodes), architectures=frozenset(node.architecture for node in nodes if node.architecture)
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
