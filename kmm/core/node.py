"""The labels of one node: its kernel, and what is ready on it. One writer, one patch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from kmm.contract import ModuleRef
from kmm.core import names
from kmm.core.actions import LabelNode, Plan, Release
from kmm.core.placement import Node
from kmm.core.view import Pod


def plan_node(node: Node, pods: Collection[Pod], modules: Mapping[ModuleRef, str], kernels: Collection[str]) -> Plan:
    """Return the one patch that makes a node's labels right.

    `pods`: ours on that node. `modules`: the uid of every Module. `kernels`: those of the whole cluster.

    Ready for a Module is a loader that is Ready, not terminating, of that Module (by uid) and of the node's present
    kernel. While the node itself is not Ready, what is said to be ready stays: a partition must not remove device
    plugins. Labels that name no Module go.
    """
    wanted = {names.KERNEL: names.kernel_label_values({*kernels, node.kernel})[node.kernel]} if node.kernel else {}
    ready = [pod for pod in pods if _is_ready(pod, node, modules)]
    for pod in ready:
        older = names.older_labels(pod.module.name)
        if pod.role == names.LOADER:
            wanted[names.ready_label(pod.module.namespace, pod.module.name)] = ""
            wanted |= {older[0]: ""} if older else {}
        elif pod.role == names.DEVICE_PLUGIN:
            wanted[names.device_plugin_ready_label(pod.module.namespace, pod.module.name)] = ""
            wanted |= {older[1]: ""} if older else {}
    # A Module that came past our admission may have a name too long for a label: it must not cost the others theirs.
    wanted = {key: value for key, value in wanted.items() if names.fits(key)}
    changes: dict[str, str | None] = {key: value for key, value in wanted.items() if node.labels.get(key) != value}
    known = _labels_of(modules)
    for label in node.labels:
        # Ordered upgrade's own label is not said by pods.
        ours = names.is_ready_label(label) and (label in known or not label.endswith(".version.ready"))
        if ours and label not in wanted and (node.ready or label not in known):
            changes[label] = None
    # A stopped operator must not block a drain: so the Go operator's finalizer goes, and we have none.
    held = tuple(
        Release(namespace=pod.module.namespace, name=pod.name, uid=pod.uid)
        for pod in pods
        if pod.deleting and pod.held
    )
    return Plan(actions=(LabelNode(node=node.name, labels=changes), *held) if changes else held)


def _is_ready(pod: Pod, node: Node, modules: Mapping[ModuleRef, str]) -> bool:
    if not pod.ready or pod.deleting or modules.get(pod.module) != pod.module_uid:
        return False
    return pod.role == names.DEVICE_PLUGIN or pod.kernel == node.kernel


def _labels_of(modules: Iterable[ModuleRef]) -> set[str]:
    found: set[str] = set()
    for module in modules:
        found |= {
            names.ready_label(module.namespace, module.name),
            names.device_plugin_ready_label(module.namespace, module.name),
            *(names.older_labels(module.name) or ()),
        }
    return found
