"""How a registry knows who asks: nobody cares, Basic, or Bearer with a token server."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from kmm.embedded.account import Account
from kmm.embedded.registry_failure import Refusal
from kmm.embedded.registry_token import SERVICE, Tokens, parse_scopes, scope_text

_FORM_BYTES = 64 << 10


class Auth(StrEnum):
    """How a registry wants to be told who asks."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks. `scheme`: of the credentials, as it was written; `scopes`: of the token, as texts."""

    user: str = ""
    scheme: str = ""
    scopes: tuple[str, ...] = ()
    may: Mapping[str, frozenset[str]] = field(default_factory=dict)


class Access:
    """Decides who may do what. `public`: what anonymous tokens are given for; `realm`: where the token server is."""

    def __init__(self, auth: Auth, accounts: Mapping[str, Account], public: Account, lifetime_s: float) -> None:
        self.auth, self.accounts, self.public = auth, accounts, public
        self.tokens = Tokens(lifetime_s)
        self.realm = ""

    def identify(self, request: web.BaseRequest) -> Caller | None:
        """Return who asks; `None` where credentials are needed, or are wrong."""
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        if self.auth is Auth.NONE:
            return Caller(scheme=scheme)
        if self.auth is Auth.BASIC:
            user = self._basic(request)
            return Caller(user=user, scheme=scheme) if user else None
        token = self.tokens.find(rest.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            return None
        said = tuple(scope_text({name: actions}) for name, actions in token.scopes.items())
        return Caller(user=token.user, scheme=scheme, scopes=said, may=token.scopes)

    def check(self, request: web.BaseRequest, caller: Caller | None, needs: Mapping[str, frozenset[str]]) -> Caller:
        """Return the caller, who may do what is needed.

        Raises:
            Refusal: who asks may not.
        """
        if caller is None:
            # A token that is no longer good is told apart from none at all.
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            raise self.challenge(needs, error="invalid_token" if scheme == "Bearer" and token else "")
        if self.auth is Auth.BEARER and any(
            actions - caller.may.get(name, frozenset()) for name, actions in needs.items()
        ):
            raise self.challenge(needs, error="insufficient_scope")
        if self.auth is Auth.BASIC:
            account = self.accounts[caller.user]
            if any(actions - account.actions(name) for name, actions in needs.items()):
                raise Refusal(("DENIED", None))
        return caller

    def challenge(self, needs: Mapping[str, frozenset[str]], *, error: str = "") -> Refusal:
        """Return the refusal that says which credentials would do."""
        detail = [
            {"Type": "repository", "Class": "", "Name": name, "Action": action}
            for name, actions in needs.items()
            for action in sorted(actions)
        ]
        if self.auth is Auth.NONE:
            return Refusal(("UNAUTHORIZED", detail or None))
        if self.auth is Auth.BASIC:
            challenge = f'Basic realm="{SERVICE}"'
        else:
            challenge = f'Bearer realm="{self.realm}",service="{SERVICE}"'
            if scope := scope_text(needs):
                challenge += f',scope="{scope}"'
            if error:
                challenge += f',error="{error}"'
        return Refusal(("UNAUTHORIZED", detail or None), headers={"WWW-Authenticate": challenge})

    async def answer(self, request: web.BaseRequest) -> tuple[Caller, dict[str, Any]]:
        """Serve the token endpoint: return who asked, and what is answered.

        Raises:
            Refusal: the credentials are wrong, or it makes no sense.
        """
        if request.method == "POST":
            return await self._oauth2(request)
        scheme = request.headers.get("Authorization", "").partition(" ")[0]
        user = self._basic(request)
        if user is None:
            raise Refusal(("UNAUTHORIZED", None), headers={"WWW-Authenticate": f'Basic realm="{SERVICE}"'})
        caller, said = self._grant(user, scheme, request.query.getall("scope", []))
        said["token"] = said["access_token"]
        if request.query.get("offline_token") == "true" and user:
            said["refresh_token"] = self.tokens.identity(user)
        return caller, said

    async def _oauth2(self, request: web.BaseRequest) -> tuple[Caller, dict[str, Any]]:
        body = await request.content.read(_FORM_BYTES)
        try:
            form = {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=True).items()}
        except (ValueError, UnicodeDecodeError) as error:
            raise Refusal(("UNKNOWN", None), status=400, message="not a form") from error
        identity = ""
        user: str | None
        match form.get("grant_type"):
            case "refresh_token":
                identity = form.get("refresh_token", "")
                user = self.tokens.identified(identity)
            case "password":
                user = form.get("username", "")
                account = self.accounts.get(user)
                user = user if account and account.accepts(form.get("password", "")) else None
            case _:
                raise Refusal(("UNKNOWN", None), status=400, message="grant_type: refresh_token or password")
        if not form.get("client_id") or not form.get("service"):
            raise Refusal(("UNKNOWN", None), status=400, message="client_id and service are required")
        if user is None:
            raise Refusal(("UNAUTHORIZED", None))
        caller, said = self._grant(user, "", [form.get("scope", "")])
        if identity or form.get("access_type") == "offline":
            said["refresh_token"] = identity or self.tokens.identity(user)
        return caller, said

    def _grant(self, user: str, scheme: str, asked: list[str]) -> tuple[Caller, dict[str, Any]]:
        account = self.accounts[user] if user else self.public
        scopes = {}
        for name, actions in parse_scopes(asked).items():
            may = account.actions(name)
            if granted := (may if "*" in actions else actions & may):
                scopes[name] = granted
        text = self.tokens.issue(user, scopes)
        said = {
            "access_token": text,
            "expires_in": int(self.tokens.lifetime_s),
            "issued_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "scope": scope_text(scopes),
        }
        granted_texts = tuple(scope_text({name: actions}) for name, actions in scopes.items())
        return Caller(user=user, scheme=scheme, scopes=granted_texts), said

    def _basic(self, request: web.BaseRequest) -> str | None:
        """Return the user of Basic credentials, nothing where there are none, `None` where they are wrong."""
        said = request.headers.get("Authorization", "")
        if not said:
            return "" if self.auth is Auth.BEARER else None
        scheme, _, rest = said.partition(" ")
        try:
            user, _, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        account = self.accounts.get(user)
        return user if scheme.lower() == "basic" and account and account.accepts(password) else None
