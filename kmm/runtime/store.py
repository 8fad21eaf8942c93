"""What is known of the cluster: a cache that watches fill, and that reads its own writes.

What the API server answers to a write goes in at once; an older word of a watch about the same object is then
ignored, and a deletion leaves a tombstone by uid. So a plan is never made from what we ourselves have changed since.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

V = TypeVar("V")
_TOMBSTONES = 4_096
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Item(Generic[V]):
    """An object as far as it is used. `version`: its resourceVersion, which orders what is heard of it."""

    namespace: str
    name: str
    uid: str
    version: int
    value: V

    @property
    def key(self) -> tuple[str, str]:
        """What it is found by."""
        return (self.namespace, self.name)


Heard = Callable[[Item[Any] | None, Item[Any] | None], None]


class Store(Generic[V]):
    """The objects of one kind.

    `indexes`: what else they are found by, from an item to a text; an empty one is not indexed. `heard` is called
    after each change that matters, with what was and what is; `on_sync` once all has been listed for the first time.
    """

    def __init__(self, lock: threading.RLock, **indexes: Callable[[Item[V]], str]) -> None:
        self._lock = lock
        self._items: dict[tuple[str, str], Item[V]] = {}
        self._by_uid: dict[str, Item[V]] = {}
        self._indexes = indexes
        self._found: dict[str, dict[str, dict[str, Item[V]]]] = {name: {} for name in indexes}
        self._gone: dict[str, float] = {}
        self._had: dict[tuple[str, str], None] = {}
        self.heard: list[Heard] = []
        self.on_sync: list[Callable[[], None]] = []
        self.synced = threading.Event()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, namespace: str, name: str) -> Item[V] | None:
        """Return an object, or None."""
        with self._lock:
            return self._items.get((namespace, name))

    def had(self, namespace: str, name: str) -> bool:
        """Whether an object of that name has been there, and has gone."""
        with self._lock:
            return (namespace, name) in self._had

    def by_uid(self, uid: str) -> Item[V] | None:
        """Return an object, or None."""
        with self._lock:
            return self._by_uid.get(uid)

    def by(self, index: str, value: str) -> list[Item[V]]:
        """Return the objects that an index finds."""
        with self._lock:
            return list(self._found[index].get(value, {}).values())

    def values(self, index: str) -> frozenset[str]:
        """Return all that an index could find."""
        with self._lock:
            return frozenset(self._found[index])

    def items(self) -> list[Item[V]]:
        """Return what there is."""
        with self._lock:
            return list(self._items.values())

    def sync(self) -> None:
        """Learn that all there is has been heard of."""
        if not self.synced.is_set():
            self.synced.set()
            for each in self.on_sync:
                each()

    def put(self, item: Item[V]) -> None:
        """Learn how an object is, by a watch, a list or the answer to a write."""
        with self._lock:
            before = self._items.get(item.key)
            if item.version <= self._gone.get(item.uid, -1) or (
                before and before.uid == item.uid and before.version >= item.version
            ):
                return
            if before and before.uid != item.uid and before.version > item.version:
                return  # an older object of the same name
            self._set(before, item)
            if before is None or before.uid != item.uid or before.value != item.value:
                self._tell(before, item)

    def drop(self, namespace: str, name: str, uid: str, version: float = math.inf) -> None:
        """Learn that an object is gone: for ever, or out of what is watched, of which a later version may tell."""
        with self._lock:
            self._gone[uid] = max(version, self._gone.pop(uid, -1))
            while len(self._gone) > _TOMBSTONES:
                del self._gone[next(iter(self._gone))]
            before = self._items.get((namespace, name))
            if before is not None and before.uid == uid:
                self._had[namespace, name] = None
                while len(self._had) > _TOMBSTONES:
                    del self._had[next(iter(self._had))]
                self._set(before, None)
                self._tell(before, None)

    def keep_only(self, uids: set[str], version: int) -> None:
        """Learn from a whole list, as of a version, that all else is gone."""
        with self._lock:
            for item in [each for each in self._items.values() if each.uid not in uids and each.version <= version]:
                self.drop(item.namespace, item.name, item.uid, version)

    def _set(self, before: Item[V] | None, item: Item[V] | None) -> None:
        for old in (before,) if before else ():
            self._items.pop(old.key, None)
            self._by_uid.pop(old.uid, None)
            for name, value_of in self._indexes.items():
                found = self._found[name].get(value_of(old), {})
                found.pop(old.uid, None)
                if not found:
                    self._found[name].pop(value_of(old), None)
        for new in (item,) if item else ():
            self._items[new.key] = new
            self._by_uid[new.uid] = new
            for name, value_of in self._indexes.items():
                if value := value_of(new):
                    self._found[name].setdefault(value, {})[new.uid] = new

    def _tell(self, before: Item[V] | None, after: Item[V] | None) -> None:
        for heard in self.heard:
            try:
                heard(before, after)
            except Exception:  # one that stumbles must not keep the others from hearing
                _LOG.exception("a change was not heard")
