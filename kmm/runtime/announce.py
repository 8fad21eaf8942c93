"""Events on Modules: the same one again is counted, not made anew. None of them is worth failing for."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import queue
import threading
import time
from collections import OrderedDict
from typing import Any

from kmm.core.actions import Announce
from kmm.core.status import timestamp
from kmm.core.view import Subject
from kmm.errors import KmmError
from kmm.runtime.kinds import EVENT, MODULE, path_of
from kmm.runtime.transport import MERGE_PATCH, AlreadyExists, NotFound, Transport

_LOG = logging.getLogger(__name__)
_KNOWN = 1_000
_MESSAGE = 1_000
_WAITING = 500


class Announcer:
    """Tells people, in a thread of its own: a slow API server delays no plan."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._count: OrderedDict[str, int] = OrderedDict()
        self._waiting: queue.Queue[tuple[Subject, Announce] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def tell(self, subject: Subject, said: Announce) -> None:
        """Make an event soon; where too many wait, it is only logged."""
        try:
            self._waiting.put_nowait((subject, said))
        except queue.Full:
            _LOG.warning("%s: %s (no event: too many wait)", said.reason, said.message)

    def stop(self, timeout_s: float) -> None:
        """Tell what waits, then stop."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=timeout_s / 2)
        if self._thread.is_alive():
            self._thread.join(timeout_s / 2)

    def _run(self) -> None:
        while (found := self._waiting.get()) is not None:
            try:
                self._make(*found)
            except KmmError as error:
                _LOG.info("no event %s: %s", found[1].reason, error)
            except Exception:  # an event is not worth this thread
                _LOG.exception("no event %s", found[1].reason)

    def _make(self, subject: Subject, said: Announce) -> None:
        same = hashlib.sha256(f"{subject.uid}{said.reason}{said.message}".encode()).hexdigest()[:16]
        name = f"{subject.ref.name[:200]}.{same}"
        now = timestamp(time.time())
        count = self._count[same] = self._count.pop(same, 0) + 1
        if len(self._count) > _KNOWN:
            self._count.popitem(last=False)
        if count > 1:
            try:
                self._again(subject.ref.namespace, name, count, now)
            except NotFound:
                count = 1  # it has expired
            else:
                return
        body: dict[str, Any] = {
            "metadata": {"name": name, "namespace": subject.ref.namespace},
            "involvedObject": {
                "apiVersion": MODULE.api_version,
                "kind": MODULE.kind,
                "namespace": subject.ref.namespace,
                "name": subject.ref.name,
                "uid": subject.uid,
            },
            "type": "Warning" if said.warning else "Normal",
            "reason": str(said.reason),
            "message": said.message[:_MESSAGE],
            "source": {"component": "kmm"},
            "reportingComponent": "kmm",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
        }
        try:
            self._transport.ask("POST", path_of(EVENT, subject.ref.namespace), body)
        except AlreadyExists:  # by an operator before this one
            self._count[same] = 2
            self._again(subject.ref.namespace, name, 2, now)

    def _again(self, namespace: str, name: str, count: int, now: str) -> None:
        body = {"count": count, "lastTimestamp": now}
        self._transport.ask("PATCH", path_of(EVENT, namespace, name), body, MERGE_PATCH)
