"""A token server: opaque tokens, each for the scopes that were asked for and may be had."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SERVICE = "kmm-embedded-registry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token is good for: actions by repository."""

    user: str
    scopes: Mapping[str, frozenset[str]]
    until_s: float


class Tokens:
    """Tokens that were given out. `lifetime_s`: how long each is good for."""

    def __init__(self, lifetime_s: float) -> None:
        self.lifetime_s = lifetime_s
        self._tokens: dict[str, Token] = {}
        self._identities: dict[str, str] = {}

    def issue(self, user: str, scopes: Mapping[str, frozenset[str]]) -> str:
        """Make an access token."""
        now = time.monotonic()
        self._tokens = {text: token for text, token in self._tokens.items() if token.until_s > now}
        text = secrets.token_urlsafe(32)
        self._tokens[text] = Token(user=user, scopes=scopes, until_s=now + self.lifetime_s)
        return text

    def find(self, text: str) -> Token | None:
        """Return a token that is still good."""
        token = self._tokens.get(text)
        return token if token and token.until_s > time.monotonic() else None

    def texts(self) -> list[str]:
        """Return all access tokens that are still good."""
        return [text for text in self._tokens if self.find(text)]

    def expire(self) -> None:
        """Let every access token be over; identities stay."""
        self._tokens.clear()

    def identity(self, user: str) -> str:
        """Make a token that stands for a user's password at the token endpoint, and only there."""
        text = secrets.token_urlsafe(32)
        self._identities[text] = user
        return text

    def identified(self, text: str) -> str | None:
        """Return the user whose identity a token is."""
        return self._identities.get(text)


def parse_scopes(said: Iterable[str]) -> dict[str, frozenset[str]]:
    """Read `repository:NAME:ACTION,ACTION` texts, each with one or several of these; others mean nothing."""
    scopes: dict[str, frozenset[str]] = {}
    for each in " ".join(said).split():
        kind, _, rest = each.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind == "repository" and name:
            scopes[name] = scopes.get(name, frozenset()) | frozenset(actions.split(","))
    return scopes


def scope_text(scopes: Mapping[str, Iterable[str]]) -> str:
    """Write scopes as a challenge and a token's answer have them; no action at all is no scope."""
    # Most registries write them in this order, which is no sorted one.
    order = ("delete", "pull", "push")
    return " ".join(
        f"repository:{name}:{','.join(action for action in order if action in actions)}"
        for name, actions in scopes.items()
        if actions
    )
