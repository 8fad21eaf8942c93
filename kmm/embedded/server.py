"""The API server's HTTP: paths, verbs, media types, watches, faults."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import yaml
from aiohttp import web

from kmm.embedded import openapi
from kmm.embedded.failure import Failure, bad_request, expired, unsupported_media
from kmm.embedded.fault import Faults, Kind
from kmm.embedded.listener import Listener
from kmm.embedded.objects import JSON_PATCH, MAX_BYTES, MERGE_PATCH, Deletion, Objects, Options
from kmm.embedded.resource import Resource
from kmm.embedded.selector import accepts, parse_fields, parse_labels
from kmm.embedded.storage import Event, Record, encode
from kmm.embedded.table import partial, table

_LOG = logging.getLogger(__name__)
_JSON = "application/json"
_SNAPSHOTS = 64
_BOOKMARK_S = 60.0
_NO_PATH = "the server could not find the requested resource"
_RETURNED = ("pods", "namespaces", "serviceaccounts")  # deleted at once, they are answered; others are a Status


@dataclass(frozen=True, slots=True)
class User:
    """Who asks."""

    name: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the request log; a watch is written when it starts."""

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    subresource: str
    code: int
    agent: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What a path names."""

    group: str
    version: str
    namespace: str
    plural: str
    name: str
    subresource: str


class _Lost(Exception):
    """The connection is to end without an answer."""


class Server:
    """Serves objects. `tokens`: from bearer tokens to users; it may grow while serving."""

    def __init__(self, objects: Objects, tokens: dict[str, User], *, bookmark_s: float = _BOOKMARK_S) -> None:
        self.objects, self.tokens = objects, tokens
        self.faults = Faults()
        self.log: deque[Entry] = deque(maxlen=200_000)
        self._bookmark_s = bookmark_s
        self._snapshots: OrderedDict[str, tuple[int, list[Record]]] = OrderedDict()
        self._watchers: dict[tuple[str, str], set[asyncio.Event]] = {}
        self._listener = Listener(self._answer)
        objects.storage.listeners.append(self._wake)

    @property
    def port(self) -> int:
        return self._listener.ports[0]

    async def start(self, host: str, tls: ssl.SSLContext | None) -> None:
        """Listen; on the same port as before where there was one."""
        await self._listener.start(host, tls)

    async def stop(self) -> None:
        """Close every connection; what is stored stays."""
        await self._listener.stop()

    def _wake(self, event: Event) -> None:
        for watcher in self._watchers.get(event.record.resource.key, ()):
            watcher.set()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        target = _target(request.path)
        user = self._user(request)
        verb = _verb(request, target)
        plural, name = (target.plural, target.name) if target else (request.path, "")
        code = 0
        try:
            if isinstance(user, Failure):
                raise user
            delay_s = await self._before(verb, plural, name, user)
            serving = self._serve(request, target, verb, user, delay_s)
            # A client that goes while it waits does not undo its request.
            response = await (asyncio.shield(serving) if delay_s else serving)
            code = response.status
            if self.faults.strike((Kind.LOSE,), verb, plural, name, user.name):
                raise _Lost
        except Failure as failure:
            code = failure.code
            response = _json(failure.status(), failure.code, failure.headers)
        except _Lost:
            if request.transport:
                request.transport.abort()
            response = web.Response(status=499)
        except RecursionError:
            code = 400
            response = _json(bad_request("the object is nested too deeply").status(), 400)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            _LOG.exception("%s %s", request.method, request.path)
            code = 500
            response = _json(Failure(500, "InternalError", f"Internal error occurred: {error}").status(), 500)
        finally:
            if verb != "watch" or code >= 400:
                self._note(request, target, verb, user, code)
        return response

    async def _before(self, verb: str, plural: str, name: str, user: User) -> float:
        """Let a fault strike; return by how much the request is to be delayed."""
        fault = self.faults.strike((Kind.REFUSE, Kind.HANG, Kind.DELAY), verb, plural, name, user.name)
        if fault is None:
            return 0
        if fault.kind is Kind.REFUSE:
            raise fault.failure()
        if fault.kind is Kind.HANG:
            await asyncio.sleep(3600)
            raise _Lost
        return fault.delay_s

    def _note(
        self, request: web.BaseRequest, target: _Target | None, verb: str, user: User | Failure, code: int
    ) -> None:
        self.log.append(
            Entry(
                user="" if isinstance(user, Failure) else user.name,
                verb=verb,
                resource=target.plural if target else request.path,
                namespace=target.namespace if target else "",
                name=target.name if target else "",
                subresource=target.subresource if target else "",
                code=code,
                agent=request.headers.get("User-Agent", ""),
                at_s=time.time(),
            )
        )

    def _user(self, request: web.BaseRequest) -> User | Failure:
        said = request.headers.get("Authorization", "")
        if not said:
            if request.path in ("/healthz", "/readyz", "/livez", "/version"):
                return User("system:anonymous", ("system:unauthenticated",))
            why = f'User "system:anonymous" cannot access path "{request.path}"'
            return Failure(403, "Forbidden", f"forbidden: {why}")
        scheme, _, token = said.partition(" ")
        user = self.tokens.get(token.strip()) if scheme.lower() == "bearer" else None
        return user or Failure(401, "Unauthorized", "Unauthorized")

    async def _serve(
        self, request: web.BaseRequest, target: _Target | None, verb: str, user: User, delay_s: float
    ) -> web.StreamResponse:
        if delay_s:
            await asyncio.sleep(delay_s)
        if target is None:
            return self._serve_itself(request.path)
        if target.plural == "selfsubjectreviews" and verb == "create":
            info = {"username": user.name, "groups": [*user.groups, "system:authenticated"]}
            kind = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
            return _json({**kind, "metadata": {}, "status": {"userInfo": info}}, 201)
        resource = self.objects.resources.get((target.group, target.plural))
        if resource is None or resource.version != target.version or (target.namespace and not resource.namespaced):
            raise Failure(404, "NotFound", _NO_PATH)
        if target.subresource not in ("", "status" if resource.status else "", *_subresources(resource)):
            what = f"{resource.plural}/{target.subresource}"
            raise Failure(404, "NotFound", f"{_NO_PATH} (the embedded API server has no {what})")
        nameless = verb in ("update", "patch") and not target.name
        if (
            nameless
            or (verb == "create" and target.name)
            or (target.subresource and verb not in ("get", "update", "patch"))
            or (resource.namespaced and not target.namespace and verb not in ("list", "watch"))
        ):
            raise Failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        match verb:
            case "get":
                record = self.objects.get(resource, target.namespace, target.name)
                return _object(request, resource, record)
            case "list":
                return self._list(request, resource, target)
            case "watch":
                return await self._watch(request, resource, target, user)
            case "delete" | "deletecollection":
                return await self._delete(request, resource, target, verb)
        return await self._write(request, resource, target, verb)

    def _serve_itself(self, path: str) -> web.Response:
        resources = list(self.objects.resources.values())
        if path in ("/healthz", "/readyz", "/livez"):
            return web.Response(text="ok")
        if path == "/version":
            return _json({"major": "1", "minor": "36", "gitVersion": "v1.36.3+embedded", "platform": "linux/amd64"})
        if path == "/api":
            return _json(openapi.versions())
        if path == "/apis":
            groups = openapi.groups(resources)
            return _json({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        if path == "/openapi/v2":
            # kubectl looks here for what is not in v3, and has a better word than ours for what is nowhere.
            return web.Response(content_type="application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
        if path == "/openapi/v3":
            return _json(openapi.index(resources))
        wanted = path.removeprefix("/openapi/v3").strip("/")
        found = [each for each in resources if openapi.root(each.api_version) == wanted]
        if found:
            version = found[0].api_version
            said = openapi.document if path.startswith("/openapi/v3") else openapi.resource_list
            return _json(said(version, found))
        for group in openapi.groups(resources):
            if wanted == f"apis/{group['name']}":
                return _json(group)
        raise Failure(404, "NotFound", _NO_PATH)

    async def _write(
        self, request: web.BaseRequest, resource: Resource, target: _Target, verb: str
    ) -> web.StreamResponse:
        options = Options(
            field_validation=request.query.get("fieldValidation") or "Warn", dry_run="dryRun" in request.query
        )
        if options.field_validation not in ("Ignore", "Warn", "Strict"):
            raise bad_request(f"fieldValidation: Unsupported value: {options.field_validation!r}")
        media_type = request.headers.get("Content-Type", _JSON).partition(";")[0].strip()
        if verb == "patch":
            if media_type not in (JSON_PATCH, MERGE_PATCH):
                what = f"no {media_type}: kubectl replace, or kubectl patch --type=merge, does without"
                raise unsupported_media(f"{JSON_PATCH}, {MERGE_PATCH}", what)
        elif media_type not in (_JSON, "application/yaml"):
            what = f"no {media_type}: kubectl create … --dry-run=client -o yaml | kubectl apply -f - does without"
            raise unsupported_media(f"{_JSON}, application/yaml", what)
        body = await _body(request, media_type)
        objects, namespace, name = self.objects, target.namespace, target.name
        status = 200
        if verb == "create":
            record, status = objects.create(resource, namespace, _mapping(body), options), 201
        elif verb == "patch":
            record = objects.patch(resource, namespace, name, body, media_type, target.subresource, options)
        else:
            record, made = objects.put(resource, namespace, name, _mapping(body), target.subresource, options)
            status = 201 if made else 200
        response = _object(request, resource, record, status)
        for warning in options.warnings:
            quoted = warning.replace("\\", "\\\\").replace('"', '\\"')
            response.headers.add("Warning", f'299 - "{quoted}"')
        return response

    async def _delete(
        self, request: web.BaseRequest, resource: Resource, target: _Target, verb: str
    ) -> web.StreamResponse:
        said = await _body(request, _JSON)
        said = {} if said is None else said
        if not isinstance(said, Mapping):
            raise bad_request("DeleteOptions have to be an object")
        conditions = said.get("preconditions") or {}
        if not isinstance(conditions, Mapping):
            raise bad_request("preconditions have to be an object")
        policy = said.get("propagationPolicy") or request.query.get("propagationPolicy")
        if policy not in (None, "Background", "Foreground", "Orphan"):
            raise bad_request(f"propagationPolicy: Unsupported value: {policy!r}")
        grace = said.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
        how = Deletion(
            uid=conditions.get("uid"),
            version=conditions.get("resourceVersion"),
            grace_s=None if grace is None else int(_number(grace, "gracePeriodSeconds")),
            policy=policy,
            dry_run=bool(said.get("dryRun")) or "dryRun" in request.query,
        )
        if verb == "deletecollection":
            records = list(self._selected(request, resource, target))
            for record in records:
                self.objects.delete(record, how)
            return _listed(resource, records, {"resourceVersion": str(self.objects.storage.version)})
        record = self.objects.get(resource, target.namespace, target.name)
        left = self.objects.delete(record, how)
        if left is not None or resource.plural in _RETURNED:
            return _object(request, resource, left or record)
        details: dict[str, Any] = {"name": record.name, "kind": resource.plural, "uid": record.uid}
        if resource.group:
            details["group"] = resource.group
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        response = _json(body)
        if resource.kind == "Job" and policy is None:
            response.headers.add("Warning", f'299 - "{_ORPHANS}"')
        return response

    def _filter(self, request: web.BaseRequest, resource: Resource, target: _Target) -> Any:
        """Return the function that says whether a record is asked for."""
        labels = parse_labels(request.query.get("labelSelector", ""))
        fields = parse_fields(request.query.get("fieldSelector", ""), resource.known_fields)
        namespace, one = target.namespace, target.name
        if not labels and not fields and not namespace and not one:
            return None

        def asked_for(record: Record) -> bool:
            if (namespace and record.namespace != namespace) or (one and record.name != one):
                return False
            said = (record.name, record.namespace, *record.fields)
            return accepts(labels, record.labels) and all((said[at] == value) is equal for at, value, equal in fields)

        return asked_for

    def _selected(self, request: web.BaseRequest, resource: Resource, target: _Target) -> Iterator[Record]:
        asked_for = self._filter(request, resource, target)
        for record in self.objects.storage.records(resource, target.namespace):
            if asked_for is None or asked_for(record):
                yield record

    def _list(self, request: web.BaseRequest, resource: Resource, target: _Target) -> web.Response:
        storage = self.objects.storage
        _checked_version(request, storage.version)
        token = request.query.get("continue", "")
        limit = int(_number(request.query.get("limit") or 0, "limit"))
        if token:
            name, _, start = token.partition(".")
            start = start if start.isdecimal() else "0"
            version, records = self._snapshots.get(name, (0, []))
            if version < max(storage.compacted, 1):
                raise expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a "
                    "new list without the continue parameter."
                )
            at = int(start)
        else:
            version, records, at, name = storage.version, list(self._selected(request, resource, target)), 0, ""
        meta: dict[str, Any] = {"resourceVersion": str(version)}
        page = records[at : at + limit] if limit else records[at:]
        left = len(records) - at - len(page)
        if left:
            if not name:
                name = secrets.token_hex(8)
                self._snapshots[name] = (version, records)
                if len(self._snapshots) > _SNAPSHOTS:
                    self._snapshots.popitem(last=False)
            meta["continue"] = f"{name}.{at + len(page)}"
            if not request.query.get("labelSelector") and not request.query.get("fieldSelector"):
                meta["remainingItemCount"] = left
        wanted = _accepted(request)
        if wanted == "Table":
            return _json(table(resource, page, meta, request.query.get("includeObject", "Metadata")))
        return _listed(resource, page, meta, as_partial=wanted.startswith("PartialObjectMetadata"))

    async def _watch(
        self, request: web.BaseRequest, resource: Resource, target: _Target, user: User
    ) -> web.StreamResponse:
        storage = self.objects.storage
        position = _checked_version(request, None)
        show = _Shown(resource, request)
        asked_for = self._filter(request, resource, target)
        seconds = _number(request.query.get("timeoutSeconds") or 0, "timeoutSeconds") or 2700.0
        bookmarks = request.query.get("allowWatchBookmarks") in ("true", "1")
        lag = self.faults.strike((Kind.LAG,), "watch", resource.plural, target.name, user.name)
        response = web.StreamResponse(headers={"Content-Type": _JSON})
        self._note(request, target, "watch", user, 200)
        await response.prepare(request)
        lines: list[bytes] = []
        initial = request.query.get("sendInitialEvents") in ("true", "1")
        if not position or initial:
            position = storage.version
            lines += [show.line("ADDED", each) for each in self._selected(request, resource, target)]
            if initial and bookmarks:
                lines.append(show.bookmark(position, initial_end=True))
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(resource.key, set())
        watchers.add(changed)
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        marked = loop.time()
        try:
            while True:
                if lag:
                    await asyncio.sleep(lag.delay_s)
                changed.clear()
                try:
                    events = storage.since(resource, position)
                except Failure as failure:
                    await response.write(encode({"type": "ERROR", "object": failure.status()}) + b"\n")
                    bookmarks = False
                    break
                # All up to here is told before it is bookmarked; what happens while it is written is not yet.
                position = storage.version
                for event in events:
                    lines += show.event(event, asked_for)
                if lines:
                    if self.faults.strike((Kind.CUT,), "watch", resource.plural, target.name, user.name):
                        await response.write(b"".join(lines)[: -len(lines[-1]) // 2])
                        raise _Lost
                    await response.write(b"".join(lines))
                    lines = []
                now = loop.time()
                if now >= ends:
                    break
                if bookmarks and now - marked >= self._bookmark_s:
                    marked = now
                    await response.write(show.bookmark(position))
                    continue
                wait_s = min(ends - now, marked + self._bookmark_s - now if bookmarks else seconds)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), max(wait_s, 0.001))
        finally:
            watchers.discard(changed)
        if bookmarks:
            await response.write(show.bookmark(position))
        await response.write_eof()
        return response


_ORPHANS = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or "
    "set propagationPolicy=Orphan to suppress this warning"
)


class _Shown:
    """How objects are shown to who asks."""

    def __init__(self, resource: Resource, request: web.BaseRequest) -> None:
        self._resource, self._wanted = resource, _accepted(request)
        self._include = request.query.get("includeObject", "Metadata")

    def line(self, kind: str, record: Record) -> bytes:
        return b'{"type":"%s","object":%s}\n' % (kind.encode(), self.body(record))

    def event(self, event: Event, asked_for: Any) -> list[bytes]:
        before = event.before
        if before is not None and asked_for is not None and not asked_for(before):
            before = None
        if event.kind != "DELETED" and (asked_for is None or asked_for(event.record)):
            return [self.line("MODIFIED" if before else "ADDED", event.record)]
        if before is None:
            return []
        if event.kind == "DELETED":
            return [self.line("DELETED", event.record)]
        # It no longer is what was asked for: told as it was, with the version of the change.
        was = before.read()
        was["metadata"]["resourceVersion"] = str(event.version)
        return [self.line("DELETED", replace(before, body=encode(was)))]

    def bookmark(self, version: int, *, initial_end: bool = False) -> bytes:
        meta: dict[str, Any] = {"resourceVersion": str(version)}
        if initial_end:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        body = {"apiVersion": self._resource.api_version, "kind": self._resource.kind, "metadata": meta}
        if self._wanted:
            body = partial(body)
        return encode({"type": "BOOKMARK", "object": body}) + b"\n"

    def body(self, record: Record) -> bytes:
        if self._wanted == "Table":
            return encode(table(self._resource, [record], {"resourceVersion": str(record.version)}, self._include))
        return encode(partial(record.read())) if self._wanted else record.body


def _subresources(resource: Resource) -> tuple[str, ...]:
    return ("finalize",) if resource.kind == "Namespace" else ()


def _target(path: str) -> _Target | None:
    """Read a path of objects; `None` where it is one of the server itself."""
    steps = path.strip("/").split("/")
    if steps[0] == "api" and len(steps) > 2:
        group, version, rest = "", steps[1], steps[2:]
    elif steps[0] == "apis" and len(steps) > 3:
        group, version, rest = steps[1], steps[2], steps[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    rest += [""] * (3 - len(rest))
    return _Target(
        group=group, version=version, namespace=namespace, plural=rest[0], name=rest[1], subresource=rest[2]
    )


def _verb(request: web.BaseRequest, target: _Target | None) -> str:
    named = target is not None and bool(target.name)
    match request.method:
        case "GET":
            watching = request.query.get("watch") in ("true", "1")
            return "watch" if watching and target else "get" if named or target is None else "list"
        case "POST":
            return "create"
        case "DELETE":
            return "delete" if named else "deletecollection"
        case method:
            return {"PUT": "update", "PATCH": "patch"}.get(method, method.lower())


def _number(said: Any, name: str) -> float:
    """Read a number that is not negative."""
    try:
        number = float(said) if isinstance(said, (str, int, float)) else -1.0
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**31:
        raise bad_request(f"{name}: Invalid value: {said!r}: must be a number, and not negative")
    return number


def _checked_version(request: web.BaseRequest, newest: int | None) -> int:
    said = request.query.get("resourceVersion", "")
    if not said:
        return 0
    if not said.isdecimal():
        why = f'Invalid value: "{said}": strconv.ParseUint: parsing "{said}": invalid syntax'
        raise Failure(500, "", f"resourceVersion: {why}")
    if newest is not None and int(said) > newest:
        message = f"Timeout: Too large resource version: {said}, current: {newest}"
        raise Failure(504, "Timeout", message, {"retryAfterSeconds": 1})
    return int(said)


def _accepted(request: web.BaseRequest) -> str:
    """Return `Table`, `PartialObjectMetadata…` or nothing: what of that a client would rather have."""
    said = request.headers.get("Accept", "")
    for each in said.split(","):
        media, *parameters = (part.strip() for part in each.split(";"))
        if media in (_JSON, "*/*", "application/*"):
            form = next((part.removeprefix("as=") for part in parameters if part.startswith("as=")), "")
            if form in ("", "Table") or form.startswith("PartialObjectMetadata"):
                return form
    if said:
        raise Failure(406, "NotAcceptable", f"only the following media types are accepted: {_JSON}")
    return ""


async def _body(request: web.BaseRequest, media_type: str) -> Any:
    chunks, size = [], 0
    async for chunk in request.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise Failure(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BYTES}")
    text = b"".join(chunks)
    if not text:
        return None
    try:
        if media_type == "application/yaml":
            return yaml.load(text, Loader=yaml.CSafeLoader)
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body of the request cannot be decoded: {error}") from error


def _mapping(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise bad_request("the body of the request has to be an object")
    return body


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=encode(body), status=status, headers={"Content-Type": _JSON, **(headers or {})})


def _object(request: web.BaseRequest, resource: Resource, record: Record, status: int = 200) -> web.Response:
    body = _Shown(resource, request).body(record)
    return web.Response(body=body, status=status, headers={"Content-Type": _JSON})


def _listed(
    resource: Resource, records: Iterable[Record], meta: Mapping[str, Any], *, as_partial: bool = False
) -> web.Response:
    if as_partial:
        kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
        # An empty one is null, as Kubernetes writes it.
        return _json({**kind, "metadata": meta, "items": [partial(each.read()) for each in records] or None})
    bodies = [each.body for each in records]
    if not resource.custom:
        # Items of Kubernetes' own kinds do not say what they are; each body begins with that.
        said = len(encode({"apiVersion": resource.api_version, "kind": resource.kind})[:-1])
        bodies = [b"{" + body[said + 1 :] for body in bodies]
    head = encode({"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta})
    body = head[:-1] + b',"items":[' + b",".join(bodies) + b"]}"
    return web.Response(body=body, headers={"Content-Type": _JSON})
