"""What can go wrong between a client and a registry, on request."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from kmm.embedded.fault import Armed, check
from kmm.embedded.registry_failure import Refusal


class Trouble(StrEnum):
    """What happens to a request."""

    REFUSE = "refuse"  # it is answered with an error, and nothing is done
    PAGE = "page"  # a proxy answers with an HTML page, and nothing is done
    HANG = "hang"  # nothing is done nor answered, until the client gives up
    RESET = "reset"  # nothing is done, and the connection ends without an answer
    LOSE = "lose"  # it is done, and the connection ends without an answer
    DELAY = "delay"  # it is done later
    DRIP = "drip"  # the body of the answer comes in small pieces, with a pause before each
    CUT = "cut"  # the connection ends in the middle of the body of the answer
    TRUNCATE = "truncate"  # the body of the answer is too short, and the headers agree with it
    FLOOD = "flood"  # the body of the answer does not end
    CORRUPT = "corrupt"  # the body of the answer is not what its digest says
    MISNAME = "misname"  # the header with the digest lies; with an empty `value`, it lacks
    MISTYPE = "mistype"  # the header with the media type lies: it is `value`
    HIDE = "hide"  # an absent repository is refused with 401, as if one had no right to it
    REDIRECT = "redirect"  # a blob is elsewhere, and whoever brings credentials there is refused
    UNMOUNTED = "unmounted"  # a mount is answered with a session instead
    INTERRUPT = "interrupt"  # the connection ends when so much of an upload has come, which is kept


BEFORE = (Trouble.REFUSE, Trouble.PAGE, Trouble.HANG, Trouble.RESET, Trouble.DELAY)
BODY = (Trouble.DRIP, Trouble.CUT, Trouble.TRUNCATE, Trouble.FLOOD, Trouble.CORRUPT)
HEADER = (Trouble.MISNAME, Trouble.MISTYPE)
KINDS = ("base", "manifest", "blob", "upload", "tags", "token", "store")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN", 429: "TOOMANYREQUESTS", 503: "UNAVAILABLE"}


@dataclass(slots=True, kw_only=True)
class RegistryFault:
    """One fault, for the requests that it names; an empty filter means all.

    `on`: kinds of requests, as the log has them. `times`: how often, `None` for ever; `skip`: how many requests it
    lets by first. `code`, `retry_after_s`: of REFUSE and PAGE; `delay_s`: of DELAY and DRIP; `after_bytes`: of CUT,
    TRUNCATE and INTERRUPT; `value`: of MISNAME and MISTYPE.
    """

    kind: Trouble
    on: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    repository: str = ""
    user: str = ""
    times: int | None = 1
    skip: int = 0
    code: int = 500
    retry_after_s: int | None = None
    delay_s: float = 0
    after_bytes: int = 0
    value: str = ""
    struck: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Refuse what would never strike: a test must not pass because of that.

        Raises:
            ValueError, TypeError: what is wrong.
        """
        self.kind = Trouble(self.kind)
        check(self, {"on": KINDS, "methods": METHODS})
        if self.kind in (Trouble.DELAY, Trouble.DRIP) and self.delay_s <= 0:
            raise ValueError(f"{self.kind} needs delay_s")
        if self.kind is Trouble.MISTYPE and not self.value:
            raise ValueError(f"{self.kind} needs a value")

    def refusal(self) -> Refusal:
        """Return the error to answer with."""
        return Refusal((_CODES.get(self.code, "UNKNOWN"), None), status=self.code, headers=self.headers())

    def headers(self) -> dict[str, str]:
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


class RegistryFaults(Armed[RegistryFault]):
    """The faults that are to strike, the oldest first; usable from any thread."""

    kind = RegistryFault

    def strike(
        self, kinds: tuple[Trouble, ...], on: str, method: str, repository: str, user: str
    ) -> RegistryFault | None:
        """Return the fault that a request meets, and count it."""
        return self.first(
            lambda fault: (
                fault.kind in kinds
                and (not fault.on or on in fault.on)
                and (not fault.methods or method in fault.methods)
                and fault.repository in ("", repository)
                and fault.user in ("", user)
            )
        )
