"""Keys that want attention: each once, one worker at a time, delayed or backed off, the urgent kinds first."""

from __future__ import annotations

import heapq
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
FIRST_BACK_OFF_S = 0.05
LONGEST_BACK_OFF_S = 60.0


class Queue(Generic[K]):
    """A work queue. `lanes`: how many; a key of a lower lane is served first.

    `group_of` and `most`: keys of one group, for which a stranger's plugin works, hold at most so many workers.
    """

    def __init__(self, lanes: int = 2, *, group_of: Callable[[K], str] = lambda _: "", most: int = 1_000_000) -> None:
        self._group_of, self._most = group_of, most
        self._busy: Counter[str] = Counter()
        self._group: dict[K, str] = {}
        self._held: dict[K, str] = {}
        self._changed = threading.Condition()
        self._ready: list[dict[K, None]] = [{} for _ in range(lanes)]
        self._later: list[tuple[float, int, K, int]] = []
        self._due: dict[K, float] = {}
        self._alarm = math.inf  # when somebody who waits will look again
        self._working: dict[K, bool] = {}  # whether it is wanted again
        self._lane: dict[K, int] = {}
        self._failures: dict[K, int] = {}
        self._count = 0
        self.closed = threading.Event()

    def add(self, key: K, lane: int = 1) -> None:
        """Ask for attention as soon as possible."""
        # Not under our lock: whoever answers may hold another one, and be on its way in here.
        group = self._group_of(key)
        with self._changed:
            self._group[key] = group
            self._due.pop(key, None)
            if key in self._working:
                self._working[key] = True
                self._lane[key] = lane
            elif not any(key in each for each in self._ready):
                self._ready[lane][key] = None
                self._changed.notify()

    def add_after(self, key: K, delay_s: float, lane: int = 1) -> None:
        """Ask for attention after a while; an earlier wish for the same key stands."""
        if delay_s <= 0:
            self.add(key, lane)
            return
        group = self._group_of(key)
        with self._changed:
            self._group[key] = group
            due = time.monotonic() + delay_s
            if self._due.get(key, due) < due:
                return
            self._due[key] = due
            self._count += 1
            heapq.heappush(self._later, (due, self._count, key, lane))
            self._call()

    def take(self) -> K | None:
        """Wait for a key and take it; None once the queue is closed. It is to be given back with `done`."""
        with self._changed:
            while True:
                if self.closed.is_set():
                    return None
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    due, _, key, lane = heapq.heappop(self._later)
                    if self._due.get(key) == due:
                        del self._due[key]
                        if key in self._working:
                            self._working[key] = True
                            self._lane[key] = lane
                        elif not any(key in each for each in self._ready):
                            self._ready[lane][key] = None
                for ready in self._ready:
                    for key in ready:
                        group = self._group.get(key, "")
                        if group and self._busy[group] >= self._most:
                            continue
                        del ready[key]
                        self._working[key] = False
                        self._held[key] = group
                        self._busy[group] += 1
                        self._call()
                        return key
                self._wait(now)

    def _wait(self, now: float) -> None:
        """Wait for a key, and for the next that is due where nobody else does."""
        due = self._later[0][0] if self._later else math.inf
        if due >= self._alarm:
            self._changed.wait()
            return
        self._alarm = due
        self._changed.wait(due - now)
        if self._alarm == due:
            self._alarm = math.inf

    def _call(self) -> None:
        """Wake somebody, where there is a key that nobody who waits will see in time."""
        if any(self._ready) or (self._later and self._later[0][0] < self._alarm):
            self._changed.notify()

    def done(self, key: K, lane: int = 1) -> None:
        """Give a key back: it is forgotten, or served again where it was wanted meanwhile."""
        with self._changed:
            lane = self._lane.pop(key, lane)
            self._busy[self._held.pop(key, "")] -= 1
            if self._working.pop(key, False):
                self._ready[lane][key] = None
            elif key not in self._due:
                self._group.pop(key, None)
            self._call()

    def back_off(self, key: K, lane: int = 1, *, least_s: float = 0) -> float:
        """Ask again after a delay that doubles with each failure in a row; return it."""
        with self._changed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay_s: float = min(FIRST_BACK_OFF_S * 2 ** min(failures - 1, 20), LONGEST_BACK_OFF_S)
        delay_s = max(delay_s * random.uniform(0.8, 1.2), least_s)  # noqa: S311 -- so that not all come at once
        self.add_after(key, delay_s, lane)
        return delay_s

    def succeeded(self, key: K) -> None:
        """Forget the failures of a key."""
        with self._changed:
            self._failures.pop(key, None)

    def depth(self) -> int:
        """Return how many keys are ready or under way."""
        with self._changed:
            return sum(map(len, self._ready)) + len(self._working)

    def close(self) -> None:
        """Let every worker that waits, and every later one, get None."""
        with self._changed:
            self.closed.set()
            self._changed.notify_all()
