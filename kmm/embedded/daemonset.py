"""DaemonSets: a pod on every node that takes it, replaced a few at a time."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kmm.embedded.builtin import REVISION
from kmm.embedded.controller import Controller
from kmm.embedded.failure import Failure
from kmm.embedded.node import Place, pinned_node, place_of, selects, untolerated
from kmm.embedded.objects import Deletion, Objects
from kmm.embedded.storage import Event, Record, encode

_P = "node.kubernetes.io/"
TOLERATED = (
    *((_P + key, "NoExecute") for key in ("not-ready", "unreachable")),
    *((_P + key, "NoSchedule") for key in ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")),
)
HASH = "controller-revision-hash"
GENERATION = "pod-template-generation"


class DaemonSetController(Controller):
    """Keys are the uids of DaemonSets."""

    component = "daemonset-controller"

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self._places: dict[str, Place] = {}
        self._node_of: dict[str, str] = {}
        self._failed: dict[tuple[str, str], int] = {}

    def seen(self, event: Event) -> None:
        record = event.record
        match record.resource.key:
            case ("", "nodes"):
                if event.kind == "DELETED":
                    self._places.pop(record.name, None)
                elif (place := place_of(record)) != self._places.get(record.name):
                    self._places[record.name] = place
                else:
                    return
                for each in self.storage.records(self.objects.resource("DaemonSet")):
                    self.enqueue(each.uid)
            case ("apps", "daemonsets"):
                self.enqueue(record.uid)
            case ("", "pods"):
                if event.kind == "DELETED":
                    self._node_of.pop(record.uid, None)
                for owner in record.owners:
                    self.enqueue(owner)
            case ("", "serviceaccounts") if event.kind == "ADDED":
                for each in self.storage.records(self.objects.resource("DaemonSet"), record.namespace):
                    self.enqueue(each.uid)

    def sync(self, key: str) -> None:
        record = self.storage.by_uid(key)
        if record is None or record.resource.kind != "DaemonSet" or record.deleting:
            return
        body = record.read()
        template = body["spec"]["template"]
        revision = hashlib.sha256(encode(template)).hexdigest()[:10]
        by_node: dict[str, list[tuple[Record, dict[str, Any]]]] = {}
        for pod in self.storage.dependents(key):
            if pod.resource.kind != "Pod" or (pod.deleting and pod.fields[1] in ("Succeeded", "Failed")):
                continue
            content = pod.read()
            node = pinned_node(content["spec"])
            by_node.setdefault(node or "", []).append((pod, content))
        for pods in by_node.values():
            pods.sort(
                key=lambda each: (not each[0].fields[0], each[1]["metadata"]["creationTimestamp"], each[0].name)
            )
        runs = self._manage(record, body, revision, by_node)
        if body["spec"]["updateStrategy"]["type"] == "RollingUpdate":
            self._roll(record, body, revision, by_node, len(runs))
        self._tell(record, body, revision, by_node, runs)

    def _manage(
        self, record: Record, body: Mapping[str, Any], revision: str, by_node: Mapping[str, list[Any]]
    ) -> list[str]:
        """Create missing pods, delete those that are not to be; return the nodes that are to have one."""
        spec = body["spec"]["template"]["spec"]
        tolerations = [*(spec.get("tolerations") or ()), *_tolerations()]
        runs = []
        for place in self._places.values():
            selected = selects(spec, place) and spec.get("nodeName", place.name) == place.name
            should_run = selected and not untolerated(tolerations, place)
            stays = selected and not untolerated(tolerations, place, ("NoExecute",))
            pods = by_node.get(place.name, [])
            if should_run:
                runs.append(place.name)
                if not pods:
                    self._create(record, body, revision, place.name)
            for index, (pod, _) in enumerate(pods):
                if pod.deleting:
                    continue
                if not stays:
                    self._delete(record, pod)
                elif pod.fields[1] in ("Failed", "Succeeded"):
                    self._replace_ended(record, pod, place.name)
                elif index and any(not each.deleting for each, _ in pods[:index]):
                    self._delete(record, pod)
        return runs

    def _replace_ended(self, record: Record, pod: Record, node: str) -> None:
        ended = pod.fields[1].lower()
        verb = "kill" if ended == "failed" else "delete"
        self.announce(
            record,
            "Warning" if ended == "failed" else "Normal",
            f"{pod.fields[1]}DaemonPod",
            f"Found {ended} daemon pod {pod.namespace}/{pod.name} on node {node}, will try to {verb} it",
        )
        self._delete(record, pod)

    def _create(self, record: Record, body: Mapping[str, Any], revision: str, node: str) -> None:
        template = copy.deepcopy(body["spec"]["template"])
        meta = template.get("metadata") or {}
        spec = template["spec"]
        spec["tolerations"] = [*(spec.get("tolerations") or ()), *_tolerations()]
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        node_affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
        node_affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [term]}
        pod = {
            "metadata": {
                "generateName": f"{record.name}-",
                "labels": {
                    **(meta.get("labels") or {}),
                    HASH: revision,
                    GENERATION: body["metadata"]["annotations"].get(REVISION, "1"),
                },
                "annotations": meta.get("annotations") or {},
                "ownerReferences": [owner_reference(record)],
            },
            "spec": spec,
        }
        try:
            made = self.objects.create(self.objects.resource("Pod"), record.namespace, pod)
        except Failure as failure:
            self.announce(record, "Warning", "FailedCreate", f"Error creating: {failure}")
            self.enqueue(record.uid, after_s=1)
        else:
            self.announce(record, "Normal", "SuccessfulCreate", f"Created pod: {made.name}")

    def _delete(self, record: Record, pod: Record) -> None:
        self.objects.delete(pod, Deletion(uid=pod.uid))
        self.announce(record, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")

    def _roll(
        self, record: Record, body: Mapping[str, Any], revision: str, by_node: Mapping[str, list[Any]], desired: int
    ) -> None:
        """Delete old pods: unavailable ones at once, others as far as the strategy allows."""
        allowed = _scaled(body["spec"]["updateStrategy"]["rollingUpdate"].get("maxUnavailable", 1), desired) or 1
        unavailable = 0
        candidates = []
        for pods in by_node.values():
            alive = [(pod, content) for pod, content in pods if not pod.deleting]
            if len(alive) != 1:
                unavailable += 1
                continue
            pod, content = alive[0]
            old = pod.labels.get(HASH) != revision
            available = self._available(body, content)
            if not available:
                unavailable += 1
                if old:
                    self._delete(record, pod)
            elif old:
                candidates.append(pod)
        for pod in candidates[: max(0, allowed - unavailable)]:
            self._delete(record, pod)

    def _tell(
        self,
        record: Record,
        body: Mapping[str, Any],
        revision: str,
        by_node: Mapping[str, list[Any]],
        runs: list[str],
    ) -> None:
        first = [by_node[node][0] for node in runs if by_node.get(node)]
        available = sum(self._available(body, content) for _, content in first)
        status = {
            "currentNumberScheduled": len(first),
            "numberMisscheduled": sum(1 for node in by_node if node in self._places and node not in set(runs)),
            "desiredNumberScheduled": len(runs),
            "numberReady": sum(_ready(content) is not None for _, content in first),
            "observedGeneration": body["metadata"]["generation"],
        }
        more = {
            "updatedNumberScheduled": sum(pod.labels.get(HASH) == revision for pod, _ in first),
            "numberAvailable": available,
            "numberUnavailable": len(runs) - available,
        }
        self.objects.set_status(record, status | {key: value for key, value in more.items() if value})

    def _available(self, body: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
        since = _ready(pod)
        if since is None:
            return False
        least_s = body["spec"].get("minReadySeconds", 0)
        if not least_s:
            return True
        left_s = least_s - (datetime.now(UTC) - since).total_seconds()
        if left_s > 0:
            self.enqueue(body["metadata"]["uid"], after_s=left_s)
        return bool(left_s <= 0)


def owner_reference(record: Record) -> dict[str, Any]:
    """Return what a controller's dependents say of it."""
    return {
        "apiVersion": record.resource.api_version,
        "kind": record.resource.kind,
        "name": record.name,
        "uid": record.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _tolerations() -> list[dict[str, str]]:
    return [{"key": key, "operator": "Exists", "effect": effect} for key, effect in TOLERATED]


def _ready(pod: Mapping[str, Any]) -> datetime | None:
    for each in (pod.get("status") or {}).get("conditions") or ():
        if each["type"] == "Ready" and each["status"] == "True":
            return datetime.fromisoformat(each["lastTransitionTime"])
    return None


def _scaled(value: int | str, total: int) -> int:
    """Return a number, or a percentage of a total rounded up."""
    if isinstance(value, str):
        return math.ceil(int(value.rstrip("%")) * total / 100)
    return value
