"""One at a time for each thing: who comes second waits, and finds what the first one brought."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from kmm.oci.connection import Deadline


class Turns:
    """Who waits for the same key waits for nobody else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[Hashable, tuple[threading.Lock, int]] = {}

    @contextmanager
    def take(self, key: Hashable, deadline: Deadline) -> Iterator[None]:
        """Have the turn for `key` in a `with` block. Raises TimeoutError where it does not come in time."""
        with self._lock:
            turn, users = self._turns.get(key, (threading.Lock(), 0))
            self._turns[key] = turn, users + 1
        try:
            if not turn.acquire(timeout=deadline.left_s()):
                raise TimeoutError
            try:
                yield
            finally:
                turn.release()
        finally:
            with self._lock:
                turn, users = self._turns.pop(key)
                if users > 1:
                    self._turns[key] = turn, users - 1
