"""A client for one registry: the parts of the distribution API that reading and pushing images need.

A Client is for one piece of work: everything done with it is over `deadline_s` seconds after it was made, whatever
it takes (redirects, tokens, slow bodies). Making one costs nothing: what is worth keeping, connections and tokens,
is in the Session that clients share.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import IO, BinaryIO, TypeAlias
from urllib.parse import quote, urlencode, urljoin

from cachetools import TTLCache

from kmm.contract import Access, Credential, Forbidden, Unavailable
from kmm.oci import challenge as challenges
from kmm.oci import manifest as manifests
from kmm.oci import upload
from kmm.oci.address import Addresses
from kmm.oci.challenge import Challenge
from kmm.oci.connection import (
    Answer,
    Broken,
    Connections,
    Deadline,
    fingerprint,
    origin_of,
    retry_after_s,
)
from kmm.oci.manifest import Descriptor, Index, ManifestError, Parsed
from kmm.oci.reference import Reference
from kmm.oci.token import Refused, Token, Tokens, basic

REDIRECTS_MOST = 5
RESUMES_MOST = 3
_KNOWN_MOST = 4096
_KNOWN_S = 600.0
_ERROR_MOST = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEAD_REFUSED = frozenset({400, 405, 501})
_MISSING = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"})
# The codes of the specification: others are not repeated.
_CODES = _MISSING | {
    "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DENIED", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID", "NAME_INVALID", "SIZE_INVALID", "TAG_INVALID", "TOOMANYREQUESTS", "UNAUTHORIZED", "UNSUPPORTED",
}  # fmt: skip

Body: TypeAlias = Callable[[], bytes | IO[bytes] | Iterator[bytes]]
"""What is sent, made anew each time it has to be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a reference names. `manifest` and `data` (its bytes): where they were read, else None and empty."""

    digest: str
    media_type: str
    manifest: Parsed | None = None
    data: bytes = field(default=b"", repr=False)

    @property
    def architectures(self) -> tuple[str, ...]:
        """The architectures of an index; empty for a single manifest, which counts for every one.

        An index without any image for Linux has `none`, so that it counts for no architecture.
        """
        if not isinstance(self.manifest, Index):
            return ()
        return self.manifest.architectures or ("none",)

    @property
    def annotations(self) -> Mapping[str, str]:
        """The annotations of the manifest or index; empty where it was not read."""
        return self.manifest.annotations if self.manifest else {}


class Session:
    """What the clients of a process share: connections, tokens, and what registries ask for.

    `addresses`: which addresses may be connected to. `environ`: where proxies are named (os.environ if None).
    """

    def __init__(self, addresses: Addresses | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.connections = Connections(addresses, environ)
        self.tokens = Tokens(self.connections)
        self._lock = threading.Lock()
        self._asks: TTLCache[tuple[bytes, str, frozenset[str]], Challenge | None] = TTLCache(_KNOWN_MOST, _KNOWN_S)
        self.asking = threading.Lock()

    def asks(self, access: Access, base: str, scopes: frozenset[str]) -> tuple[bool, Challenge | None]:
        """Say whether it is known what the registry asks for, and what that is (None: for nothing)."""
        trust = fingerprint(access)
        with self._lock:
            for key in ((trust, base, scopes), (trust, base, frozenset[str]())):
                if key in self._asks:
                    return True, self._asks[key]
        return False, None

    def learn(self, access: Access, base: str, scopes: frozenset[str], asked: Challenge | None) -> None:
        """Keep what the registry asks for in general, and for these scopes."""
        trust = fingerprint(access)
        with self._lock:
            self._asks[trust, base, frozenset()] = asked
            if asked and set(asked.scopes) - scopes:
                self._asks[trust, base, scopes] = asked

    def close(self) -> None:
        """Close the kept connections."""
        self.connections.close()


class Client:
    """Asks the registry at `host` (with its port, if any). Not for several threads at once.

    `access`: credentials in the order to try them, then none; TLS; further CAs. `deadline_s`: for everything.

    All its methods raise Unavailable where the registry could not say, and Forbidden where it refused to with
    every credential and without; the texts name the registry and hold neither secrets nor what it answered.
    """

    def __init__(self, host: str, access: Access, *, session: Session, deadline_s: float) -> None:
        self.host = host
        self.deadline = Deadline(deadline_s)
        self._access, self._session = access, session
        self._base = f"{'http' if access.tls.insecure else 'https'}://{host}"
        self._origin = origin_of(self._base)
        if self._origin is None:
            raise ValueError("no host of a registry")
        self._accepted: dict[frozenset[str], Credential | None] = {}

    # ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────

    def resolve(self, reference: Reference, *, annotations: bool = False) -> Image | None:
        """Return what `reference` names, or None where the registry says that it has no such thing.

        One HEAD, and a GET where it is an index, where HEAD is no use, or where `annotations` are wanted.
        """
        name, wanted = self._named(reference), reference.wanted
        path = f"/v2/{quote(name)}/manifests/{wanted}"
        answer = self._ask("HEAD", path, name, headers={"Accept": manifests.ACCEPT})
        answer.close() if answer.status >= HTTPStatus.BAD_REQUEST else answer.done()
        if answer.status == HTTPStatus.NOT_FOUND:
            if answer.header("Docker-Distribution-Api-Version").startswith("registry/"):
                return None
            return self.manifest(reference)
        if answer.status not in _HEAD_REFUSED and answer.status != HTTPStatus.OK:
            raise self._unexpected(answer)
        digest = answer.header("Docker-Content-Digest")
        kind = answer.header("Content-Type").partition(";")[0].strip().lower()
        if (
            answer.status != HTTPStatus.OK
            or not manifests.is_digest(digest)
            or (reference.digest and digest != reference.digest)
            or kind not in manifests.MANIFESTS | manifests.INDEXES
        ):
            return self.manifest(reference)
        if kind in manifests.MANIFESTS and not annotations:
            return Image(digest=digest, media_type=kind)
        found = self._manifest(name, digest)
        if found is None:
            raise Unavailable(f"{self.host}: the tag has moved while it was read, or its manifest cannot be read")
        return found

    def manifest(self, reference: Reference) -> Image | None:
        """Return the manifest or index that `reference` names, its digest verified; None as `resolve`."""
        return self._manifest(self._named(reference), reference.wanted)

    def blob(self, repository: str, descriptor: Descriptor) -> Blob:
        """Open a blob, to be read in a `with` block; `repository` is its name without the host.

        A connection that breaks off is taken up again where it ended.
        """
        return Blob(self, repository, descriptor)

    def has_blob(self, repository: str, digest: str) -> bool:
        """Say whether the repository has the blob."""
        answer = self._ask("HEAD", f"/v2/{quote(repository)}/blobs/{digest}", repository)
        answer.close() if answer.status >= HTTPStatus.BAD_REQUEST else answer.done()
        if answer.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            raise self._unexpected(answer)
        return answer.status == HTTPStatus.OK

    # ── Pushing ──────────────────────────────────────────────────────────────────────────────────────────────

    def mount(self, from_repository: str, to_repository: str, digest: str) -> bool:
        """Make a blob of one repository one of another without sending it; False where that is not to be had."""
        return upload.mount(self, from_repository, to_repository, digest)

    def upload(
        self, repository: str, content: bytes | BinaryIO, *, digest: str = "", chunk_bytes: int = 0
    ) -> str:
        """Upload a blob and return its digest, computed where it is not given.

        `content`: bytes, or a file that can be sought. `chunk_bytes`: send it in pieces of this size instead of at
        once. What breaks off is taken up again; the upload is cancelled where it fails.
        """
        return upload.upload(self, repository, content, digest, chunk_bytes)

    def push_manifest(self, repository: str, data: bytes, media_type: str, tag: str = "") -> str:
        """Push a manifest or index under `tag`, else under its digest alone, and return the digest."""
        digest = manifests.digest_of(data)
        path = f"/v2/{quote(repository)}/manifests/{quote(tag) or digest}"
        answer = self._ask(
            "PUT", path, repository, push=True, headers={"Content-Type": media_type}, body=lambda: data
        )
        if answer.status not in (HTTPStatus.CREATED, HTTPStatus.OK):
            raise self._unexpected(answer)
        answer.done()
        if answer.header("Docker-Content-Digest") not in ("", digest):
            raise Unavailable(f"{self.host}: says that it took another manifest than the one sent")
        return digest

    # ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────

    def _named(self, reference: Reference) -> str:
        if reference.registry != self.host:
            raise ValueError(f"a client for {self.host} cannot ask {reference.registry}")
        return reference.name

    def _manifest(self, name: str, wanted: str) -> Image | None:
        path = f"/v2/{quote(name)}/manifests/{wanted}"
        answer = self._ask("GET", path, name, headers={"Accept": manifests.ACCEPT})
        if answer.status == HTTPStatus.NOT_FOUND:
            if _code(answer) in _MISSING:
                return None
            raise Unavailable(f"{self.host}: answered 404, but not as a registry does")
        if answer.status != HTTPStatus.OK:
            raise self._unexpected(answer)
        data = answer.whole(manifests.SIZE_MOST)
        said = wanted if ":" in wanted else answer.header("Docker-Content-Digest")
        digest = manifests.digest_of(data, said.partition(":")[0] if manifests.is_digest(said) else "sha256")
        if said and said != digest:
            raise Unavailable(f"{self.host}: sent a manifest that does not have the digest it should")
        try:
            parsed = manifests.parse(data, answer.header("Content-Type"))
        except ManifestError as error:
            raise Unavailable(f"{self.host}: the manifest of {name} {error}") from None
        return Image(digest=digest, media_type=parsed.media_type, manifest=parsed, data=data)

    def _ask(
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
        url = where if "://" in where else self._base + where
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
                    asked is None or _essence(said) != _essence(asked) or bool(set(said.scopes) - set(asked.scopes) - scopes)
                )
                if news and said:
                    asked, token = said, None
                    self._session.learn(self._access, self._base, scopes, said)
                elif not (token and token.kept):
                    break
        raise Forbidden(f"{self.host}: access to {repository} was refused {_tries(tried)}")

    def _asked(self, scopes: frozenset[str], deadline: Deadline) -> Challenge | None:
        """Return what the registry asks for. Where there are credentials, it is asked for that first."""
        known, asked = self._session.asks(self._access, self._base, scopes)
        if known or not self._access.credentials:
            return asked
        if not self._session.asking.acquire(timeout=deadline.left_s()):
            raise Unavailable(f"{self.host}: did not answer in {deadline.seconds:g} s")
        try:
            known, asked = self._session.asks(self._access, self._base, scopes)
            if not known:
                answer = self._session.connections.send("GET", f"{self._base}/v2/", self._access, deadline, {})
                if answer.status == HTTPStatus.UNAUTHORIZED:
                    asked = _usable(challenges.parse(answer.all("WWW-Authenticate")))
                answer.done()
                self._session.learn(self._access, self._base, frozenset(), asked)
        finally:
            self._session.asking.release()
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
            url = self._location(answer, url)
            answer.done()
            answer = self._session.connections.send(method, url, self._access, deadline, headers)
            if answer.status not in _REDIRECTS:
                if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    raise self._unexpected(answer, str(origin_of(url)))
                return answer
        answer.close()
        raise Unavailable(f"{self.host}: redirects more than {REDIRECTS_MOST} times")

    def _location(self, answer: Answer, url: str) -> str:
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

    def _unexpected(self, answer: Answer, host: str = "") -> Unavailable:
        """Return an answer that is none as an error. The registry's own words stay out of it."""
        after = retry_after_s(answer.header("Retry-After"))
        code = _code(answer)
        return Unavailable(f"{host or self.host}: answered {answer.status}{code and f' ({code})'}", after)


class Blob:
    """A blob that is read as it comes, its size and digest verified: the last piece is not given before they fit."""

    def __init__(self, client: Client, repository: str, descriptor: Descriptor) -> None:
        self._client, self._repository, self._descriptor = client, repository, descriptor
        self._hash = hashlib.new(descriptor.digest.partition(":")[0], usedforsecurity=False)
        self._read = 0
        self._resumes = 0
        self._answer: Answer | None = self._open()

    def __enter__(self) -> Blob:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        """Yield it piece by piece. Raises as `read`."""
        while chunk := self.read():
            yield chunk

    def read(self, size: int = 64 * 1024) -> bytes:
        """Return up to `size` bytes, none at the end.

        Raises Unavailable, also where the blob is not what its descriptor says.
        """
        while self._answer is not None:
            try:
                chunk = self._answer.read(max(1, size))
                if not chunk and self._read < self._descriptor.size:
                    raise Broken(f"{self._client.host}: broke off a blob")  # noqa: TRY301
            except Broken:
                self._resumes += 1
                if self._resumes > RESUMES_MOST:
                    raise
                self._answer = self._open()
                continue
            self._read += len(chunk)
            self._hash.update(chunk)
            if self._read > self._descriptor.size:
                self.close()
                raise Unavailable(f"{self._client.host}: sent a blob that is larger than its manifest says")
            if self._read == self._descriptor.size:
                self._verify()
            return chunk
        return b""

    def close(self) -> None:
        """End the reading."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _verify(self) -> None:
        answer, self._answer = self._answer, None
        if answer and answer.read(1):
            answer.close()
            raise Unavailable(f"{self._client.host}: sent a blob that is larger than its manifest says")
        if self._hash.hexdigest() != self._descriptor.digest.partition(":")[2]:
            raise Unavailable(f"{self._client.host}: sent a blob that does not have the digest it should")

    def _open(self) -> Answer:
        headers = {"Range": f"bytes={self._read}-"} if self._read else {}
        path = f"/v2/{quote(self._repository)}/blobs/{self._descriptor.digest}"
        answer = self._client._ask("GET", path, self._repository, headers=headers)  # noqa: SLF001
        if answer.status == HTTPStatus.NOT_FOUND:
            answer.close()
            raise Unavailable(f"{self._client.host}: lacks a blob of {self._repository} that is part of an image")
        if answer.status == HTTPStatus.PARTIAL_CONTENT and self._read:
            if not answer.header("Content-Range").startswith(f"bytes {self._read}-"):
                answer.close()
                raise Unavailable(f"{self._client.host}: sent another part of a blob than was asked for")
            return answer
        if answer.status != HTTPStatus.OK:
            raise self._client._unexpected(answer)  # noqa: SLF001
        passed = 0
        while passed < self._read:  # it knows no ranges
            chunk = answer.read(min(64 * 1024, self._read - passed))
            if not chunk:
                raise Unavailable(f"{self._client.host}: broke off a blob")
            passed += len(chunk)
        return answer


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


def _code(answer: Answer) -> str:
    """Return the code of a registry's error, where it is one of the specification, and close the answer."""
    try:
        said = json.loads(answer.whole(_ERROR_MOST))
        code = said["errors"][0]["code"]
    except (Unavailable, ValueError, RecursionError, LookupError, TypeError):
        return ""
    finally:
        answer.close()
    return code if isinstance(code, str) and code in _CODES else ""


def _query(url: str, **parameters: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}"
