"""What registries said to each Module, and for how long something may be started from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

from kmm.core.images import learn
from kmm.core.view import Answer, Denied, Missing, Question
from kmm.runtime.lease import boot_time_s

_MOST = 2_000  # of one Module: more than its kernels have images


class Answers:
    """The answers by Module. What is too old to start anything from is still shown: it is what is known."""

    def __init__(self, now_s: Callable[[], float] = boot_time_s) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._of: dict[str, Mapping[Question, Answer]] = {}
        self._until: dict[str, dict[Question, float]] = {}

    def learn(self, uid: str, question: Question, answer: Answer, fresh_s: float) -> None:
        """Learn what a Module was told. `fresh_s`: how long something may be started from it."""
        with self._lock:
            known = learn(self._of.get(uid, {}), question, answer)
            while len(known) > _MOST:
                del known[next(iter(known))]
            until = self._until.setdefault(uid, {})
            until[question] = self._now_s() + fresh_s
            self._of[uid] = MappingProxyType(known)
            self._until[uid] = {each: until[each] for each in known}

    def of(self, uid: str) -> tuple[Mapping[Question, Answer], frozenset[Question]]:
        """Return what a Module was told, and which of it is too old to build from."""
        now_s = self._now_s()
        with self._lock:
            known, until = self._of.get(uid, {}), self._until.get(uid, {})
        negative = Missing | Denied
        stale = (each for each, answer in known.items() if isinstance(answer, negative) and until[each] < now_s)
        return known, frozenset(stale)

    def forget(self, uid: str) -> None:
        """Drop what a Module was told that is gone."""
        with self._lock:
            self._of.pop(uid, None)
            self._until.pop(uid, None)
