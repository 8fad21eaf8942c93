"""Bearer tokens: fetched from the service that a registry names, kept until shortly before they expire.

Guarantees: no credential goes to a service that is not HTTPS, unless the registry itself is plain HTTP. What is
kept is found by a keyed hash of the credential, never by the credential. The same token is fetched once,
however many clients want it at the same time.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import urlencode

import urllib3
from cachetools import TLRUCache

from kmm.contract import Access, Credential, Unavailable
from kmm.oci.challenge import Challenge
from kmm.oci.connection import Answer, Connections, Deadline, fingerprint, origin_of, retry_after_s
from kmm.oci.turn import Turns

KEPT_MOST = 4096
_ANSWER_MOST = 256 * 1024
_EXPIRES_S = 60.0  # where the service does not say
_EXPIRES_MOST_S = 24 * 3600.0
_MARGIN_S = 30.0
_TOKEN = re.compile(r"[\x21-\x7e]{1,32768}")
_REFUSALS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
# Services that know no identity tokens answer the last three; OAuth's errors are the first.
_IDENTITY_REFUSALS = _REFUSALS | {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}

_Key: TypeAlias = tuple[bytes, str, str, tuple[str, ...], bytes]


class Refused(Exception):
    """The service gives no token for this credential: the next one may do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token. `until`: by the monotonic clock; `kept`: it was not fetched for this question."""

    text: str = field(repr=False)
    until: float
    kept: bool = False


class Tokens:
    """The tokens of all clients."""

    def __init__(self, connections: Connections, now: Callable[[], float] = time.monotonic) -> None:
        self._connections, self._now = connections, now
        self._secret = secrets.token_bytes(32)
        self._cache: TLRUCache[_Key, Token] = TLRUCache(KEPT_MOST, ttu=_until, timer=now)
        self._lock = threading.Lock()
        self._turns = Turns()

    def get(
        self,
        challenge: Challenge,
        scopes: Iterable[str],
        credential: Credential | None,
        access: Access,
        deadline: Deadline,
        *,
        instead_of: Token | None = None,
    ) -> Token:
        """Return a token for `scopes`. `instead_of`: one that the registry does not take.

        Raises:
            Refused: there is none for this credential.
            Unavailable: the service could not say, or must not be asked.
        """
        realm, service = challenge.parameters.get("realm", ""), challenge.parameters.get("service", "")
        wanted = tuple(sorted(set(scopes)))
        key = (fingerprint(access), realm, service, wanted, self._who(credential))
        try:
            with self._turns.take(key, deadline):
                with self._lock:
                    found = self._cache.get(key)
                    if found and instead_of and found.text == instead_of.text:
                        del self._cache[key]
                        found = None
                if found:
                    return Token(text=found.text, until=found.until, kept=True)
                token = self._fetch(realm, service, wanted, credential, access, deadline)
                with self._lock:
                    self._cache[key] = token
                return token
        except TimeoutError:
            raise Unavailable(f"{_host(realm)}: gave no token in {deadline.seconds:g} s") from None

    def _who(self, credential: Credential | None) -> bytes:
        parts = (credential.username, credential.password, credential.token) if credential else ()
        told = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        return hashlib.blake2b(told, key=self._secret, digest_size=32).digest()

    def _fetch(
        self,
        realm: str,
        service: str,
        scopes: tuple[str, ...],
        credential: Credential | None,
        access: Access,
        deadline: Deadline,
    ) -> Token:
        began = self._now()
        origin = origin_of(realm)
        if origin is None:
            raise Unavailable("the registry names a token service that has no usable address")
        if origin.scheme != "https" and not access.tls.insecure:
            raise Unavailable(f"{origin}: the registry names it as its token service, but it is not HTTPS")
        identity = credential is not None and bool(credential.token)
        said = [("service", service)] if service else []
        if credential and identity:
            said += [("grant_type", "refresh_token"), ("client_id", "kmm"), ("refresh_token", credential.token)]
            said += [("scope", " ".join(scopes))] if scopes else []
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._connections.send("POST", realm, access, deadline, headers, urlencode(said).encode())
        else:
            headers = {}
            if credential:
                headers = basic(credential)
                said.append(("account", credential.username))
            said += [("scope", scope) for scope in scopes]
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(said)}" if said else realm
            answer = self._connections.send("GET", url, access, deadline, headers)
        if answer.status in (_IDENTITY_REFUSALS if identity else _REFUSALS):
            answer.done()
            raise Refused
        if answer.status != HTTPStatus.OK:
            after = retry_after_s(answer.header("Retry-After"))
            answer.done()
            raise Unavailable(f"{origin}: answered {answer.status} instead of a token", after)
        return _read(answer, str(origin), began)


def basic(credential: Credential) -> dict[str, str]:
    """Return the header that shows a user name and password."""
    text = f"{credential.username}:{credential.password}"
    return {"Authorization": str(urllib3.make_headers(basic_auth=_latin(text))["authorization"])}


def _latin(text: str) -> str:
    return text.encode().decode("latin-1")  # urllib3 encodes so: what is sent is UTF-8


def _read(answer: Answer, host: str, began: float) -> Token:
    try:
        said: Any = json.loads(answer.whole(_ANSWER_MOST))
    except (ValueError, RecursionError):
        said = None
    text = (said.get("token") or said.get("access_token")) if isinstance(said, dict) else None
    if not isinstance(text, str) or not _TOKEN.fullmatch(text):
        raise Unavailable(f"{host}: answered with something that is no token")
    lasts = said.get("expires_in")
    if not isinstance(lasts, int | float) or isinstance(lasts, bool) or not lasts > 0:
        lasts = _EXPIRES_S
    lasts = min(float(lasts), _EXPIRES_MOST_S)
    return Token(text=text, until=began + lasts - min(_MARGIN_S, lasts / 4))


def _until(_: _Key, token: Token, __: float) -> float:
    return token.until


def _host(url: str) -> str:
    return str(origin_of(url) or "the token service")
