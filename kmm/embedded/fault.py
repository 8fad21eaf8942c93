"""What can go wrong between a client and the API server, on request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from kmm.embedded.failure import MODIFIED, Failure


class Kind(StrEnum):
    """What happens to a request."""

    REFUSE = "refuse"  # it is answered with an error, and nothing is done
    LOSE = "lose"  # it is done, and the connection ends without an answer
    HANG = "hang"  # nothing is done nor answered, until the client gives up
    DELAY = "delay"  # it is done later
    CUT = "cut"  # a watch ends in the middle of the line of its next event
    LAG = "lag"  # a watch tells what happens only after a while


VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


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

    def __post_init__(self) -> None:
        """Refuse what would never strike: a test must not pass because of that.

        Raises:
            ValueError, TypeError: what is wrong.
        """
        self.kind = Kind(self.kind)
        check(self, {"verbs": VERBS})
        if self.resource != self.resource.lower():
            raise ValueError(f"resource is a plural in lower case, such as nodes, not {self.resource!r}")
        if self.kind in (Kind.DELAY, Kind.LAG) and self.delay_s <= 0:
            raise ValueError(f"{self.kind} needs delay_s")

    def failure(self) -> Failure:
        """Return the error to answer with."""
        reason, message = {
            403: ("Forbidden", "forbidden: as asked for"),
            409: ("Conflict", f"Operation cannot be fulfilled: {MODIFIED}"),
            410: ("Expired", "too old resource version"),
            429: ("TooManyRequests", "too many requests, please try again later"),
            500: ("InternalError", "Internal error occurred: as asked for"),
            503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
        }.get(self.code, ("", "refused as asked for"))
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        details = None if self.retry_after_s is None else {"retryAfterSeconds": self.retry_after_s}
        return Failure(self.code, reason, message, details, headers)


class Countable(Protocol):
    """What a fault of any server has."""

    times: int | None
    skip: int
    code: int
    struck: int


def check(fault: Countable, known: Mapping[str, Collection[str]]) -> None:
    """Refuse what a fault of any server cannot have. `known`: the words that its filters are made of, by field.

    Raises:
        ValueError, TypeError: what is wrong.
    """
    for name, words in known.items():
        given: object = getattr(fault, name)
        if not isinstance(given, tuple) or set(given) - set(words):
            raise ValueError(f"{name} has to be a tuple of {', '.join(words)}, not {given!r}")
    code: object = fault.code
    if not isinstance(code, int) or not 400 <= code <= 599:
        raise ValueError(f"code has to be an error's, 400 to 599, not {code!r}")
    skip: object = fault.skip
    times: object = fault.times
    if not isinstance(skip, int) or not isinstance(times, int | None):
        raise TypeError("times and skip have to be whole numbers")


F = TypeVar("F", bound=Countable)


class Armed(Generic[F]):
    """The faults that are to strike, the oldest first; usable from any thread. `kind`: the class of them."""

    kind: type[F]

    def __init__(self) -> None:
        self._faults: list[F] = []
        self._lock = threading.Lock()

    def add(self, fault: F) -> F:
        """Arm a fault."""
        if not isinstance(fault, self.kind):
            raise TypeError(f"a {self.kind.__name__} is added, not {fault!r}")
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Let everything work again."""
        with self._lock:
            self._faults.clear()

    def first(self, meets: Callable[[F], bool]) -> F | None:
        """Return the fault that a request meets, and count it; `meets` says which are about it."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                if not meets(fault):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                if fault.times is not None and fault.struck >= fault.times:
                    continue
                fault.struck += 1
                return fault
        return None


class Faults(Armed[Fault]):
    """The faults of an API server."""

    kind = Fault

    def strike(self, kinds: tuple[Kind, ...], verb: str, resource: str, name: str, user: str) -> Fault | None:
        """Return the fault that a request meets, and count it."""
        return self.first(
            lambda fault: (
                fault.kind in kinds
                and (not fault.verbs or verb in fault.verbs)
                and fault.resource in ("", resource)
                and fault.name in ("", name)
                and fault.user in ("", user)
            )
        )
