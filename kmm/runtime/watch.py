"""One kind of object, followed: listed in pages, then watched, resumed, and listed again where that is not possible.

A thread each. Events are read together: a wake-up for each would cost more than what it brings.
"""

from __future__ import annotations

import contextlib
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import urllib3
from urllib3.util.wait import wait_for_read

from kmm.runtime.store import Item, Store
from kmm.runtime.transport import JSON, ApiError, Expired, NotFound, Transport, Unreachable, refusal

V = TypeVar("V")
PAGE = 250
SILENCE_S = 120.0
_COALESCE_S = 0.1
_SHORT_S = 0.5
_ABSENT_S = 60.0
_LOG = logging.getLogger(__name__)
_LONGEST_BACK_OFF_S = 30.0
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Generic[V]):
    """What to follow.

    `trim`: from an object to what is kept of it; `read`: from JSON to the object, or to as much as `trim` looks at;
    `selector`: by labels; `fields`: by fields; `name`: of the only one that is followed;
    `metadata_only`: no more is asked for; `optional`: a cluster that does not have the kind has none of it.
    """

    path: str
    trim: Callable[[Mapping[str, Any]], V]
    read: Callable[[bytes | msgspec.Raw], Mapping[str, Any]] = msgspec.json.decode
    selector: str = ""
    fields: str = ""
    name: str = ""
    metadata_only: bool = False
    optional: bool = False

    @property
    def query(self) -> dict[str, str]:
        """What a list and a watch of it ask for."""
        fields = f"metadata.name={self.name}" if self.name else self.fields
        return {key: value for key, value in (("labelSelector", self.selector), ("fieldSelector", fields)) if value}

    @property
    def plural(self) -> str:
        """The kind, as logs and metrics call it."""
        return self.path.rpartition("/")[2]


class _Meta(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815


class _Object(msgspec.Struct):
    metadata: _Meta


class _ListMeta(msgspec.Struct):
    resourceVersion: str = ""  # noqa: N815
    token: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMeta
    # Read one by one: of a page read whole, the memory would never be given back. Of metadata alone, none is null.
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_LINE = msgspec.json.Decoder(_Event)
_LIST = msgspec.json.Decoder(_List)
_OBJECT = msgspec.json.Decoder(_Object)


class Watch(Generic[V]):
    """Keeps a store like the cluster. `failed` hears of what goes wrong."""

    def __init__(
        self, transport: Transport, source: Source[V], store: Store[V], failed: Callable[[str, Exception], None]
    ) -> None:
        self.source, self.store = source, store
        self._transport, self._failed = transport, failed
        self._stopping = threading.Event()
        self._response: urllib3.HTTPResponse | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"watch-{source.plural}", daemon=True)

    def start(self) -> None:
        """Follow, in a thread of its own."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether it follows, or has not begun to."""
        return self._thread.ident is None or self._thread.is_alive()

    def stop(self) -> None:
        """Stop following; a read that blocks ends at once."""
        self._stopping.set()
        with self._lock:
            if self._response is not None:
                with contextlib.suppress(OSError, ValueError):  # it may have ended by itself
                    self._response.shutdown()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        version, failures, expired = "", 0, False
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                if not version:
                    version = self._list()
                for reached in self._follow(version):
                    version, failures, expired = reached, 0, False
                if time.monotonic() - began < _SHORT_S:
                    self._stopping.wait(_SHORT_S)  # a server that ends every watch at once is not to be flooded
            except Exception as error:  # without this thread nobody would hear of this kind again
                if self._stopping.is_set():
                    return
                if isinstance(error, Expired) and not expired:
                    self._failed(self.source.plural, error)
                    version, expired = "", True
                    continue
                if not isinstance(error, ApiError | Unreachable | OSError):
                    _LOG.exception("watch of %s", self.source.plural)
                    version = ""  # what could not be understood may be missing: begin anew
                elif isinstance(error, Expired):
                    version = ""
                elif isinstance(error, NotFound) and self.source.optional:
                    self.store.sync()
                    self._stopping.wait(_ABSENT_S)
                    continue
                failures += 1
                self._failed(self.source.plural, error)
                least_s = getattr(error, "retry_after_s", None) or 0
                delay_s = min(0.1 * 2 ** min(failures - 1, 12), _LONGEST_BACK_OFF_S) * random.uniform(0.5, 1)  # noqa: S311
                self._stopping.wait(max(delay_s, least_s))

    def _list(self) -> str:
        """Read all pages; return the version to watch from."""
        query = {"limit": str(PAGE), **self.source.query}
        uids: set[str] = set()
        while True:
            accept = PARTIAL_LIST if self.source.metadata_only else JSON
            answer = self._transport.ask("GET", self.source.path, query=query, accept=accept)
            page = _LIST.decode(answer.body)
            for body in page.items or ():
                item = item_of(self.source.read(body), self.source.trim)
                uids.add(item.uid)
                self.store.put(item)
            if self._stopping.is_set():
                return ""
            if not page.metadata.token:
                break
            query = {**query, "continue": page.metadata.token}
        self.store.keep_only(uids, int(page.metadata.resourceVersion))
        self.store.sync()
        return page.metadata.resourceVersion

    def _follow(self, version: str) -> Iterator[str]:
        """Watch from a version; yield how far it is, until the server ends it."""
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(240, 360)),  # noqa: S311 -- so that not all end at once
            **self.source.query,
        }
        accept = PARTIAL if self.source.metadata_only else JSON
        response = self._transport.open(self.source.path, query, accept=accept, timeout_s=SILENCE_S)
        with self._lock:
            self._response = response
        try:
            if self._stopping.is_set():
                return
            left = b""
            while chunk := response.read1():
                lines = (left + chunk).split(b"\n")
                left = lines.pop()
                for line in lines:
                    if line:
                        version = self._hear(line) or version
                yield version
                if lines and not _is_readable(response):
                    # What comes within a moment is read together: to be woken for each would cost more than to read.
                    self._stopping.wait(_COALESCE_S)
        except urllib3.exceptions.ReadTimeoutError:
            yield version  # silence is no fault: resume
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable("the connection broke") from error
        finally:
            with self._lock:
                self._response = None
            response.close()

    def _hear(self, line: bytes) -> str:
        event = _LINE.decode(line)
        if event.type == "ERROR":
            said = msgspec.json.decode(event.object)
            raise refusal(int(said.get("code") or 500), bytes(event.object), None)
        if event.type == "BOOKMARK":
            return _OBJECT.decode(event.object).metadata.resourceVersion
        if event.type == "DELETED":
            meta = _OBJECT.decode(event.object).metadata
            self.store.drop(meta.namespace, meta.name, meta.uid, int(meta.resourceVersion))
            return meta.resourceVersion
        item = item_of(self.source.read(event.object), self.source.trim)
        self.store.put(item)
        return str(item.version)


def _is_readable(response: urllib3.HTTPResponse) -> bool:
    """Whether something can be read without waiting: in the buffer, or from the socket.

    `read1` gives one chunk, which is one event; whether there is another one only the layers below know.
    """
    buffered = getattr(response._fp, "fp", None)  # noqa: SLF001
    socket = getattr(getattr(buffered, "raw", None), "_sock", None)
    if buffered is None or socket is None:
        return False  # each event is waited for then
    socket.settimeout(0)
    try:
        known = buffered.peek(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    finally:
        socket.settimeout(SILENCE_S)
    # The end of the last chunk may still be in there.
    return len(known) > len(b"\r\n") or getattr(socket, "pending", int)() > 0 or wait_for_read(socket, timeout=0)


def item_of(body: Mapping[str, Any], trim: Callable[[Mapping[str, Any]], V]) -> Item[V]:
    """Return an object as it is kept."""
    meta = body["metadata"]
    return Item(
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        value=trim(body),
    )
