"""DaemonSets: a pod on every node that takes it, replaced a few at a time."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kmm.embedded.builtin import ENDED, REVISION
from kmm.embedded.condition import condition_of
from kmm.embedded.controller import Controller
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
_BURST = 250  # pods that one sync makes


@dataclass(frozen=True, slots=True)
class _Pod:
    """What a DaemonSet has to know of one of its pods."""

    record: Record
    node: str
    created: str
    ready_since: datetime | None

    @property
    def order(self) -> tuple[bool, str, str]:
        """Which of two pods on a node counts: a bound one, the older one."""
        return (not self.record.fields[0], self.created, self.record.name)


class _Set:
    """A DaemonSet, what each node says to it, and its pods."""

    def __init__(self, record: Record, places: Iterable[Place]) -> None:
        self.pods: dict[str, _Pod] = {}
        self.template: Mapping[str, Any] = {}
        self.learn(record, places)

    def learn(self, record: Record, places: Iterable[Place]) -> None:
        self.record = record
        self.body = record.read()
        if self.body["spec"]["template"] == self.template:
            return
        self.template = self.body["spec"]["template"]
        self.revision = hashlib.sha256(encode(self.template)).hexdigest()[:10]
        self._tolerations = [*(self.template["spec"].get("tolerations") or ()), *_tolerations()]
        self.runs, self.stays = set[str](), set[str]()
        for place in places:
            self.hear(place.name, place)

    def hear(self, name: str, place: Place | None) -> bool:
        """Learn of a node (`None`: that it is gone); return whether that changes anything."""
        spec = self.template["spec"]
        selected = place is not None and selects(spec, place) and spec.get("nodeName", name) == name
        changed = False
        for nodes, effects in ((self.runs, ("NoSchedule", "NoExecute")), (self.stays, ("NoExecute",))):
            wanted = selected and place is not None and not untolerated(self._tolerations, place, effects)
            changed |= wanted != (name in nodes)
            (nodes.add if wanted else nodes.discard)(name)
        return changed


class DaemonSetController(Controller):
    """Keys are the uids of DaemonSets."""

    component = "daemonset-controller"

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self._places: dict[str, Place] = {}
        self._sets: dict[str, _Set] = {}

    def seen(self, event: Event) -> None:
        record = event.record
        match record.resource.key:
            case ("", "nodes"):
                place = None if event.kind == "DELETED" else place_of(record)
                if place != self._places.get(record.name):
                    self._places.pop(record.name, None)
                    if place:
                        self._places[record.name] = place
                    for uid, each in self._sets.items():
                        if each.hear(record.name, place):
                            self.enqueue(uid)
            case ("apps", "daemonsets"):
                if event.kind == "DELETED":
                    self._sets.pop(record.uid, None)
                    return
                known = self._sets.get(record.uid)
                if known is None:
                    known = self._sets[record.uid] = _Set(record, self._places.values())
                    for pod in self.storage.dependents(record.uid):
                        self._hear_of_pod(pod)
                else:
                    known.learn(record, self._places.values())
                self.enqueue(record.uid)
            case ("", "pods"):
                if event.kind == "DELETED":
                    for uid in record.owners:
                        if uid in self._sets:
                            self._sets[uid].pods.pop(record.uid, None)
                            self.enqueue(uid)
                else:
                    self._hear_of_pod(record)
            case ("", "serviceaccounts") if event.kind == "ADDED":
                for uid, each in self._sets.items():
                    if each.record.namespace == record.namespace:
                        self.enqueue(uid)

    def _hear_of_pod(self, record: Record) -> None:
        for uid in record.owners:
            if uid in self._sets:
                body = record.read()
                node = pinned_node(body["spec"]) or ""
                pod = _Pod(record, node, body["metadata"]["creationTimestamp"], _ready_since(body))
                self._sets[uid].pods[record.uid] = pod
                self.enqueue(uid)

    def sync(self, key: str) -> None:
        each = self._sets.get(key)
        if each is None or each.record.deleting:
            return
        by_node: dict[str, list[_Pod]] = {}
        for pod in sorted(each.pods.values(), key=lambda pod: pod.order):
            if not (pod.record.deleting and pod.record.fields[1] in ENDED):
                by_node.setdefault(pod.node, []).append(pod)
        self._manage(each, by_node)
        if each.body["spec"]["updateStrategy"]["type"] == "RollingUpdate":
            self._roll(each, by_node)
        self._tell(each, by_node)

    def _manage(self, each: _Set, by_node: Mapping[str, list[_Pod]]) -> None:
        """Create the pods that are missing, delete those that are not to be."""
        missing = sorted(node for node in each.runs if node not in by_node)
        for node in missing[:_BURST]:
            if not self._create(each, node):
                break
        if len(missing) > _BURST:
            self.enqueue(each.record.uid, after_s=0.001)
        for node, pods in by_node.items():
            alive = 0
            for pod in pods:
                if pod.record.deleting:
                    continue
                ended = pod.record.fields[1] in ENDED
                if node not in each.stays:
                    # Where the node is gone, the pod is the node controller's.
                    if node in self._places or not pod.record.fields[0]:
                        self._delete(each, pod)
                elif ended:
                    self._tell_of_end(each, pod)
                    self._delete(each, pod)
                else:
                    alive += 1
                    if alive > 1:
                        self._delete(each, pod)

    def _tell_of_end(self, each: _Set, pod: _Pod) -> None:
        failed = pod.record.fields[1] == "Failed"
        where = f"{pod.record.namespace}/{pod.record.name} on node {pod.node}"
        self.announce(
            each.record,
            "Warning" if failed else "Normal",
            f"{pod.record.fields[1]}DaemonPod",
            f"Found {pod.record.fields[1].lower()} daemon pod {where}, "
            f"will try to {'kill' if failed else 'delete'} it",
        )

    def _create(self, each: _Set, node: str) -> bool:
        template = copy.deepcopy(each.template)
        meta = template.get("metadata") or {}
        spec = template["spec"]
        spec["tolerations"] = [*(spec.get("tolerations") or ()), *_tolerations()]
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        node_affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
        node_affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [term]}
        generation = each.body["metadata"]["annotations"].get(REVISION, "1")
        pod = {
            "metadata": {
                "labels": {**(meta.get("labels") or {}), HASH: each.revision, GENERATION: generation},
                "annotations": meta.get("annotations") or {},
            },
            "spec": spec,
        }
        return self.create_pod(each.record, pod) is not None

    def _delete(self, each: _Set, pod: _Pod) -> None:
        self.objects.delete(pod.record, Deletion(uid=pod.record.uid))
        self.announce(each.record, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.record.name}")

    def _roll(self, each: _Set, by_node: Mapping[str, list[_Pod]]) -> None:
        """Delete old pods: unavailable ones at once, others as far as the strategy allows."""
        limit = each.body["spec"]["updateStrategy"]["rollingUpdate"].get("maxUnavailable", 1)
        allowed = _scaled(limit, len(each.runs)) or 1
        unavailable = sum(node not in by_node for node in each.runs)
        candidates = []
        for pods in by_node.values():
            alive = [pod for pod in pods if not pod.record.deleting]
            if len(alive) != 1:
                unavailable += 1
                continue
            old = alive[0].record.labels.get(HASH) != each.revision
            if not self._available(each, alive[0]):
                unavailable += 1
                if old:
                    self._delete(each, alive[0])
            elif old:
                candidates.append(alive[0])
        for pod in candidates[: max(0, allowed - unavailable)]:
            self._delete(each, pod)

    def _tell(self, each: _Set, by_node: Mapping[str, list[_Pod]]) -> None:
        first = [by_node[node][0] for node in each.runs if node in by_node]
        available = sum(self._available(each, pod) for pod in first)
        status = {
            "currentNumberScheduled": len(first),
            "numberMisscheduled": sum(node in self._places and node not in each.runs for node in by_node),
            "desiredNumberScheduled": len(each.runs),
            "numberReady": sum(pod.ready_since is not None for pod in first),
            "observedGeneration": each.body["metadata"]["generation"],
        }
        more = {
            "updatedNumberScheduled": sum(pod.record.labels.get(HASH) == each.revision for pod in first),
            "numberAvailable": available,
            "numberUnavailable": len(each.runs) - available,
        }
        status |= {key: value for key, value in more.items() if value}
        if status != each.body.get("status"):
            self.objects.set_status(each.record, status)

    def _available(self, each: _Set, pod: _Pod) -> bool:
        if pod.ready_since is None:
            return False
        least_s = each.body["spec"].get("minReadySeconds", 0)
        left_s = least_s - (datetime.now(UTC) - pod.ready_since).total_seconds() if least_s else 0
        if left_s > 0:
            self.enqueue(each.record.uid, after_s=left_s)
        return bool(left_s <= 0)


def _tolerations() -> list[dict[str, str]]:
    return [{"key": key, "operator": "Exists", "effect": effect} for key, effect in TOLERATED]


def _ready_since(pod: Mapping[str, Any]) -> datetime | None:
    ready = condition_of(pod.get("status"), "Ready")
    return datetime.fromisoformat(ready["lastTransitionTime"]) if ready.get("status") == "True" else None


def _scaled(value: int | str, total: int) -> int:
    """Return a number, or a percentage of a total rounded up."""
    if isinstance(value, str):
        return math.ceil(int(value.rstrip("%")) * total / 100)
    return value
