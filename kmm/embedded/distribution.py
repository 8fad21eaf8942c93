"""The OCI distribution protocol over HTTP: paths, uploads, manifests, blobs, faults."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import ssl
import time
from collections import deque
from dataclasses import dataclass

from aiohttp import web

from kmm.embedded.account import DELETE, PULL, PUSH
from kmm.embedded.listener import Listener
from kmm.embedded.manifest import checked, is_digest
from kmm.embedded.registry_access import Access, Auth, Caller
from kmm.embedded.registry_answer import BLOB, PIECE, Answer, Lost, content, json_answer, troubled
from kmm.embedded.registry_failure import NoPage, Refusal
from kmm.embedded.registry_fault import BEFORE, BODY, HEADER, RegistryFault, RegistryFaults, Trouble
from kmm.embedded.repository import Repositories, Repository, Upload
from kmm.oci import reference as references

MANIFEST_BYTES = 4 << 20
_LOG = logging.getLogger(__name__)
_HTML = "text/html"
_DRIPS = 8
_PATHS = (
    ("upload", re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<reference>[^/]*)")),
    ("manifest", re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")),
    ("blob", re.compile(r"/v2/(?P<name>.+)/blobs/(?P<reference>[^/]+)")),
    ("tags", re.compile(r"/v2/(?P<name>.+)/tags/(?P<reference>list)")),
)
_METHODS = {
    "base": (),  # every one is answered, as by the real one
    "token": ("GET", "POST"),
    "store": ("GET", "HEAD"),
    "manifest": ("DELETE", "GET", "HEAD", "PUT"),
    "blob": ("DELETE", "GET", "HEAD"),
    "upload": ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"),
    "tags": ("GET",),
}
_NEEDS = {"GET": (PULL,), "HEAD": (PULL,), "DELETE": (DELETE,)}
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_CHUNK = re.compile(r"(?:bytes )?(\d{1,15})-(\d{1,15})(?:/(?:\d+|\*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the request log. `scheme`: of the Authorization header, whose value is nowhere; `status`: 0 where the
    connection ended without an answer; `scopes`: those of the token that was brought, or is answered.
    """

    method: str
    path: str
    status: int
    user: str
    scheme: str
    kind: str
    repository: str
    scopes: tuple[str, ...]
    agent: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What a path names. `reference`: a tag, a digest, or an upload's id."""

    kind: str
    repository: str = ""
    reference: str = ""


class Distribution:
    """Serves repositories. `relative`: Locations are paths, not whole addresses."""

    def __init__(self, repositories: Repositories, access: Access, *, relative: bool = False) -> None:
        self.repositories, self.access = repositories, access
        self.faults = RegistryFaults()
        self.log: deque[Entry] = deque(maxlen=200_000)
        self._base = self._store = ""
        self._relative = relative
        self._signatures: deque[str] = deque(maxlen=1_000)
        self._listener = Listener(self._answer, ports=2)

    @property
    def port(self) -> int:
        return self._listener.ports[0]

    @property
    def store_port(self) -> int:
        """The port of the store to which blobs may be redirected."""
        return self._listener.ports[1]

    async def start(self, host: str, tls: ssl.SSLContext | None) -> None:
        """Listen; on the same ports as before where there were some."""
        await self._listener.start(host, tls)
        scheme = "https" if tls else "http"
        self._base, self._store = f"{scheme}://{host}:{self.port}", f"{scheme}://{host}:{self.store_port}"

    async def stop(self) -> None:
        """Close every connection; what is stored stays."""
        await self._listener.stop()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        target = self._target(request)
        # The token endpoint, and the store, know callers in their own ways.
        known = target.kind not in ("token", "store", "")
        caller = self.access.identify(request) if known else None
        shown = caller or Caller(scheme=request.headers.get("Authorization", "").partition(" ")[0])
        status = 0
        try:
            try:
                await self._before(request, target, shown)
                if target.kind == "token":
                    shown, answer = await self._token(request)
                else:
                    answer = await self._serve(request, target, caller)
            except (Refusal, NoPage) as refusal:
                answer = Answer(status=refusal.status, headers=dict(refusal.headers), body=refusal.body)
            if self._strike((Trouble.LOSE,), request, target, shown):
                raise Lost
            self._lie(request, target, shown, answer)
            status = answer.status
        except Lost:
            return _hang_up(request)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            _LOG.exception("%s %s", request.method, request.path)
            status = 500
            return web.Response(status=status)
        finally:
            # Before the answer is sent: whoever has it finds it here.
            self._note(request, target, shown, status)
        try:
            return await self._send(request, target, shown, answer)
        except Lost:
            return _hang_up(request)

    def _note(self, request: web.BaseRequest, target: _Target, caller: Caller, status: int) -> None:
        self.log.append(
            Entry(
                method=request.method,
                path=request.path,
                status=status,
                user=caller.user,
                scheme=caller.scheme,
                kind=target.kind,
                repository=target.repository,
                scopes=caller.scopes,
                agent=request.headers.get("User-Agent", ""),
                at_s=time.time(),
            )
        )

    def _target(self, request: web.BaseRequest) -> _Target:
        """Read a path; the kind is empty where it is none of the protocol."""
        own = request.transport.get_extra_info("sockname") if request.transport else None
        if own and own[1] == self.store_port:
            name, _, digest = request.path.strip("/").rpartition("/")
            return _Target(kind="store", repository=name, reference=digest)
        if request.path == "/v2/":
            return _Target(kind="base")
        if request.path == "/token" and self.access.auth is Auth.BEARER:
            return _Target(kind="token")
        for kind, pattern in _PATHS:
            if (match := pattern.fullmatch(request.path)) and _is_repository(match["name"]):
                target = _Target(kind=kind, repository=match["name"], reference=match["reference"])
                tagged = kind != "manifest" or ":" in target.reference or _TAG.fullmatch(target.reference)
                return target if tagged else _Target(kind="")
        return _Target(kind="")

    def _strike(
        self, kinds: tuple[Trouble, ...], request: web.BaseRequest, target: _Target, caller: Caller
    ) -> RegistryFault | None:
        return self.faults.strike(kinds, target.kind, request.method, target.repository, caller.user)

    async def _before(self, request: web.BaseRequest, target: _Target, caller: Caller) -> None:
        """Let a fault strike before anything is done."""
        fault = self._strike(BEFORE, request, target, caller)
        match fault.kind if fault else None:
            case Trouble.REFUSE if fault:
                if fault.code == 401 and target.repository:
                    raise self.access.challenge(_needs(request, target), error="insufficient_scope")
                raise fault.refusal()
            case Trouble.PAGE if fault:
                page = Refusal(("UNKNOWN", None), status=fault.code, headers=fault.headers())
                page.headers["Content-Type"] = _HTML
                page.body = f"<html><body><h1>{fault.code}</h1>a proxy says so</body></html>\n".encode()
                raise page
            case Trouble.RESET:
                raise Lost
            case Trouble.HANG:
                await asyncio.sleep(3600)
                raise Lost
            case Trouble.DELAY if fault:
                await asyncio.sleep(fault.delay_s)

    async def _token(self, request: web.BaseRequest) -> tuple[Caller, Answer]:
        _allow(request, "token")
        caller, said = await self.access.answer(request)
        return caller, json_answer(said)

    async def _serve(self, request: web.BaseRequest, target: _Target, caller: Caller | None) -> Answer:
        if target.kind == "store":
            return self._stored(request, target)
        if not target.kind:
            if request.path == "/v2":
                return Answer(status=301, headers={"Location": "/v2/"})
            raise NoPage
        needs = _needs(request, target)
        caller = self.access.check(request, caller, needs)
        _allow(request, target.kind)
        repository = self.repositories.get(target.repository)
        if repository is None and target.repository and self._strike((Trouble.HIDE,), request, target, caller):
            raise self.access.challenge(needs, error="insufficient_scope")
        match target.kind:
            case "manifest":
                return await self._manifest(request, target, repository or Repository())
            case "blob":
                return self._blob(request, target, caller)
            case "upload":
                return await self._upload(request, target, caller)
            case "tags":
                return self._tags(request, target, repository)
        return json_answer({})

    # Manifests.

    async def _manifest(self, request: web.BaseRequest, target: _Target, repository: Repository) -> Answer:
        reference = target.reference
        if ":" in reference and not is_digest(reference):
            raise Refusal(("DIGEST_INVALID", None))
        if request.method == "PUT":
            return await self._put_manifest(request, target)
        found = repository.find(reference)
        if found is None:
            detail = f"unknown manifest {reference}" if ":" in reference else {"Tag": reference}
            raise Refusal(("MANIFEST_UNKNOWN", detail))
        if request.method == "DELETE":
            if ":" in reference:
                repository.remove(reference)
            else:
                del repository.tags[reference]
            return Answer(status=202)
        if found.media_type not in _accepted(request):
            raise Refusal(("MANIFEST_UNKNOWN", None), message=f"{found.media_type} found, which Accept does not name")
        headers = {
            "Content-Type": found.media_type,
            "Docker-Content-Digest": found.digest,
            "Etag": f'"{found.digest}"',
        }
        if request.headers.get("If-None-Match", "").strip('"') == found.digest:
            return Answer(status=304, headers={"Etag": headers["Etag"]})
        return Answer(headers=headers, body=found.body)

    async def _put_manifest(self, request: web.BaseRequest, target: _Target) -> Answer:
        body = await self._small(request)
        repository = self.repositories.get(target.repository) or Repository()
        manifest = checked(
            body, request.headers.get("Content-Type", ""), blobs=repository.blobs, manifests=repository.manifests
        )
        if ":" in target.reference and target.reference != manifest.digest:
            raise Refusal(("DIGEST_INVALID", None))
        tag = "" if ":" in target.reference else target.reference
        self.repositories.make(target.repository).add(manifest, tag)
        headers = {
            "Docker-Content-Digest": manifest.digest,
            "Location": self._location(f"/v2/{target.repository}/manifests/{manifest.digest}"),
        }
        return Answer(status=201, headers=headers)

    async def _small(self, request: web.BaseRequest) -> bytes:
        await _go_on(request)
        chunks, size = [], 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > MANIFEST_BYTES:
                raise Refusal(("MANIFEST_INVALID", "http: request body too large"))
            chunks.append(chunk)
        return b"".join(chunks)

    def _tags(self, request: web.BaseRequest, target: _Target, repository: Repository | None) -> Answer:
        if repository is None or not repository.tagged:
            raise Refusal(("NAME_UNKNOWN", {"name": target.repository}))
        last, said = request.query.get("last", ""), request.query.get("n", "")
        tags = sorted(tag for tag in repository.tags if tag > last)
        headers = {}
        if said:
            if not said.isdecimal() or len(said) > 9:
                raise Refusal(("PAGINATION_NUMBER_INVALID", {"n": said[:100]}))
            if int(said) < len(tags):
                tags = tags[: int(said)]
                after = f"&last={tags[-1]}" if tags else ""
                headers["Link"] = f'</v2/{target.repository}/tags/list?n={int(said)}{after}>; rel="next"'
        # No tags any more are null, as the real one writes them.
        answer = json_answer({"name": target.repository, "tags": tags if repository.tags else None})
        answer.headers |= headers
        return answer

    # Blobs.

    def _blob(self, request: web.BaseRequest, target: _Target, caller: Caller) -> Answer:
        digest = target.reference
        if not is_digest(digest):
            raise Refusal(("DIGEST_INVALID", {}))
        file = self.repositories.blob(target.repository, digest)
        if file is None:
            raise Refusal(("BLOB_UNKNOWN", digest))
        if request.method == "DELETE":
            self.repositories.remove_blob(target.repository, digest)
            return Answer(status=202, headers={"Docker-Content-Digest": digest})
        if self._strike((Trouble.REDIRECT,), request, target, caller):
            signature = secrets.token_urlsafe(16)
            self._signatures.append(signature)
            there = f"{self._store}/{target.repository}/{digest}?signature={signature}"
            return Answer(status=307, headers={"Location": there})
        return content(request, file, digest)

    def _stored(self, request: web.BaseRequest, target: _Target) -> Answer:
        """Serve a blob to whom was redirected here, and brings no credentials, as the stores of clouds do."""
        _allow(request, "store")
        if "Authorization" in request.headers:
            raise Refusal(("UNKNOWN", None), status=400, message="only one way to authenticate is allowed")
        file = self.repositories.blob(target.repository, target.reference)
        if file is None or request.query.get("signature", "") not in self._signatures:
            raise Refusal(("DENIED", None))
        return content(request, file, target.reference)

    # Uploads.

    async def _upload(self, request: web.BaseRequest, target: _Target, caller: Caller) -> Answer:
        if not target.reference:
            if request.method != "POST":
                raise Refusal(("BLOB_UPLOAD_UNKNOWN", None))
            return await self._begin(request, target, caller)
        if request.method == "POST":
            raise NoPage(_METHODS["upload"])
        state = request.query.get("_state", "")
        if not state:
            raise Refusal(("BLOB_UPLOAD_INVALID", {}))
        upload = self.repositories.uploads.get(target.reference)
        if upload is None or upload.repository != target.repository:
            raise Refusal(("BLOB_UPLOAD_UNKNOWN", {}))
        if request.method == "DELETE":
            self.repositories.cancel(upload)
            return Answer(status=204, headers={"Docker-Upload-Uuid": upload.id})
        if request.method in ("GET", "HEAD"):
            return self._session(upload, 204)
        if state != str(upload.size):
            # A client that does not go on with the Location that it was told last.
            raise Refusal(("BLOB_UPLOAD_INVALID", None))
        if request.method == "PATCH":
            await self._receive(request, target, caller, upload)
            return self._session(upload, 202)
        return await self._finish(request, target, caller, upload)

    async def _begin(self, request: web.BaseRequest, target: _Target, caller: Caller) -> Answer:
        mount, source = request.query.get("mount", ""), request.query.get("from", "")
        mounting = mount and source and not self._strike((Trouble.UNMOUNTED,), request, target, caller)
        if mounting and self.repositories.blob(source, mount):
            self.repositories.make(target.repository).blobs.add(mount)
            return self._made(target.repository, mount)
        if "digest" in request.query:
            _wanted(request)
            return await self._finish(request, target, caller, self.repositories.begin(target.repository))
        return self._session(self.repositories.begin(target.repository), 202)

    async def _receive(self, request: web.BaseRequest, target: _Target, caller: Caller, upload: Upload) -> None:
        """Add the body of a request to an upload. What came before a connection broke stays."""
        if request.headers.get("Content-Type", BLOB).partition(";")[0].strip() != BLOB:
            raise Refusal(("BLOB_UPLOAD_INVALID", "bad Content-Type"), status=400)
        if said := request.headers.get("Content-Range", ""):
            match = _CHUNK.fullmatch(said)
            if not match or int(match[1]) != upload.size:
                raise Refusal(("RANGE_INVALID", None), headers=self._session(upload, 416).headers)
            if request.content_length != int(match[2]) - int(match[1]) + 1:
                raise Refusal(("SIZE_INVALID", None))
        fault = self._strike((Trouble.INTERRUPT,), request, target, caller)
        left = fault.after_bytes if fault else 0
        await _go_on(request)
        async for chunk in request.content.iter_any():
            if fault and len(chunk) > left:
                upload.write(chunk[:left])
                raise Lost
            left -= len(chunk)
            upload.write(chunk)
        if fault:
            raise Lost
        if upload.ended:
            raise Refusal(("BLOB_UPLOAD_UNKNOWN", {}))

    async def _finish(self, request: web.BaseRequest, target: _Target, caller: Caller, upload: Upload) -> Answer:
        digest = _wanted(request)
        await self._receive(request, target, caller, upload)
        if not self.repositories.finish(upload, digest):
            raise Refusal(("DIGEST_INVALID", {"Digest": digest}))
        return self._made(target.repository, digest)

    def _made(self, name: str, digest: str) -> Answer:
        headers = {"Docker-Content-Digest": digest, "Location": self._location(f"/v2/{name}/blobs/{digest}")}
        return Answer(status=201, headers=headers)

    def _session(self, upload: Upload, status: int) -> Answer:
        headers = {
            "Docker-Upload-Uuid": upload.id,
            "Location": self._location(f"/v2/{upload.repository}/blobs/uploads/{upload.id}?_state={upload.size}"),
            "Range": f"0-{max(upload.size - 1, 0)}",
        }
        return Answer(status=status, headers=headers)

    def _location(self, path: str) -> str:
        return path if self._relative else self._base + path

    # Answers.

    def _lie(self, request: web.BaseRequest, target: _Target, caller: Caller, answer: Answer) -> None:
        """Let a fault strike the headers."""
        fault = self._strike(HEADER, request, target, caller) if answer.status < 400 else None
        if fault is None:
            return
        name = "Docker-Content-Digest" if fault.kind is Trouble.MISNAME else "Content-Type"
        answer.headers.pop(name, None)
        if fault.value:
            answer.headers[name] = fault.value

    async def _send(
        self, request: web.BaseRequest, target: _Target, caller: Caller, answer: Answer
    ) -> web.StreamResponse:
        headers = dict(answer.headers)
        if target.kind not in ("store", "token", "") and headers.get("Content-Type") != _HTML:
            headers["Docker-Distribution-Api-Version"] = "registry/2.0"
        empty = request.method == "HEAD" or answer.status in (204, 304)
        size = answer.size()
        if answer.status not in (204, 304):
            headers["Content-Length"] = str(size)
        if empty or not size:
            return web.Response(status=answer.status, headers=headers)
        fault = self._strike(BODY, request, target, caller) if answer.status < 400 else None
        kind = fault.kind if fault else None
        if fault and kind is Trouble.TRUNCATE:
            size = min(size, fault.after_bytes)
            headers["Content-Length"] = str(size)
        if kind is Trouble.FLOOD:
            del headers["Content-Length"]
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        pieces = answer.pieces(max(size // _DRIPS, 1) if kind is Trouble.DRIP else PIECE)
        async with contextlib.aclosing(troubled(pieces, fault)) as body:
            async for piece in body:
                await response.write(piece)
        await response.write_eof()
        return response


def _hang_up(request: web.BaseRequest) -> web.Response:
    if request.transport:
        request.transport.abort()
    return web.Response(status=499)


def _is_repository(name: str) -> bool:
    with contextlib.suppress(references.ReferenceError):
        return references.parse(f"localhost/{name}").path == name
    return False


def _needs(request: web.BaseRequest, target: _Target) -> dict[str, frozenset[str]]:
    """Return what one must be allowed to do: to cancel an upload is to delete, as for the real one."""
    if not target.repository:
        return {}
    needs = {target.repository: frozenset(_NEEDS.get(request.method, (PULL, PUSH)))}
    source = request.query.get("from", "") if target.kind == "upload" and request.method == "POST" else ""
    if source and _is_repository(source):
        needs[source] = needs.get(source, frozenset()) | {PULL}
    return needs


def _allow(request: web.BaseRequest, kind: str) -> None:
    if _METHODS[kind] and request.method not in _METHODS[kind]:
        raise NoPage(_METHODS[kind])


async def _go_on(request: web.BaseRequest) -> None:
    """Ask for the body of whoever waits for that, as curl does with a large one."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _wanted(request: web.BaseRequest) -> str:
    """Return the digest that an upload is said to have."""
    digest = request.query.get("digest", "")
    if not is_digest(digest):
        raise Refusal(("DIGEST_INVALID", "digest parsing failed" if digest else "digest missing"))
    return digest


def _accepted(request: web.BaseRequest) -> set[str]:
    """Return the media types that a client names; `*/*` names none, for the real one neither."""
    return {
        each.partition(";")[0].strip() for line in request.headers.getall("Accept", []) for each in line.split(",")
    }
