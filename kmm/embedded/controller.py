"""The loop of a controller: changes become keys, a key is reconciled one at a time, and again when it asks."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
from collections.abc import Hashable
from typing import Any

from kmm.embedded.failure import Failure
from kmm.embedded.objects import Objects, now_text
from kmm.embedded.storage import Event, Record

_LOG = logging.getLogger(__name__)
_SLICE_S = 0.01  # of syncs in a row before requests get their turn
_EVENTS = 5_000  # that are kept: the real ones expire


class Controller:
    """Base of the controllers: override `seen` (which calls `enqueue`) and `sync`."""

    component = "controller-manager"

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.storage = objects.storage
        self._waiting: dict[Hashable, None] = {}
        self._later: dict[Hashable, asyncio.TimerHandle] = {}
        self._failures: dict[Hashable, int] = {}
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Take part, from inside the server's loop; what is there already counts as added."""
        self._loop = asyncio.get_running_loop()
        for resource in list(self.objects.resources.values()):
            for record in self.storage.records(resource):
                self.seen(Event("ADDED", record, None))
        self.storage.listeners.append(self.seen)

    def stop(self) -> None:
        """Take no further part."""
        if self.seen in self.storage.listeners:
            self.storage.listeners.remove(self.seen)
        for handle in self._later.values():
            handle.cancel()
        self._waiting.clear()
        self._loop = None

    def seen(self, event: Event) -> None:
        """Hear of a change."""
        raise NotImplementedError

    def sync(self, key: Any) -> None:
        """Bring one thing where it is to be."""
        raise NotImplementedError

    def enqueue(self, key: Hashable, after_s: float = 0) -> None:
        """Reconcile a key soon, or after a while; the sooner of two wishes counts."""
        if self._loop is None:
            return
        if after_s > 0:
            due = self._loop.time() + after_s
            waiting = self._later.get(key)
            if waiting is None or waiting.when() > due:
                if waiting:
                    waiting.cancel()
                self._later[key] = self._loop.call_at(due, self.enqueue, key)
            return
        if handle := self._later.pop(key, None):
            handle.cancel()
        self._waiting[key] = None
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._scheduled = False
        until = time.monotonic() + _SLICE_S
        while self._waiting and time.monotonic() < until:
            key = next(iter(self._waiting))
            del self._waiting[key]
            try:
                self.sync(key)
                self._failures.pop(key, None)
            except Exception as error:  # one bad key must not end the others
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                level = logging.DEBUG if isinstance(error, Failure) else logging.ERROR
                _LOG.log(level, "%s: %s: %s", type(self).__name__, key, error, exc_info=level == logging.ERROR)
                self.enqueue(key, after_s=min(0.05 * 2**failures, 30))
        if self._waiting and self._loop and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._drain)

    def create_pod(self, owner: Record, pod: dict[str, Any]) -> Record | None:
        """Create a pod for the object of which the uid is the key; `None` where that fails, and is tried again."""
        pod["metadata"] |= {"generateName": f"{owner.name}-", "ownerReferences": [_owner_reference(owner)]}
        try:
            made = self.objects.create(self.objects.resource("Pod"), owner.namespace, pod)
        except Failure as failure:
            self.announce(owner, "Warning", "FailedCreate", f"Error creating: {failure}")
            self.enqueue(owner.uid, after_s=1)
            return None
        self.announce(owner, "Normal", "SuccessfulCreate", f"Created pod: {made.name}")
        return made

    def announce(self, record: Record, kind: str, reason: str, message: str, *, field: str = "") -> None:
        """Record an event about an object; the same one again is counted."""
        namespace = record.namespace or "default"
        resource = self.objects.resource("Event")
        same = hashlib.sha256(f"{record.uid}{self.component}{field}{reason}{message}".encode()).hexdigest()[:16]
        name = f"{record.name}.{same}"
        there = self.storage.get(resource, namespace, name)
        if there is not None:
            body = there.read()
            body["count"] = body.get("count", 1) + 1
            body["lastTimestamp"] = now_text()
            self.storage.write(resource, body)
            return
        involved = {
            "kind": record.resource.kind,
            "apiVersion": record.resource.api_version,
            "name": record.name,
            "uid": record.uid,
            "resourceVersion": str(record.version),
        }
        if record.namespace:
            involved["namespace"] = record.namespace
        if field:
            involved["fieldPath"] = field
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": now_text(),
            },
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": self.component},
            "reportingComponent": self.component,
            "count": 1,
            "firstTimestamp": now_text(),
            "lastTimestamp": now_text(),
        }
        home = self.storage.get(self.objects.resource("Namespace"), "", namespace)
        if home is None or home.deleting:
            return  # a namespace that ends takes no more events
        self.storage.write(resource, body)
        self.objects.announced.append((namespace, name))
        if len(self.objects.announced) > _EVENTS:
            oldest = self.storage.get(resource, *self.objects.announced.popleft())
            if oldest is not None:
                self.storage.remove(resource, oldest.read())


def _owner_reference(record: Record) -> dict[str, Any]:
    """Return what a controller's dependents say of it."""
    return {
        "apiVersion": record.resource.api_version,
        "kind": record.resource.kind,
        "name": record.name,
        "uid": record.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
