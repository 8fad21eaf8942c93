"""Drivers that stay loaded where their loader was stopped: no plan may see it, and its Module may be gone.

A script leaves in its pod what it said. Of another command an event of the kubelet is all there is: up to Kubernetes
1.25 with its words, since then without. Both are put together once the pod is gone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kmm.api.schema import at
from kmm.contract import ModuleRef
from kmm.core import names
from kmm.core.actions import Announce
from kmm.core.diagnosis import diagnose_unload
from kmm.core.view import Subject
from kmm.runtime.cluster import Cluster
from kmm.runtime.kinds import EVENT, PodFacts, path_of
from kmm.runtime.store import Item, Store
from kmm.runtime.transport import Transport
from kmm.runtime.watch import Source, Watch

_REASON = "FailedPreStopHook"
_SAID = 8_192  # characters of an event: the end, which says why
_KEPT = 500  # pods of which one half is known
_NAMESPACES = 20  # with more of them, one watch of all is cheaper
_EVERYWHERE = ""


@dataclass(frozen=True, slots=True)
class _HookFailed:
    """An event: the uid of the pod whose preStop hook failed, and what was said of it."""

    pod: str
    message: str


class Unloads:
    """Hears of loaders that were stopped in vain, and lets `tell` make events of it."""

    def __init__(
        self,
        transport: Transport,
        cluster: Cluster,
        tell: Callable[[Subject, Announce], None],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._transport, self._cluster, self._tell, self._failed = transport, cluster, tell, failed
        self._watches: dict[str, Watch[_HookFailed]] = {}
        self._said: OrderedDict[str, str] = OrderedDict()
        self._gone: OrderedDict[str, Item[PodFacts]] = OrderedDict()
        self._lock = threading.Lock()
        cluster.pods.heard.append(self._heard_of_pod)

    def follow(self, namespace: str) -> None:
        """Follow the events of a namespace, from now on: its loaders may end after its last Module."""
        with self._lock:
            if _EVERYWHERE in self._watches or namespace in self._watches:
                return
            if len(self._watches) >= _NAMESPACES:
                while self._watches:
                    self._watches.popitem()[1].stop()
                namespace = _EVERYWHERE
            store: Store[_HookFailed] = Store(threading.RLock())
            store.heard.append(self._heard_of_event)
            source = Source(path=path_of(EVENT, namespace), trim=_trim, fields=f"reason={_REASON}", optional=True)
            watch = self._watches[namespace] = Watch(self._transport, source, store, self._failed)
            watch.start()

    def stop(self) -> None:
        """Follow nothing any more."""
        with self._lock:
            for watch in self._watches.values():
                watch.stop()

    def _heard_of_event(self, _before: Item[_HookFailed] | None, after: Item[_HookFailed] | None) -> None:
        pod = self._cluster.pods.by_uid(after.value.pod) if after else None
        # The kubelet unloads also where loading has failed: then nothing stays.
        if after is None or (pod and not (pod.value.deleting or pod.value.ready)):
            return
        with self._lock:
            gone = self._gone.pop(after.value.pod, None)
            if gone is None:
                _keep(self._said, after.value.pod, after.value.message)
        if gone:
            self._tell_of(gone, after.value.message)

    def _heard_of_pod(self, before: Item[PodFacts] | None, after: Item[PodFacts] | None) -> None:
        if before is None or (after and after.uid == before.uid):
            return
        with self._lock:
            said = self._said.pop(before.uid, None)
            ends = before.value.role == names.LOADER and before.value.deleting
            waits = ends and said is None and not before.value.termination_message
            if waits:
                _keep(self._gone, before.uid, before)
        if ends and not waits:
            self._tell_of(before, said or "")

    def _tell_of(self, item: Item[PodFacts], event: str) -> None:
        if found := diagnose_unload(self._cluster.pod_of(item), event):
            ref = ModuleRef(namespace=item.namespace, name=item.value.module)
            module = self._cluster.modules.get(ref.namespace, ref.name)
            subject = Subject(ref=ref, uid=module.uid if module else "")
            self._tell(subject, Announce(reason=found[0], message=found[1], warning=True))


def _trim(body: Mapping[str, Any]) -> _HookFailed:
    return _HookFailed(str(at(body, "involvedObject", "uid") or ""), str(body.get("message") or "")[-_SAID:])


def _keep(kept: OrderedDict[str, Any], uid: str, value: object) -> None:
    kept[uid] = value
    if len(kept) > _KEPT:
        kept.popitem(last=False)
