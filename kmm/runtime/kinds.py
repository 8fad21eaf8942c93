"""What is kept of each kind that is watched: only what plans are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import msgspec

from kmm.api.metadata import PREFIX
from kmm.contract import Kind
from kmm.core import names
from kmm.core.loader_daemonset import DAEMON_SET
from kmm.core.placement import Node, node_of
from kmm.core.view import DaemonSet
from kmm.runtime.labels import Labels, shared

MODULE = Kind(api_version="kmm.sigs.x-k8s.io/v1beta1", kind="Module", plural="modules")
NODE = Kind(api_version="v1", kind="Node", plural="nodes")
NAMESPACE = Kind(api_version="v1", kind="Namespace", plural="namespaces")
POD = Kind(api_version="v1", kind="Pod", plural="pods")
CONFIG_MAP = Kind(api_version="v1", kind="ConfigMap", plural="configmaps")
SECRET = Kind(api_version="v1", kind="Secret", plural="secrets")
SERVICE_ACCOUNT = Kind(api_version="v1", kind="ServiceAccount", plural="serviceaccounts")
EVENT = Kind(api_version="v1", kind="Event", plural="events")
LEASE = Kind(api_version="coordination.k8s.io/v1", kind="Lease", plural="leases")
_SAID = 8_192  # characters of what the kubelet says: the end, which says why
_LEFT = 4_096  # of what a container leaves: as much as the kubelet keeps of it


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """An object of a Module's. `owner`: its controller's uid, empty where it has none."""

    owner: str
    daemon_set: DaemonSet | None = None
    manifest: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod of ours. `owner`: the uid of its DaemonSet or task; `manifest`: of a task's pod, for its renderer."""

    owner: str
    module: str
    role: str
    node: str
    ready: bool
    deleting: bool
    held: bool
    waiting_reason: str = ""
    waiting_message: str = ""
    termination_message: str = ""
    manifest: Mapping[str, Any] | None = None


def path_of(kind: Kind, namespace: str = "", name: str = "") -> str:
    """Return the path of a kind, in a namespace or in all, or of one object.

    Raises ValueError for a name that is the path of something else: those that users write are judged before.
    """
    if any("/" in each or each in (".", "..") for each in (namespace, name)):
        raise ValueError("it is no name of an object")
    root = f"/apis/{kind.api_version}" if "/" in kind.api_version else f"/api/{kind.api_version}"
    return root + (f"/namespaces/{namespace}" if namespace else "") + f"/{kind.plural}" + (f"/{name}" if name else "")


class _Meta(TypedDict, total=False):
    name: str
    namespace: str
    uid: str
    resourceVersion: str
    deletionTimestamp: str
    labels: dict[str, str] | None
    ownerReferences: list[dict[str, Any]] | None
    finalizers: list[str] | None


class _NodeInfo(TypedDict, total=False):
    kernelVersion: str
    architecture: str
    osImage: str


class _Condition(TypedDict, total=False):
    type: str
    status: str


class _NodeSpec(TypedDict, total=False):
    taints: list[dict[str, Any]] | None


class _NodeStatus(TypedDict, total=False):
    nodeInfo: _NodeInfo
    conditions: list[_Condition] | None


class _Node(TypedDict, total=False):
    metadata: _Meta
    spec: _NodeSpec
    status: _NodeStatus


class _PodSpec(TypedDict, total=False):
    nodeName: str
    readinessGates: list[Any] | None


class _Pod(TypedDict, total=False):
    metadata: _Meta
    spec: _PodSpec
    status: dict[str, Any]


# A node's list of images is most of it, as a pod's volumes are: what is not named above is passed over, not read.
read_node = msgspec.json.Decoder(_Node).decode
read_pod = msgspec.json.Decoder(_Pod).decode


def trim_node(body: Mapping[str, Any]) -> Node:
    """Return what placement asks of a node; strings that many nodes share are kept once."""
    node = node_of(body)
    return replace(
        node,
        labels=Labels(node.labels),
        kernel=shared(node.kernel),
        architecture=shared(node.architecture),
        os_image=shared(node.os_image),
    )


def trim_module(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a Module without what nobody reads."""
    meta = body["metadata"]
    kept = {key: meta[key] for key in ("name", "namespace", "uid", "generation", "deletionTimestamp") if key in meta}
    return {
        "apiVersion": MODULE.api_version,
        "kind": MODULE.kind,
        "metadata": kept,
        "spec": body.get("spec"),
        "status": body.get("status") or {},
    }


def trim_namespace(body: Mapping[str, Any]) -> Mapping[str, str]:
    """Return a namespace's labels."""
    return dict(body["metadata"].get("labels") or {})


def trim_version(body: Mapping[str, Any]) -> str:
    """Return nothing but its version, which tells that it has changed."""
    return str(body["metadata"]["resourceVersion"])


def trim_daemon_set(body: Mapping[str, Any]) -> OwnedObject:
    """Return a DaemonSet as plans see it."""
    meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    selector = (spec.get("selector") or {}).get("matchLabels") or {}
    template_labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    # Its own label can be edited, and must not make another one of it: its pods' cannot.
    roles = (each.get(names.ROLE) for each in (selector, template_labels, labels))
    return OwnedObject(
        _controller(meta),
        DaemonSet(
            kind=DAEMON_SET,
            name=meta["name"],
            uid=meta["uid"],
            generation=meta.get("generation", 1),
            created=meta.get("creationTimestamp") or "",
            deleting="deletionTimestamp" in meta,
            labels=labels,
            annotations={key: value for key, value in annotations.items() if key.startswith(PREFIX)},
            role=next(filter(None, roles), ""),
            selector=selector,
            # Only what we did not render is compared field by field.
            spec=None if names.APPLIED_GENERATION in annotations else spec,
            scheduled=status.get("currentNumberScheduled", 0),
            ready=status.get("numberReady", 0),
            available=status.get("numberAvailable", 0),
        ),
    )


def trim_task(body: Mapping[str, Any], operators: str = "") -> OwnedObject:
    """Return a task's object: its renderer may read all of it. `operators`: the operator's namespace."""
    meta = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    return OwnedObject(owner_of_task(meta, operators), manifest={**body, "metadata": meta})


def owner_of_task(meta: Mapping[str, Any], operators: str) -> str:
    """Return the uid of the Module that a task is of: its owner, or what is noted where there can be none.

    What is noted counts in the operator's namespace alone, where strangers create nothing.
    """
    noted = (meta.get("annotations") or {}).get(names.MODULE_UID, "") if meta.get("namespace") == operators else ""
    return _controller(meta) or noted


def trim_pod(body: Mapping[str, Any]) -> PodFacts:
    """Return what is used of a pod."""
    meta, status = body["metadata"], body.get("status") or {}
    labels = meta.get("labels") or {}
    deleting = "deletionTimestamp" in meta
    reason, message, left = _trouble(status.get("containerStatuses") or (), deleting=deleting)
    conditions = {each.get("type"): each.get("status") for each in status.get("conditions") or ()}
    # A node that is cut off has its pods' Ready taken away, and nothing else: our watches may tell that before they
    # tell of the node, and its labels must stay. Only a pod with gates of its own can differ otherwise.
    gated = bool((body.get("spec") or {}).get("readinessGates"))
    is_ready = conditions.get("Ready") == "True" or (not gated and conditions.get("ContainersReady") == "True")
    role = labels.get(names.ROLE, "")
    return PodFacts(
        owner=_controller(meta),
        module=labels.get(names.MODULE_NAME, ""),
        role=shared(role),
        node=shared((body.get("spec") or {}).get("nodeName") or ""),
        ready=is_ready,
        deleting=deleting,
        held=names.HELD_BY_THE_GO_OPERATOR in (meta.get("finalizers") or ()),
        waiting_reason=reason,
        waiting_message=message,
        termination_message=left,
        manifest=None if role else {"metadata": {"name": meta["name"], "labels": labels}, "status": status},
    )


def _trouble(containers: Sequence[Mapping[str, Any]], *, deleting: bool) -> tuple[str, str, str]:
    """Return what the kubelet says of the first container that does not get on: reason, message, what it has left."""
    for each in containers:
        state, last = each.get("state") or {}, each.get("lastState") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        # Until 1.21 the reason holds it all: "PostStartHookError: command 'modprobe …' exited with 1: …".
        reason, _, told = (waiting.get("reason") or "").partition(": ")
        if reason not in ("", "ContainerCreating", "PodInitializing"):
            left = (last.get("terminated") or {}).get("message") or ""
            return shared(reason), (waiting.get("message") or told)[-_SAID:], left[-_LEFT:]
        if deleting and ended.get("message"):
            return "", "", ended["message"][-_LEFT:]
    return "", "", ""


def _controller(meta: Mapping[str, Any]) -> str:
    return next((each["uid"] for each in meta.get("ownerReferences") or () if each.get("controller")), "")
