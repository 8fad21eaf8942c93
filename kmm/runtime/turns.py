"""Who starts a task that is to be alone with a Secret, and who waits until it may."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Turns(Generic[K]):
    """Turns are by what stands for a Secret and its contents. `K`: by what those who wait are called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[str, frozenset[str]] = {}
        self._waiting: set[K] = set()

    def taken(self, uid: str) -> frozenset[str]:
        """Return what others than a Module are starting tasks with."""
        with self._lock:
            return frozenset(each for other, those in self._taken.items() if other != uid for each in those)

    def take(self, uid: str, wanted: frozenset[str]) -> bool:
        """Take the turns that a Module wants, all or none; whether that was done."""
        with self._lock:
            if any(wanted & those for other, those in self._taken.items() if other != uid):
                return False
            self._taken[uid] = wanted
            return True

    def release(self, uid: str) -> None:
        """Give them back: what was started is seen now, or was not."""
        with self._lock:
            self._taken.pop(uid, None)

    def wait(self, key: K) -> None:
        """Have somebody called when something changes: begun before it is looked at, so that nothing is missed."""
        with self._lock:
            self._waiting.add(key)

    def leave(self, key: K) -> None:
        """Have somebody called no more."""
        with self._lock:
            self._waiting.discard(key)

    def called(self) -> list[K]:
        """Return who is to look again."""
        with self._lock:
            return list(self._waiting)
