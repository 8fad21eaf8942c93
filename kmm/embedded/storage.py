"""What etcd is to an API server: versions of objects as bytes, and the history that watches resume from.

Objects are kept as the JSON that is answered: 5,000 nodes of 11 kB are 55 MB so, and ten times that as dictionaries.
All of it belongs to one thread, the server's.
"""

from __future__ import annotations

import bisect
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from kmm.embedded.failure import expired
from kmm.embedded.resource import Resource

encode = msgspec.json.encode
decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One version of one object. `fields`: what field selectors may ask of it, in the order of its resource."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    version: int
    labels: dict[str, str]
    fields: tuple[str, ...]
    owners: tuple[str, ...]
    deleting: bool
    body: bytes

    def read(self) -> Any:
        """Return the object, freshly decoded: the caller may change it."""
        return decode(self.body)


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """A change. `kind`: ADDED, MODIFIED or DELETED; `record`: how the object is now, or was at the end."""

    kind: str
    record: Record
    before: Record | None

    @property
    def version(self) -> int:
        return self.record.version


class _Shelf:
    """The objects of one resource."""

    def __init__(self, history: int) -> None:
        self.records: dict[tuple[str, str], Record] = {}
        self.keys: list[tuple[str, str]] = []
        self.events: deque[Event] = deque(maxlen=history)
        self.forgotten = 0  # the newest version of which the event is gone


class Storage:
    """All objects. `history`: how many events a resource keeps for watches that resume."""

    def __init__(self, *, history: int = 5_000) -> None:
        self.version = 1
        self.compacted = 0
        self.listeners: list[Callable[[Event], None]] = []
        self._history = history
        self._shelves: dict[tuple[str, str], _Shelf] = {}
        self._by_uid: dict[str, Record] = {}
        self._dependents: dict[str, set[str]] = {}

    def get(self, resource: Resource, namespace: str, name: str) -> Record | None:
        return self._shelf(resource).records.get((namespace, name))

    def by_uid(self, uid: str) -> Record | None:
        return self._by_uid.get(uid)

    def dependents(self, uid: str) -> list[Record]:
        """Return the objects that name this owner."""
        return [self._by_uid[each] for each in self._dependents.get(uid, ())]

    def records(self, resource: Resource, namespace: str = "") -> Iterator[Record]:
        """Yield what there is, by namespace and name."""
        shelf = self._shelf(resource)
        start = bisect.bisect_left(shelf.keys, (namespace, ""))
        for key in shelf.keys[start:]:
            if namespace and key[0] != namespace:
                return
            yield shelf.records[key]

    def write(self, resource: Resource, body: dict[str, Any]) -> Record:
        """Store a new version of an object and tell of it."""
        record, key, shelf = self._next(resource, body)
        before = shelf.records.get(key)
        shelf.records[key] = record
        if before is None:
            bisect.insort(shelf.keys, key)
        self._index(before, record)
        self._tell(shelf, Event("MODIFIED" if before else "ADDED", record, before))
        return record

    def remove(self, resource: Resource, body: dict[str, Any]) -> Record:
        """Delete an object; `body` is how it was at the end."""
        record, key, shelf = self._next(resource, body)
        before = shelf.records.pop(key)
        del shelf.keys[bisect.bisect_left(shelf.keys, key)]
        self._index(before, None)
        self._tell(shelf, Event("DELETED", record, before))
        return record

    def draft(self, resource: Resource, body: dict[str, Any]) -> Record:
        """Return the version that a write would make, and store nothing."""
        return self._record(resource, body)

    def since(self, resource: Resource, version: int) -> list[Event]:
        """Return the events after a version.

        Raises:
            Failure: 410, where some of them are forgotten.
        """
        shelf = self._shelf(resource)
        if version < max(shelf.forgotten, self.compacted):
            raise expired(f"too old resource version: {version} ({max(shelf.forgotten, self.compacted)})")
        found = []
        for event in reversed(shelf.events):
            if event.version <= version:
                break
            found.append(event)
        found.reverse()
        return found

    def compact(self) -> None:
        """Forget all history, as etcd does every five minutes."""
        self.compacted = self.version
        for shelf in self._shelves.values():
            shelf.events.clear()

    def _shelf(self, resource: Resource) -> _Shelf:
        shelf = self._shelves.get(resource.key)
        if shelf is None:
            shelf = self._shelves[resource.key] = _Shelf(self._history)
        return shelf

    def _next(self, resource: Resource, body: dict[str, Any]) -> tuple[Record, tuple[str, str], _Shelf]:
        """Return the next version of an object, with the key and the shelf it belongs to."""
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        record = self._record(resource, body)
        return record, (record.namespace, record.name), self._shelf(resource)

    def _record(self, resource: Resource, body: dict[str, Any]) -> Record:
        meta = body["metadata"]
        return Record(
            resource=resource,
            namespace=sys.intern(meta.get("namespace", "")),
            name=meta["name"],
            uid=meta["uid"],
            version=self.version,
            labels={sys.intern(key): sys.intern(value) for key, value in (meta.get("labels") or {}).items()},
            fields=resource.fields_of(body),
            owners=tuple(owner["uid"] for owner in meta.get("ownerReferences") or ()),
            deleting="deletionTimestamp" in meta,
            body=encode(body),
        )

    def _index(self, before: Record | None, record: Record | None) -> None:
        if before:
            for owner in before.owners:
                self._dependents[owner].discard(before.uid)
                if not self._dependents[owner]:
                    del self._dependents[owner]
            self._by_uid.pop(before.uid, None)
        if record:
            self._by_uid[record.uid] = record
            for owner in record.owners:
                self._dependents.setdefault(owner, set()).add(record.uid)

    def _tell(self, shelf: _Shelf, event: Event) -> None:
        if len(shelf.events) == shelf.events.maxlen:
            shelf.forgotten = shelf.events[0].version
        shelf.events.append(event)
        for listener in self.listeners:
            listener(event)
