"""Nodes as the control plane sees them: taints from conditions, and which pods a node takes."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kmm.embedded.condition import condition_of
from kmm.embedded.controller import Controller
from kmm.embedded.objects import Deletion, now_text
from kmm.embedded.selector import accepts, of_expressions
from kmm.embedded.storage import Event, Record

_P = "node.kubernetes.io/"
OURS = tuple(_P + each for each in ("not-ready", "unreachable", "unschedulable"))
Taint = tuple[str, str, str]  # key, value, effect


@dataclass(frozen=True, slots=True)
class Place:
    """What decides whether a pod may be on a node."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]


@functools.lru_cache(maxsize=64)
def place_of(record: Record) -> Place:
    """Return a node as a place for pods."""
    taints = record.read().get("spec", {}).get("taints") or ()
    return Place(
        record.name,
        record.labels,
        tuple((each["key"], each.get("value", ""), each["effect"]) for each in taints),
    )


def selects(spec: Mapping[str, Any], place: Place) -> bool:
    """Whether a pod's node selector and required node affinity accept a node."""
    if any(place.labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = _required_affinity(spec)
    if not affinity:
        return True
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and accepts(of_expressions(term.get("matchExpressions") or ()), place.labels)
        and accepts(of_expressions(term.get("matchFields") or ()), {"metadata.name": place.name})
        for term in affinity["nodeSelectorTerms"]
    )


def _required_affinity(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    return affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}


def untolerated(
    tolerations: Iterable[Mapping[str, Any]], place: Place, effects: tuple[str, ...] = ("NoSchedule", "NoExecute")
) -> list[Taint]:
    """Return the taints that keep a pod with these tolerations away."""
    tolerations = list(tolerations)
    return [
        taint
        for taint in place.taints
        if taint[2] in effects and not any(_tolerates(each, taint) for each in tolerations)
    ]


def _tolerates(toleration: Mapping[str, Any], taint: Taint) -> bool:
    key, value, effect = taint
    if toleration.get("effect") not in (None, "", effect) or toleration.get("key") not in (None, "", key):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == value


class NodeController(Controller):
    """Taints nodes by their condition, as the node lifecycle controller does; takes pods of nodes that are gone."""

    component = "node-controller"

    def seen(self, event: Event) -> None:
        if event.record.resource.key == ("", "nodes"):
            self.enqueue((event.kind == "DELETED", event.record.name))

    def sync(self, key: tuple[bool, str]) -> None:
        gone, name = key
        resource = self.objects.resource("Node")
        record = self.storage.get(resource, "", name)
        if record is None:
            pods = self.objects.resource("Pod")
            for pod in [each for each in self.storage.records(pods) if gone and each.fields[0] == name]:
                self.objects.delete(pod, Deletion(grace_s=0))
            return
        body = record.read()
        spec = body.setdefault("spec", {})
        status = body.get("status") or {}
        ready = condition_of(status, "Ready").get("status", "False")
        if ready != "True":
            self._unready_pods(name)
        wanted = [(OURS[2], "NoSchedule")] if spec.get("unschedulable") else []
        if ready != "True":
            why = OURS[1] if ready == "Unknown" else OURS[0]
            wanted += [(why, "NoSchedule"), *([(why, "NoExecute")] if status.get("conditions") else ())]
        taints = [each for each in spec.get("taints") or () if each["key"] not in OURS]
        taints += [{"key": taint, "effect": effect} for taint, effect in wanted]
        if taints != (spec.get("taints") or []):
            spec["taints"] = taints
            if not taints:
                del spec["taints"]
            self.storage.write(resource, body)

    def _unready_pods(self, node: str) -> None:
        """Say of the pods of a node that is not ready that they are not either; their kubelet says otherwise."""
        for pod in self.storage.records(self.objects.resource("Pod")):
            if pod.fields[0] != node:
                continue
            status = pod.read().get("status") or {}
            for each in status.get("conditions") or ():
                if each.get("type") == "Ready" and each.get("status") == "True":
                    each["status"], each["lastTransitionTime"] = "False", now_text()
                    self.objects.set_status(pod, status)


class Scheduler(Controller):
    """Binds pods to nodes: the first that takes it among those with the fewest pods. Keys are uids."""

    component = "default-scheduler"

    def __init__(self, objects: Any) -> None:
        super().__init__(objects)
        self._places: dict[str, Place] = {}
        self._count: Counter[str] = Counter()
        self._stuck: set[str] = set()

    def seen(self, event: Event) -> None:
        record = event.record
        if record.resource.key == ("", "nodes"):
            if event.kind == "DELETED":
                self._places.pop(record.name, None)
            elif (place := place_of(record)) != self._places.get(record.name):
                self._places[record.name] = place
                for uid in self._stuck:
                    self.enqueue(uid)
        elif record.resource.key == ("", "pods"):
            bound = event.before is None or not event.before.fields[0]
            if event.kind == "DELETED":
                self._count[record.fields[0]] -= 1
                self._stuck.discard(record.uid)
            elif record.fields[0] and bound:
                self._count[record.fields[0]] += 1
            elif not record.fields[0] and not record.deleting and record.uid not in self._stuck:
                self.enqueue(record.uid)

    def sync(self, key: str) -> None:
        record = self.storage.by_uid(key)
        if record is None or record.fields[0] or record.deleting:
            self._stuck.discard(key)
            return
        body = record.read()
        spec = body["spec"]
        if spec.get("schedulerName") != self.component or spec.get("schedulingGates"):
            return
        fits = [
            place
            for place in self._candidates(spec)
            if selects(spec, place) and not untolerated(spec.get("tolerations") or (), place)
        ]
        status = body["status"]
        others = [each for each in status.get("conditions", ()) if each["type"] != "PodScheduled"]
        if not fits:
            message = f"0/{len(self._places)} nodes are available."
            if key not in self._stuck:
                self._stuck.add(key)
                condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
                self.objects.set_status(record, {**status, "conditions": [*others, condition]})
                self.announce(record, "Warning", "FailedScheduling", message)
            return
        chosen = min(fits, key=lambda place: self._count[place.name]).name
        self._stuck.discard(key)
        spec["nodeName"] = chosen
        condition = {
            "type": "PodScheduled",
            "status": "True",
            "lastTransitionTime": body["metadata"]["creationTimestamp"],
        }
        body["status"] = {**status, "conditions": [*others, condition]}
        bound = self.storage.write(record.resource, body)
        self.announce(
            bound, "Normal", "Scheduled", f"Successfully assigned {record.namespace}/{record.name} to {chosen}"
        )

    def _candidates(self, spec: Mapping[str, Any]) -> Iterable[Place]:
        """Return the nodes worth a look: a daemon's pod names its own."""
        pinned = pinned_node(spec)
        if pinned is None:
            return self._places.values()
        return [self._places[pinned]] if pinned in self._places else []


def pinned_node(spec: Mapping[str, Any]) -> str | None:
    """Return the node that a daemon's pod is made for, or where a pod is."""
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    for term in _required_affinity(spec).get("nodeSelectorTerms") or ():
        for each in term.get("matchFields") or ():
            if each["key"] == "metadata.name" and each["operator"] == "In":
                return str((each.get("values") or [""])[0])
    return None
