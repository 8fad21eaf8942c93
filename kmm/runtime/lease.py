"""One operator at a time: a Lease, renewed by the leader, with a deadline after which no write of it starts.

The clock counts suspended time: a machine that slept is not the leader any more.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kmm.errors import KmmError
from kmm.runtime.advice import advice
from kmm.runtime.kinds import LEASE, path_of
from kmm.runtime.transport import ApiError, Conflict, NotFound, Transport

_LOG = logging.getLogger(__name__)


class NotLeader(KmmError):
    """The lease is not held, or not for long enough: nothing may be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Durations. A write's time-out (`write_s`) and `renew_s` together are less than `duration_s`: 4 + 10 < 15."""

    duration_s: float = 15
    renew_s: float = 10
    retry_s: float = 2
    write_s: float = 4

    @classmethod
    def lasting(cls, duration_s: float) -> Terms:
        """Return the same terms for another duration."""
        part = duration_s / 15
        return cls(duration_s=duration_s, renew_s=10 * part, retry_s=2 * part, write_s=4 * part)


def boot_time_s() -> float:
    """Return a time that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Elector:
    """Seeks a lease and keeps it. `won` is called once it is held, `lost` once it is not any more.

    `annotations`: what the lease tells of its holder, to whoever may read it.
    """

    def __init__(
        self,
        transport: Transport,
        namespace: str,
        name: str,
        identity: str,
        won: Callable[[], None],
        lost: Callable[[], None],
        terms: Terms | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        self._annotations = dict(annotations or {})
        self._transport, self._identity, self._won, self._lost = transport, identity, won, lost
        self._namespace, self._name, self._terms = namespace, name, terms or Terms()
        self._deadline = 0.0
        self._held: dict[str, Any] | None = None
        self._seen: tuple[str, float] = ("", 0.0)  # the version of another's lease, until when it counts
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Seek the lease, in a thread of its own."""
        self._thread.start()

    def is_leader(self) -> bool:
        """Whether a write may be started now."""
        return boot_time_s() < self._deadline

    def guard(self) -> None:
        """Raise NotLeader where no write may be started now."""
        if not self.is_leader():
            raise NotLeader(f"the lease {self._namespace}/{self._name} is not held")

    def release(self, timeout_s: float = 3) -> None:
        """Give the lease back, so that another one need not wait for its end."""
        until = time.monotonic() + timeout_s
        self._stopping.set()
        self._thread.join(timeout_s / 2)
        if self._held is None or not self.is_leader():
            return
        self._deadline = 0.0
        body = {**self._held, "spec": {**self._held["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}}
        with contextlib.suppress(KmmError):
            left_s = max(0.1, until - time.monotonic())
            self._transport.ask("PUT", self._path(), body, timeout_s=left_s, guarded=False)

    def _run(self) -> None:
        _LOG.info("attempting to acquire leader lease %s/%s", self._namespace, self._name)
        leading = False
        while not self._stopping.is_set():
            held = False
            # A renewal that comes after the deadline raises no dead: writes have been refused meanwhile.
            over = leading and not self.is_leader()
            if not over:
                try:
                    held = self._try()
                except KmmError as error:
                    _LOG.warning(
                        "the lease %s/%s: %s", self._namespace, self._name, advice(error, self._transport.host)
                    )
                except Exception:  # whatever it is: without this thread nobody leads, and nobody would know
                    _LOG.exception("the lease %s/%s", self._namespace, self._name)
            if held and not leading:
                leading = True
                _LOG.info("successfully acquired lease %s/%s", self._namespace, self._name)
                self._won()
            elif over or (leading and not self.is_leader()):
                self._deadline = 0.0
                _LOG.error("the lease %s/%s is lost", self._namespace, self._name)
                self._lost()
                return
            self._stopping.wait(self._terms.retry_s)

    def _try(self) -> bool:
        """Renew the lease, or take it where it is free; return whether it is held."""
        began = boot_time_s()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, int(self._terms.duration_s)),
            "renewTime": now,
        }
        try:
            body = self._held or self._transport.ask("GET", self._path(), timeout_s=self._terms.retry_s + 2).read()
        except NotFound:
            if began < self._seen[1]:
                return False  # whoever had it may not know yet that it was deleted
            made = {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.kind,
                "metadata": {
                    "name": self._name,
                    "namespace": self._namespace,
                    "annotations": self._annotations,
                },
                "spec": {**spec, "acquireTime": now, "leaseTransitions": 0},
            }
            answer = self._transport.ask("POST", path_of(LEASE, self._namespace), made, guarded=False)
            return self._hold(answer.read(), began)
        old = body.get("spec") or {}
        if old.get("holderIdentity") not in (self._identity, "", None):
            version = body["metadata"]["resourceVersion"]
            if self._seen[0] != version:
                # By our own clock: the other's may be wrong.
                self._seen = (version, began + float(old.get("leaseDurationSeconds") or self._terms.duration_s))
            if began < self._seen[1]:
                return False
        if old.get("holderIdentity") != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": (old.get("leaseTransitions") or 0) + 1}
        meta = body["metadata"]
        meta = {**meta, "annotations": {**(meta.get("annotations") or {}), **self._annotations}}
        changed = {**body, "metadata": meta, "spec": {**old, **spec}}
        try:
            answer = self._transport.ask("PUT", self._path(), changed, guarded=False)
        except ApiError as error:
            self._held = None  # somebody wrote it, or deleted it: look again
            if isinstance(error, Conflict | NotFound):
                return False
            raise
        return self._hold(answer.read(), began)

    def _hold(self, body: dict[str, Any], began: float) -> bool:
        body["metadata"].pop("managedFields", None)
        self._held = body
        # Counted from before the request: the server may have written it at once.
        deadline = began + self._terms.renew_s
        if self._deadline and boot_time_s() >= self._deadline:
            return False  # it came too late
        self._deadline = deadline
        return True

    def _path(self) -> str:
        return path_of(LEASE, self._namespace, self._name)
