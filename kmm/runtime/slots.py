"""How many builds and signatures run at once, and whose turn it is to start one."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from kmm.contract import ModuleRef
from kmm.core.view import Subject

HELD_S = 30.0  # longer than a registry may take to say that an image is still missing


@dataclass(slots=True)
class _Waiting:
    """A Module in the queue. `held_s`: since when a slot is held for it, which it has not come for."""

    uid: str
    held_s: float | None = None


class Slots:
    """A free slot is for the Module that has the fewest under way, and of those for the one that waits longest.

    It is held until that one has been planned again: for `HELD_S`, since a plugin that hangs must not stop others.
    `most`: how many there are; an attempt takes one for each Job that it is of, and the last one may take more.
    `under_way`: which of them are taken, by the uid of their Module.
    """

    def __init__(
        self,
        most: int,
        under_way: Callable[[], Counter[str]],
        lock: threading.RLock,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._under_way, self._lock, self._now_s = most, under_way, lock, now_s
        self._starting: Counter[str] = Counter()
        self._waiting: dict[ModuleRef, _Waiting] = {}  # who came first is first

    def left(self, subject: Subject) -> int:
        """Return how many a Module may start now."""
        with self._lock:
            busy = self._busy()
            free = max(0, self._most - busy.total())
            now_s = self._now_s()
            place = len(self._waiting)
            wishes: list[tuple[int, int, _Waiting | None]] = []
            for number, (module, each) in enumerate(self._waiting.items()):
                if module == subject.ref:
                    place, each.held_s = number, None
                elif each.held_s is None or now_s - each.held_s < HELD_S:
                    wishes.append((busy[each.uid], number, each))
            wishes += [(busy[subject.uid] + more, place, None) for more in range(free)]
            first = [each for *_, each in sorted(wishes, key=lambda wish: wish[:2])[:free]]
            for other in first:
                if other is not None and other.held_s is None:
                    other.held_s = now_s
            return first.count(None)

    def reserve(self, subject: Subject, tasks: int, had: int) -> bool:
        """Take slots for tasks that are about to be started; False where others have taken them meanwhile.

        `had`: how many were left when that was planned. The last of them may be for an attempt at several tasks.
        """
        with self._lock:
            if self.left(subject) < min(tasks, had):
                return False
            self._starting[subject.uid] = tasks
            if waiting := self._waiting.pop(subject.ref, None):
                self._waiting[subject.ref] = waiting  # it has had its turn
            return True

    def release(self, subject: Subject) -> None:
        """Give back what was reserved: what was started is seen now."""
        with self._lock:
            del self._starting[subject.uid]

    def wait(self, subject: Subject, had: int) -> float | None:
        """Let a Module wait that was planned with `had` slots more than it took.

        Return after how many seconds it is to come again of itself, or None where it will be called.
        """
        with self._lock:
            self._waiting.setdefault(subject.ref, _Waiting(subject.uid)).uid = subject.uid
            left = self.left(subject)
            if left > had:
                return 0.0  # they have become free meanwhile, and nobody called it
            return HELD_S if left < self._free() else None

    def leave(self, module: ModuleRef) -> bool:
        """Let a Module wait no longer; whether it did."""
        with self._lock:
            return self._waiting.pop(module, None) is not None

    def called(self) -> list[ModuleRef]:
        """Return whom to plan again: all that wait, where a slot is free."""
        with self._lock:
            return list(self._waiting) if self._waiting and self._free() > 0 else []

    def _free(self) -> int:
        return self._most - self._busy().total()

    def _busy(self) -> Counter[str]:
        return self._under_way() + self._starting
