"""What can go wrong between a client and the API server, on request."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import StrEnum

from kmm.embedded.failure import MODIFIED, Failure


class Kind(StrEnum):
    """What happens to a request."""

    REFUSE = "refuse"  # it is answered with an error, and nothing is done
    LOSE = "lose"  # it is done, and the connection ends without an answer
    HANG = "hang"  # nothing is done nor answered, until the client gives up
    DELAY = "delay"  # it is done later
    CUT = "cut"  # a watch ends in the middle of the line of its next event
    LAG = "lag"  # a watch tells what happens only after a while


@dataclass(slots=True, kw_only=True)
class Fault:
    """One fault, for the requests that it names; an empty filter means all. `times`: how often, `None` for ever;
    `skip`: how many requests it lets by first. `code`, `retry_after_s`: of REFUSE; `delay_s`: of DELAY and LAG.
    """

    kind: Kind
    verbs: tuple[str, ...] = ()
    resource: str = ""
    name: str = ""
    user: str = ""
    times: int | None = 1
    skip: int = 0
    code: int = 500
    retry_after_s: int | None = None
    delay_s: float = 0
    struck: int = field(default=0, init=False)

    def failure(self) -> Failure:
        """Return the error to answer with."""
        reason, message = {
            409: ("Conflict", f"Operation cannot be fulfilled: {MODIFIED}"),
            410: ("Expired", "too old resource version"),
            429: ("TooManyRequests", "too many requests, please try again later"),
            500: ("InternalError", "Internal error occurred: as asked for"),
            503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
        }.get(self.code, ("", "refused as asked for"))
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        details = None if self.retry_after_s is None else {"retryAfterSeconds": self.retry_after_s}
        return Failure(self.code, reason, message, details, headers)


class Faults:
    """The faults that are to strike, the oldest first; usable from any thread."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Arm a fault."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Let everything work again."""
        with self._lock:
            self._faults.clear()

    def strike(self, kinds: tuple[Kind, ...], verb: str, resource: str, name: str, user: str) -> Fault | None:
        """Return the fault that a request meets, and count it."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                if (
                    fault.kind not in kinds
                    or (fault.verbs and verb not in fault.verbs)
                    or (fault.resource not in ("", resource))
                    or (fault.name not in ("", name))
                    or (fault.user not in ("", user))
                ):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                if fault.times is not None and fault.struck >= fault.times:
                    continue
                fault.struck += 1
                return fault
        return None
