"""A client that adds nothing but the credentials that it is asked for."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import urllib3
from urllib3 import BaseHTTPResponse

from kmm.embedded.image import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Image

ACCEPTED = f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_INDEX}"


class Client:
    """Asks as `user`; as nobody, without one."""

    def __init__(self, url: str, ca_pem: str, user: str = "", password: str = "") -> None:
        self.url, self.user = url, user
        context = ssl.create_default_context(cadata=ca_pem) if ca_pem else None
        self._http = urllib3.PoolManager(ssl_context=context, maxsize=4)
        self._password = password
        self._tokens: dict[str, str] = {}

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        kind: str = "",
        accept: str = "",
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
    ) -> BaseHTTPResponse:
        """Return what is answered, after a second try with the credentials that the first answer asks for.

        `path`: or a whole address, as a Location is; `kind`: the body's; `authorization`: these credentials, and no
        second try.
        """
        sent = {
            **({"Content-Type": kind} if kind else {}),
            **({"Accept": accept} if accept else {}),
            **(headers or {}),
        }
        if authorization:
            sent["Authorization"] = authorization
        answer = self._once(method, path, body, sent)
        if answer.status != 401 or authorization is not None:
            return answer
        found = self.authorization(answer.headers["WWW-Authenticate"])
        return self._once(method, path, body, {**sent, "Authorization": found}) if found else answer

    def authorization(self, challenge: str) -> str:
        """Return the credentials that a challenge asks for, nothing where there are none."""
        scheme, said = challenge.partition(" ")[0], parameters(challenge)
        basic = urllib3.make_headers(basic_auth=f"{self.user}:{self._password}")["authorization"] if self.user else ""
        if scheme == "Basic":
            return basic
        if challenge in self._tokens:
            return self._tokens[challenge]
        query = [("service", said["service"]), *(("scope", each) for each in said.get("scope", "").split())]
        answer = self._once(
            "GET", f"{said['realm']}?{urlencode(query)}", None, {"Authorization": basic} if basic else {}
        )
        if answer.status == 200:
            self._tokens[challenge] = f"Bearer {answer.json()['token']}"
        return self._tokens.get(challenge, "")

    def upload(self, repository: str, content: bytes, digest: str) -> BaseHTTPResponse:
        """Push a blob: a session, and all of it at once."""
        begun = self.ask("POST", f"/v2/{repository}/blobs/uploads/")
        assert begun.status == 202, begun.data
        return self.ask("PUT", with_query(begun.headers["Location"], digest=digest), content)

    def push(self, repository: str, reference: str, image: Image) -> BaseHTTPResponse:
        """Push an image, or an index of what is there; the reference is a tag or a digest."""
        for digest, content in image.blobs.items():
            assert self.upload(repository, content, digest).status == 201
        return self.put_manifest(repository, reference, image.manifest, image.media_type)

    def put_manifest(self, repository: str, reference: str, body: bytes, kind: str) -> BaseHTTPResponse:
        return self.ask("PUT", f"/v2/{repository}/manifests/{reference}", body, kind=kind)

    def manifest(self, repository: str, reference: str, *, method: str = "GET", accept: str = ACCEPTED) -> Any:
        return self.ask(method, f"/v2/{repository}/manifests/{reference}", accept=accept)

    def _once(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> BaseHTTPResponse:
        url = path if "://" in path else self.url + path
        return self._http.request(method, url, body=body, headers=headers, timeout=30, retries=False, redirect=False)


def parameters(challenge: str) -> dict[str, str]:
    """Read the parameters of a challenge."""
    return dict(re.findall(r'(\w+)="([^"]*)"', challenge))


def with_query(location: str, **query: str) -> str:
    """Add to the query of a Location, which may have one."""
    return f"{location}{'&' if '?' in location else '?'}{urlencode(query)}"


def codes(answer: BaseHTTPResponse) -> list[str]:
    """Return the codes of the errors of an answer."""
    return [each["code"] for each in answer.json()["errors"]]
