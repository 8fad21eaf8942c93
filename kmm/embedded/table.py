"""What `kubectl get` shows: the columns of Kubernetes' own kinds, and those of CustomResourceDefinitions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import jsonpath

from kmm.embedded.condition import condition_of
from kmm.embedded.resource import Cell, Column, Resource
from kmm.embedded.storage import Record

Body = Mapping[str, Any]


def table(resource: Resource, records: Iterable[Record], meta: Mapping[str, Any], include: str) -> dict[str, Any]:
    """Return a `meta.k8s.io/v1` Table. `include`: Metadata, Object or None."""
    columns = resource.columns or (NAME, AGE)
    rows = []
    for record in records:
        body = record.read()
        row: dict[str, Any] = {"cells": [_shown(column, column.cell(body)) for column in columns]}
        if include == "Object":
            row["object"] = body
        elif include != "None":
            row["object"] = partial(body)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(meta),
        "columnDefinitions": [
            {
                "name": column.name,
                "type": "string" if column.type == "date" else column.type,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            }
            for column in columns
        ],
        "rows": rows,
    }


def partial(body: Body) -> dict[str, Any]:
    """Return an object's metadata alone, as a PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": body["metadata"]}


def printer_columns(version: Mapping[str, Any]) -> tuple[Column, ...]:
    """Return the columns of a CustomResourceDefinition's version."""
    said = version.get("additionalPrinterColumns")
    if said is None:
        return (NAME, AGE)
    return (
        NAME,
        *(
            Column(
                name=each["name"],
                cell=_by_path(each["jsonPath"]),
                type=each["type"],
                format=each.get("format", ""),
                priority=each.get("priority", 0),
                description=each.get("description", ""),
            )
            for each in said
        ),
    )


def _by_path(path: str) -> Cell:
    compiled = jsonpath.compile("$" + path)
    return lambda body: next((match.obj for match in compiled.finditer(dict(body))), None)


def _shown(column: Column, value: Any) -> Any:
    if value is None:
        return None
    if column.type == "date":
        return _age(value)
    if column.type == "integer":
        return value if isinstance(value, int) else None
    if column.type in ("boolean", "number"):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _age(value: Any) -> str:
    try:
        then = datetime.fromisoformat(str(value))
    except ValueError:
        return "<invalid>"
    return _duration((datetime.now(UTC) - then).total_seconds())


def _duration(seconds: float) -> str:
    """Return a duration as people are shown it."""
    whole = max(int(seconds), 0)
    if whole < 120:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60}s" if whole % 60 else f"{whole // 60}m"
    if whole < 3 * 3600:
        return f"{whole // 60}m"
    if whole < 8 * 3600:
        return f"{whole // 3600}h{whole % 3600 // 60}m" if whole % 3600 // 60 else f"{whole // 3600}h"
    if whole < 48 * 3600:
        return f"{whole // 3600}h"
    return f"{whole // 86400}d"


def _get(body: Body, path: str, otherwise: Any = None) -> Any:
    value: Any = body
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return otherwise if value is None else value


def _field(path: str, otherwise: Any = None) -> Cell:
    return lambda body: _get(body, path, otherwise)


def _since(path: str) -> Cell:
    return lambda body: _age(_get(body, path)) if _get(body, path) else "<unknown>"


def _count(path: str) -> Cell:
    return lambda body: len(_get(body, path, ()))


NAME = Column(name="Name", cell=_field("metadata.name"), format="name")
AGE = Column(name="Age", cell=_since("metadata.creationTimestamp"))


def _node_status(body: Body) -> str:
    ready = condition_of(body.get("status"), "Ready")
    said = "Unknown" if not ready else "Ready" if ready["status"] == "True" else "NotReady"
    return said + (",SchedulingDisabled" if _get(body, "spec.unschedulable") else "")


def _node_roles(body: Body) -> str:
    prefix = "node-role.kubernetes.io/"
    roles = sorted(key.removeprefix(prefix) for key in _get(body, "metadata.labels", {}) if key.startswith(prefix))
    return ",".join(roles) or "<none>"


def _pod_ready(body: Body) -> str:
    ready = sum(each.get("ready", False) for each in _get(body, "status.containerStatuses", ()))
    return f"{ready}/{len(_get(body, 'spec.containers', ()))}"


def _pod_status(body: Body) -> str:
    said: str = _get(body, "status.reason") or _get(body, "status.phase", "Unknown")
    for each in reversed(_get(body, "status.containerStatuses", ())):
        state = each.get("state", {})
        for kind in ("waiting", "terminated"):
            if kind in state:
                said = state[kind].get("reason") or f"ExitCode:{state[kind].get('exitCode', 0)}"
    return "Terminating" if "deletionTimestamp" in body["metadata"] else said


def _pod_restarts(body: Body) -> str:
    return str(sum(each.get("restartCount", 0) for each in _get(body, "status.containerStatuses", ())))


def _selector(path: str) -> Cell:
    return lambda body: ",".join(f"{key}={value}" for key, value in _get(body, path, {}).items()) or "<none>"


def _job_status(body: Body) -> str:
    on = {each["type"] for each in _get(body, "status.conditions", ()) if each["status"] == "True"}
    if "deletionTimestamp" in body["metadata"]:
        return "Terminating"
    known = ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet")
    return next((each for each in known if each in on), "Running")


def _job_duration(body: Body) -> str:
    start, end = _get(body, "status.startTime"), _get(body, "status.completionTime")
    if not start:
        return ""
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return _duration((until - datetime.fromisoformat(start)).total_seconds())


def _wide(name: str, path: str, otherwise: Any = "<none>") -> Column:
    return Column(name=name, cell=_field(path, otherwise), priority=1)


def _number(name: str, path: str) -> Column:
    return Column(name=name, cell=_field(path, 0), type="integer")


def _subject(body: Body) -> str:
    return f"{_get(body, 'involvedObject.kind', '').lower()}/{_get(body, 'involvedObject.name', '')}"


def _last_seen(body: Body) -> str:
    for path in ("series.lastObservedTime", "lastTimestamp", "eventTime", "firstTimestamp"):
        if _get(body, path):
            return _age(_get(body, path))
    return "<unknown>"


@functools.cache
def builtin_columns() -> dict[str, tuple[Column, ...]]:
    """Return the columns of Kubernetes' own kinds."""
    column: Callable[[str, Cell], Column] = lambda name, cell: Column(name=name, cell=cell)  # noqa: E731
    return {
        "Namespace": (NAME, column("Status", _field("status.phase")), AGE),
        "Node": (
            NAME,
            column("Status", _node_status),
            column("Roles", _node_roles),
            AGE,
            column("Version", _field("status.nodeInfo.kubeletVersion", "")),
            _wide("OS-Image", "status.nodeInfo.osImage"),
            _wide("Kernel-Version", "status.nodeInfo.kernelVersion"),
        ),
        "Pod": (
            NAME,
            column("Ready", _pod_ready),
            column("Status", _pod_status),
            column("Restarts", _pod_restarts),
            AGE,
            _wide("IP", "status.podIP"),
            _wide("Node", "spec.nodeName"),
        ),
        "DaemonSet": (
            NAME,
            _number("Desired", "status.desiredNumberScheduled"),
            _number("Current", "status.currentNumberScheduled"),
            _number("Ready", "status.numberReady"),
            _number("Up-to-date", "status.updatedNumberScheduled"),
            _number("Available", "status.numberAvailable"),
            column("Node Selector", _selector("spec.template.spec.nodeSelector")),
            AGE,
        ),
        "Job": (
            NAME,
            column("Status", _job_status),
            column(
                "Completions",
                lambda body: f"{_get(body, 'status.succeeded', 0)}/{_get(body, 'spec.completions', 1)}",
            ),
            column("Duration", _job_duration),
            AGE,
        ),
        "ConfigMap": (NAME, Column(name="Data", cell=_count("data"), type="integer"), AGE),
        "Secret": (
            NAME,
            column("Type", _field("type")),
            Column(name="Data", cell=_count("data"), type="integer"),
            AGE,
        ),
        "ServiceAccount": (NAME, AGE),
        "Event": (
            column("Last Seen", _last_seen),
            column("Type", _field("type")),
            column("Reason", _field("reason")),
            column("Object", _subject),
            column("Message", lambda body: _get(body, "message", "").strip()),
        ),
        "Lease": (NAME, column("Holder", _field("spec.holderIdentity", "")), AGE),
        "CustomResourceDefinition": (
            NAME,
            column("Created At", _field("metadata.creationTimestamp")),
        ),
    }
