"""Requests to one registry by one who has credentials: which are shown to whom, and what answers mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import IO, TypeAlias
from urllib.parse import urljoin

from kmm.contract import Access, Credential, Forbidden, Unavailable
from kmm.oci import challenge as challenges
from kmm.oci.challenge import Challenge
from kmm.oci.connection import Answer, Deadline, fingerprint, origin_of, retry_after_s
from kmm.oci.session import Session
from kmm.oci.token import Refused, Token, basic

REDIRECTS_MOST = 5
_ERROR_MOST = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
MISSING = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"})
"""The codes by which a registry says that it has no such manifest."""
# The codes of the specification: others are not repeated.
_CODES = MISSING | {
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "NAME_INVALID",
    "SIZE_INVALID",
    "TAG_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNSUPPORTED",
}

Body: TypeAlias = Callable[[], bytes | IO[bytes] | Iterator[bytes]]
"""What is sent, made anew each time it has to be sent."""


class Conversation:
    """What a Client says to its registry, within one deadline.

    Credentials are shown to the registry alone: to nobody it redirects to, and to no other host that takes an upload.
    """

    def __init__(self, host: str, access: Access, session: Session, deadline: Deadline) -> None:
        self.host, self.deadline = host, deadline
        self.base = f"{'http' if access.tls.insecure else 'https'}://{host}"
        self._access, self._session = access, session
        self._origin = origin_of(self.base)
        if self._origin is None:
            raise ValueError("no host of a registry")
        self._accepted: dict[frozenset[str], Credential | None] = {}

    def ask(
        self,
        method: str,
        where: str,
        repository: str,
        *,
        push: bool = False,
        reads: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        deadline: Deadline | None = None,
    ) -> Answer:
        """Ask with the first credential that is accepted, and follow redirects (without it) where nothing is sent.

        `where`: a path, or the whole URL of an upload. `reads`: another repository to be read from.
        """
        deadline = deadline or self.deadline
        url = where if "://" in where else self.base + where
        scopes = frozenset(
            {f"repository:{repository}:{'pull,push' if push else 'pull'}"}
            | ({f"repository:{reads}:pull"} if reads else set())
        )
        sent = dict(headers or {})
        if origin_of(url) != self._origin:  # an upload that another host takes: it is told nothing
            return self._session.connections.send(method, url, self._access, deadline, sent, body and body())
        answer = self._authorized(method, url, repository, scopes, sent, body, deadline)
        if answer.status in _REDIRECTS and method in ("GET", "HEAD"):
            answer = self._follow(answer, method, url, sent, deadline)
        return answer

    def _authorized(
        self,
        method: str,
        url: str,
        repository: str,
        scopes: frozenset[str],
        headers: Mapping[str, str],
        body: Body | None,
        deadline: Deadline,
    ) -> Answer:
        asked = self._asked(scopes, deadline)
        tried: list[Credential | None] = []
        candidates: Sequence[Credential | None] = [
            *([self._accepted[scopes]] if scopes in self._accepted else []),
            *self._access.credentials,
            None,
        ]
        for credential in dict.fromkeys(candidates):
            if asked is None and tried:
                break  # it asks for nothing, and refuses all the same
            token: Token | None = None
            for _ in range(3):  # a challenge of its own, a token that ran out
                if credential and asked and not _fits(asked, credential):
                    break
                tried.append(credential if asked else None)
                try:
                    shown, token = self._shown(asked, scopes, credential, deadline, token)
                except Refused:
                    break
                answer = self._session.connections.send(
                    method, url, self._access, deadline, {**headers, **shown}, body and body()
                )
                if answer.status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    self._accepted[scopes] = credential
                    return answer
                said = _usable(challenges.parse(answer.all("WWW-Authenticate")))
                answer.done()
                news = said is not None and (
                    asked is None
                    or _essence(said) != _essence(asked)
                    or bool(set(said.scopes) - set(asked.scopes) - scopes)
                )
                if news and said:
                    asked, token = said, None
                    self._session.learn(self._access, self.base, scopes, said)
                elif not (token and token.kept):
                    break
        raise Forbidden(f"{self.host}: access to {repository} was refused {_tries(tried)}")

    def _asked(self, scopes: frozenset[str], deadline: Deadline) -> Challenge | None:
        """Return what the registry asks for. Where there are credentials, it is asked for that first."""
        known, asked = self._session.asks(self._access, self.base, scopes)
        if known or not self._access.credentials:
            return asked
        try:
            with self._session.asking.take((fingerprint(self._access), self.base), deadline):
                known, asked = self._session.asks(self._access, self.base, scopes)
                return asked if known else self._ping(deadline)
        except TimeoutError:
            raise Unavailable(f"{self.host}: did not answer in {deadline.seconds:g} s") from None

    def _ping(self, deadline: Deadline) -> Challenge | None:
        """Ask the registry what it wants to be shown, and keep that."""
        answer = self._session.connections.send("GET", f"{self.base}/v2/", self._access, deadline, {})
        asked = None
        if answer.status == HTTPStatus.UNAUTHORIZED:
            asked = _usable(challenges.parse(answer.all("WWW-Authenticate")))
        if answer.status in (HTTPStatus.OK, HTTPStatus.UNAUTHORIZED):
            self._session.learn(self._access, self.base, frozenset(), asked)
        answer.done()
        return asked

    def _shown(
        self,
        asked: Challenge | None,
        scopes: frozenset[str],
        credential: Credential | None,
        deadline: Deadline,
        refused: Token | None,
    ) -> tuple[dict[str, str], Token | None]:
        """Return the header that shows `credential`, and the token in it. Raises Refused as Tokens.get."""
        if asked is None:
            return {}, None
        if asked.scheme == "basic":
            return (basic(credential) if credential else {}), None
        if credential and credential.token and not credential.username:
            return {"Authorization": f"Bearer {credential.token}"}, None
        token = self._session.tokens.get(
            asked, scopes.union(asked.scopes), credential, self._access, deadline, instead_of=refused
        )
        return {"Authorization": f"Bearer {token.text}"}, token

    def _follow(
        self, answer: Answer, method: str, url: str, headers: Mapping[str, str], deadline: Deadline
    ) -> Answer:
        for _ in range(REDIRECTS_MOST):
            url = self.location(answer, url)
            answer.done()
            answer = self._session.connections.send(method, url, self._access, deadline, headers)
            if answer.status not in _REDIRECTS:
                if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    raise self.unexpected(answer, str(origin_of(url)))
                return answer
        answer.close()
        raise Unavailable(f"{self.host}: redirects more than {REDIRECTS_MOST} times")

    def location(self, answer: Answer, url: str) -> str:
        """Return where an answer leads to, as a URL that may be asked. Raises Unavailable where there is none."""
        found = urljoin(url, answer.header("Location")).partition("#")[0]
        origin = origin_of(found)
        if not answer.header("Location") or origin is None:
            answer.close()
            raise Unavailable(f"{self.host}: redirects to nowhere")
        if origin.scheme != "https" and not self._access.tls.insecure:
            answer.close()
            raise Unavailable(f"{self.host}: redirects from HTTPS to plain HTTP")
        return found

    def unexpected(self, answer: Answer, host: str = "") -> Unavailable:
        """Return an answer that is none as an error. The registry's own words stay out of it."""
        after = retry_after_s(answer.header("Retry-After"))
        code = code_of(answer)
        return Unavailable(f"{host or self.host}: answered {answer.status}{code and f' ({code})'}", after)


def _usable(said: Sequence[Challenge]) -> Challenge | None:
    """Return what can be answered, the better one first."""
    for scheme in ("bearer", "basic"):
        for each in said:
            if each.scheme == scheme and (scheme == "basic" or each.parameters.get("realm")):
                return each
    return None


def _fits(asked: Challenge, credential: Credential) -> bool:
    return asked.scheme == "bearer" or not credential.token


def _essence(asked: Challenge) -> tuple[str, str, str]:
    return asked.scheme, asked.parameters.get("realm", ""), asked.parameters.get("service", "")


def _tries(tried: Sequence[Credential | None]) -> str:
    number = len(set(tried) - {None})
    with_them = f"with {number} credential{'s' if number > 1 else ''}" if number else ""
    return " and ".join(filter(None, [with_them, "anonymously" if None in tried else ""]))


def code_of(answer: Answer) -> str:
    """Return the code of a registry's error, where it is one of the specification, and close the answer."""
    try:
        said = json.loads(answer.whole(_ERROR_MOST))
        code = said["errors"][0]["code"]
    except (Unavailable, ValueError, RecursionError, LookupError, TypeError):
        return ""
    finally:
        answer.close()
    return code if isinstance(code, str) and code in _CODES else ""
