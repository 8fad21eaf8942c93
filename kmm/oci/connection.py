"""Connections to registries: whom to connect to, how far to trust, and never for longer than a deadline.

What clients share is here: connections are kept and used again by all that have the same TLS settings.
"""

from __future__ import annotations

import email.utils
import errno
import hashlib
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import SplitResult, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from kmm.contract import Access, Unavailable
from kmm.oci.address import Addresses, AddressRefused
from kmm.oci.proxy import proxy_for

RETRY_AFTER_MOST_S = 3600.0
"""No registry keeps us away for longer."""
_CONNECT_S = 5.0  # to one address, where there are others
_ADDRESSES_MOST = 8
_LOOKUPS_MOST = 32
_POOLS_MOST = 32
_KEPT_MOST = 8  # connections to one host
_CHUNK = 64 * 1024
_DRAINED_MOST = 64 * 1024
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_URL_LONGEST = 8192
_CHAIN_MOST = 6
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_UNKNOWN_ISSUER = frozenset({18, 19, 20, 21})  # OpenSSL's X509_V_ERR_…
_EXPIRED, _NOT_YET_VALID, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64


class Broken(Unavailable):
    """A connection that broke off while it was used: what was begun may be taken up again."""


class Deadline:
    """A point in time, `seconds` from when it is made."""

    __slots__ = ("seconds", "until")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.until = time.monotonic() + seconds

    def left_s(self) -> float:
        """Return the seconds that are left, 0 where it has passed."""
        return max(0.0, self.until - time.monotonic())

    def sooner(self, seconds: float) -> Deadline:
        """Return the point in time that is `seconds` before this one."""
        found = Deadline(self.seconds)
        found.until = self.until - seconds
        return found


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom a URL leads to."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Return the host, and the port where it is not the scheme's own."""
        usual = {"https": 443, "http": 80}.get(self.scheme)
        return self.host if self.port == usual else f"{self.host}:{self.port}"


def origin_of(url: str) -> Origin | None:
    """Return the origin of an absolute URL of http or https, or None where `url` is none that is safe to ask."""
    if len(url) > _URL_LONGEST or not _VISIBLE.fullmatch(url):
        return None
    try:
        parts: SplitResult = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc.rstrip(":")
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host):
        return None
    return Origin(parts.scheme, host.lower(), port or {"https": 443, "http": 80}[parts.scheme])


class Answer:
    """An answer whose body is still to be read. `close` it, or read it to its end."""

    def __init__(self, response: urllib3.BaseHTTPResponse, host: str, deadline: Deadline) -> None:
        self._response, self._host, self._deadline = response, host, deadline
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    def header(self, name: str) -> str:
        """Return a header's value, or an empty text."""
        return self.headers.get(name, "")

    def all(self, name: str) -> list[str]:
        """Return the values of a header that may be there several times."""
        return list(self._response.headers.getlist(name))

    def chunks(self, size: int = _CHUNK) -> Iterator[bytes]:
        """Yield the body. Raises Unavailable where it breaks off or takes too long."""
        while chunk := self.read(size):
            yield chunk

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes of the body, none at its end. Raises as `chunks`."""
        try:
            chunk = self._response.read(size)
        except (HTTPError, OSError, ValueError) as error:
            self.close()
            raise failure(self._host, error, self._deadline) from None
        if not chunk:
            self._response.release_conn()
        return chunk

    def whole(self, most: int) -> bytes:
        """Return the body. Raises Unavailable, also where it is larger than `most` bytes."""
        found = bytearray()
        for chunk in self.chunks():
            found += chunk
            if len(found) > most:
                self.close()
                raise Unavailable(f"{self._host}: answered with more than {most // 1024:,} KiB")
        return bytes(found)

    def done(self) -> None:
        """Pass over the body. The connection is used again where that was little."""
        passed = 0
        try:
            for chunk in self.chunks():
                passed += len(chunk)
                if passed > _DRAINED_MOST:
                    break
        except Unavailable:
            pass
        if passed > _DRAINED_MOST:
            self.close()

    def close(self) -> None:
        """End the connection where there is more to read on it."""
        self._response.close()
        self._response.release_conn()


class Connections:
    """What clients share: kept connections. `addresses`: which may be connected to; `environ`: names the proxies."""

    def __init__(self, addresses: Addresses | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.addresses = addresses or Addresses()
        self._environ = dict(os.environ if environ is None else environ)
        self._lock = threading.Lock()
        self._pools: dict[tuple[bytes, str | None], urllib3.PoolManager] = {}

    def send(
        self,
        method: str,
        url: str,
        access: Access,
        deadline: Deadline,
        headers: Mapping[str, str],
        body: bytes | IO[bytes] | Iterator[bytes] | None = None,
    ) -> Answer:
        """Ask once, follow nothing. Raises Unavailable, with a text that names the host of `url`."""
        origin = origin_of(url)
        if origin is None:
            raise Unavailable("an address that no registry can have")
        if deadline.left_s() <= 0:
            raise failure(str(origin), TimeoutError(), deadline)
        try:
            response = self._pool(origin, access).request(
                method,
                url,
                body=body,
                headers={"User-Agent": "kmm", "Accept-Encoding": "identity", **headers},
                timeout=urllib3.Timeout(total=max(deadline.left_s(), 0.001)),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError, ValueError, AddressRefused) as error:
            raise failure(str(origin), error, deadline) from None
        return Answer(response, str(origin), deadline)

    def close(self) -> None:
        """Close every kept connection."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def _pool(self, origin: Origin, access: Access) -> urllib3.PoolManager:
        proxy = proxy_for(origin.scheme, origin.host, origin.port, self._environ)
        if proxy:
            self.addresses.check_text(origin.host)
        key = (fingerprint(access), proxy)
        with self._lock:
            pool = self._pools.pop(key, None)
            if pool is None:
                while len(self._pools) >= _POOLS_MOST:
                    self._pools.pop(next(iter(self._pools))).clear()
                pool = self._made(origin, access, proxy)
            self._pools[key] = pool  # the last one used is the last one dropped
        return pool

    def _made(self, origin: Origin, access: Access, proxy: str | None) -> urllib3.PoolManager:
        context = _context(str(origin), access)
        if proxy is None:
            pool = urllib3.PoolManager(_POOLS_MOST, maxsize=_KEPT_MOST, ssl_context=context)
        else:
            through = urlsplit(proxy)
            if through.scheme not in ("http", "https") or not through.hostname:
                raise Unavailable(f"{origin}: the proxy that the environment names for it is none for HTTP")
            headers = None
            if through.username:
                headers = urllib3.make_headers(proxy_basic_auth=f"{through.username}:{through.password or ''}")
            bare = through._replace(netloc=through.netloc.rpartition("@")[2]).geturl()
            pool = urllib3.ProxyManager(
                bare, _POOLS_MOST, maxsize=_KEPT_MOST, ssl_context=context, proxy_headers=headers
            )
        # The proxy is the administrator's choice: its own address may be a loopback one.
        check = self.addresses.check if proxy is None else _anything
        pool.pool_classes_by_scheme = {"http": _pool_class(_Pool, check), "https": _pool_class(_TlsPool, check)}
        return pool


def fingerprint(access: Access) -> bytes:
    """Return what stands for the TLS settings of `access`: what one setting learnt is not for another."""
    ca = hashlib.sha256(access.ca_pem.encode()).digest() if access.ca_pem else b""
    return bytes((access.tls.insecure, access.tls.skip_verify)) + ca


def retry_after_s(said: str) -> float | None:
    """Return what `Retry-After` says, a number or a date, as seconds from now, at most RETRY_AFTER_MOST_S."""
    said = said.strip()
    if said.isascii() and said.isdecimal():
        return min(float(said[:9]), RETRY_AFTER_MOST_S)
    try:
        seconds = email.utils.parsedate_to_datetime(said[:64]).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), RETRY_AFTER_MOST_S)


def failure(host: str, error: Exception, deadline: Deadline) -> Unavailable:
    """Return what kept `host` from answering, in our words."""
    if isinstance(error, ProxyError) and isinstance(error.original_error, Exception):
        inner = error.original_error
        if isinstance(inner, OSError) and "unnel connection failed" in str(inner):
            return Unavailable(f"{host}: the proxy refused to connect to it")
        return Unavailable(f"{failure(host, inner, deadline)} (through the proxy)")
    chain: list[BaseException] = [error]
    while len(chain) < _CHAIN_MOST and (deeper := _deeper(chain[-1])):
        chain.append(deeper)
    for each in chain:
        if isinstance(each, AddressRefused):
            return Unavailable(f"{host}: is {each}")
        if isinstance(each, NameResolutionError):
            return Unavailable(f"{host}: does not resolve")
        if isinstance(each, NewConnectionError):  # which is a time-out too, by its class
            number = chain[-1].errno if isinstance(chain[-1], OSError) else None
            if number == errno.ECONNREFUSED:
                return Unavailable(f"{host}: refused the connection")
            return Unavailable(f"{host}: cannot be reached: {os.strerror(number) if number else 'no address'}")
        if isinstance(each, TimeoutError | ConnectTimeoutError | ReadTimeoutError):
            return Unavailable(f"{host}: did not answer in {deadline.seconds:g} s")
    if isinstance(chain[-1], ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Broken(f"{host}: broke off the connection")
    if isinstance(chain[-1], ssl.SSLError | SSLError):
        return Unavailable(f"{host}: TLS: {_told(chain[-1])}")
    if isinstance(error, ProtocolError | OSError):
        return Broken(f"{host}: broke off the connection")
    return Unavailable(f"{host}: did not answer as HTTP has it")


def _deeper(error: BaseException) -> BaseException | None:
    last = error.args[-1] if error.args else None
    return last if isinstance(last, BaseException) else error.__cause__


def _told(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code in _UNKNOWN_ISSUER:
            return "certificate signed by unknown authority"
        return {
            _EXPIRED: "certificate has expired",
            _NOT_YET_VALID: "certificate is not valid yet",
            _OTHER_NAME: "certificate is for another name",
            _OTHER_ADDRESS: "certificate is for another name",
        }.get(code, f"certificate is not accepted (OpenSSL's error {code})")
    reason = getattr(error, "reason", None)
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return "it does not speak TLS"
    return str(reason)[:80].lower().replace("_", " ") if isinstance(reason, str) else "no agreement"


def _context(host: str, access: Access) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if access.ca_pem:
        try:
            context.load_verify_locations(cadata=access.ca_pem)
        except (ssl.SSLError, ValueError):
            raise Unavailable(f"{host}: TLS: the additional CA certificates cannot be read") from None
    if access.tls.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.sslsocket_class = _TlsSocket
    return context


# ── Sockets with a deadline ───────────────────────────────────────────────────────────────────────────────────


if TYPE_CHECKING:
    _Base = socket.socket
else:
    _Base = object


class _Timed(_Base):
    """A time-out is for all that is done until it is set again, not for each read: a byte a second is too slow."""

    _until: float | None = None

    def settimeout(self, value: float | None, /) -> None:
        self._until = None if value is None else time.monotonic() + value
        super().settimeout(value)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        self._arm()
        return super().recv(buflen, flags)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self._arm()
        return super().recv_into(buffer, nbytes or memoryview(buffer).nbytes, flags)

    def send(self, data: Any, flags: int = 0) -> int:
        self._arm()
        return super().send(data, flags)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self._arm()
        super().sendall(data, flags)

    def _arm(self) -> None:
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            super().settimeout(left)


class _Socket(_Timed, socket.socket):
    pass


class _TlsSocket(_Timed, ssl.SSLSocket):
    pass


def _anything(_: str) -> None:
    pass


class _Connecting:
    """Connects to the addresses of a name that may be connected to."""

    check: Callable[[str], None] = staticmethod(_anything)

    def _new_conn(self) -> socket.socket:
        connection = cast("HTTPConnection", self)
        wanted = connection.timeout
        until = time.monotonic() + (wanted if isinstance(wanted, int | float) else _CONNECT_S)
        try:
            found = _resolve(connection._dns_host.strip("[]"), connection.port, until)  # noqa: SLF001
        except socket.gaierror as error:
            raise NameResolutionError(connection.host, connection, error) from error
        except TimeoutError:
            raise ConnectTimeoutError(connection, "timed out") from None
        refused: AddressRefused | None = None
        failed: OSError | None = None
        for number, (family, kind, protocol, _, address) in enumerate(found):
            try:
                self.check(str(address[0]))
            except AddressRefused as error:
                refused = error
                continue
            left = until - time.monotonic()
            if number < len(found) - 1:
                left = min(left / 2, _CONNECT_S)
            made = _Socket(family, kind, protocol)
            try:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                made.settimeout(max(left, 0.001))
                made.connect(address)
                made.settimeout(max(until - time.monotonic(), 0.001))
            except OSError as error:
                failed = error
                made.close()
                continue
            except BaseException:
                made.close()
                raise
            return made
        if isinstance(failed, TimeoutError):
            raise ConnectTimeoutError(connection, "timed out") from failed
        if refused and not failed:
            raise refused
        raise NewConnectionError(connection, "not connected") from failed


class _Connection(_Connecting, HTTPConnection):
    pass


class _TlsConnection(_Connecting, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType]


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection  # pyright: ignore[reportAssignmentType]

    def _validate_conn(self, conn: Any) -> None:
        # urllib3 would warn of certificates that are not checked: that was asked for.
        if conn.is_closed:
            conn.connect()


def _pool_class(base: type[HTTPConnectionPool], check: Callable[[str], None]) -> type[HTTPConnectionPool]:
    """Return a class of pools whose connections are checked so."""
    connection = type(base.ConnectionCls.__name__, (base.ConnectionCls,), {"check": staticmethod(check)})
    return type(base.__name__, (base,), {"ConnectionCls": connection})


_lookups = threading.BoundedSemaphore(_LOOKUPS_MOST)


@dataclass(slots=True)
class _Lookup:
    """A name that is being resolved."""

    found: list[Any] = field(default_factory=list)
    error: OSError | None = None
    over: threading.Event = field(default_factory=threading.Event)


def _resolve(host: str, port: int, until: float) -> list[Any]:
    """Return the addresses of `host`. The C library knows no deadline, so a thread waits for it."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        pass
    if not _lookups.acquire(timeout=max(0.0, until - time.monotonic())):
        raise TimeoutError
    lookup = _Lookup()

    def run() -> None:
        try:
            lookup.found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[:_ADDRESSES_MOST]
        except OSError as error:
            lookup.error = error
        except UnicodeError:
            lookup.error = socket.gaierror(socket.EAI_NONAME, "no host name")
        finally:
            _lookups.release()
            lookup.over.set()

    threading.Thread(target=run, name="resolve", daemon=True).start()
    if not lookup.over.wait(max(0.0, until - time.monotonic())):
        raise TimeoutError
    if lookup.error:
        raise lookup.error
    return lookup.found
