"""What a registry asks for in `WWW-Authenticate` (RFC 9110, 11.6.1). Pure, and bounded whatever it says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

LENGTH_MOST = 16 * 1024
"""Characters of all headers together; what is beyond is not read."""
CHALLENGES_MOST = 16
PARAMETERS_MOST = 32

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 -- a token of HTTP's grammar
_SCHEME = re.compile(rf"({_TOKEN})(?=[ \t,]|$)")
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))', re.DOTALL)
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
_BETWEEN = re.compile(r"[ \t,]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One way to authenticate. `scheme` and the parameters' names are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that a Bearer challenge asks for."""
        return tuple(self.parameters.get("scope", "").split())


def parse(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Return the challenges in the `WWW-Authenticate` headers, in their order.

    Never raises: what cannot be understood ends the reading of its header. Of a parameter named twice, the
    first counts.
    """
    found: list[Challenge] = []
    left = LENGTH_MOST
    for header in headers:
        _parse_one(header[:left], found)
        left -= min(left, len(header))
    return tuple(found)


def _parse_one(text: str, found: list[Challenge]) -> None:
    at = _past(text, 0)
    while at < len(text) and len(found) < CHALLENGES_MOST:
        scheme = _SCHEME.match(text, at)
        if not scheme:
            return
        at = scheme.end()
        parameters: dict[str, str] = {}
        if sixty_eight := _TOKEN68.match(text, at):  # Negotiate and its like: nothing of ours
            at = sixty_eight.end()
        at = _past(text, at)
        while match := _PARAMETER.match(text, at):
            name, quoted, plain = match.groups()
            if len(parameters) < PARAMETERS_MOST:
                parameters.setdefault(name.lower(), plain if quoted is None else _ESCAPE.sub(r"\1", quoted))
            at = _past(text, match.end())
        found.append(Challenge(scheme=scheme[1].lower(), parameters=parameters))


def _past(text: str, at: int) -> int:
    between = _BETWEEN.match(text, at)
    return between.end() if between else at
