"""Requests to the API server. The official client is used as transport only: configuration, tokens, TLS, proxies.

Its typed models cost 50 times the memory and time of raw JSON, so none of them is imported.
"""

from __future__ import annotations

import email.utils
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import msgspec
import urllib3
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from kubernetes.config import incluster_config, kube_config
from kubernetes.config.config_exception import ConfigException

from kmm.errors import ConfigError, KmmError

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
READ_TIMEOUT_S = 30.0
WRITE_TIMEOUT_S = 4.0  # less than what is left of a lease that was just renewed
_CONNECT_S = 3.0
_CREDENTIALS_S = 1.0
_LONGEST = 500
_RETRY_AFTER_S = 60.0  # nobody keeps us away for longer


class ApiError(KmmError):
    """The API server said no. `code`: HTTP's; `retry_after_s`: when it wants to be asked again."""

    def __init__(self, code: int, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.retry_after_s = code, reason, retry_after_s


class NotFound(ApiError):
    """What was asked for is not there."""


class Conflict(ApiError):
    """Somebody else was first: look again, then decide again."""


class AlreadyExists(ApiError):
    """An object of that name is there."""


class Expired(ApiError):
    """What a watch or a page goes on from is forgotten: list again."""


class Unreachable(KmmError):
    """There was no answer: what was asked for may have been done or not."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer: its bytes, and what comes with it."""

    status: int
    body: bytes

    def read(self, read: Callable[[bytes], Any] = msgspec.json.decode) -> Any:
        """Return the JSON value, or as much of it as `read` reads.

        Raises:
            Unreachable: it is none: something between us and the API server has answered.
        """
        try:
            return read(self.body)
        except msgspec.MsgspecError as error:
            raise Unreachable(f"the answer is no JSON: {error}") from error


class Transport:
    """Asks one API server. `guard` is called before each write and raises where none may be made."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._known: tuple[float, Mapping[str, str]] = (0.0, {})
        self.write_timeout_s = WRITE_TIMEOUT_S
        self.guard: Callable[[], None] = lambda: None
        self.sent: Callable[[str, str], None] = lambda _method, _path: None

    @property
    def host(self) -> str:
        """Where the API server is."""
        return str(self._client.configuration.host)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        media_type: str = JSON,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = JSON,
        timeout_s: float | None = None,
        guarded: bool = True,
    ) -> Answer:
        """Ask once.

        Raises:
            ApiError: the server said no (NotFound, Conflict, AlreadyExists, Expired among them).
            Unreachable: it did not answer in time.
        """
        writes = method != "GET"
        self.sent(method, path)
        timeout_s = timeout_s or (self.write_timeout_s if writes else READ_TIMEOUT_S)
        data = None if body is None else msgspec.json.encode(body)
        response = self._send(
            method, path, query, {"Accept": accept, "Content-Type": media_type}, data, timeout_s, writes and guarded
        )
        try:
            content = response.data
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{method} {path}: {_told(error)}") from error
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise refusal(response.status, content, response.headers.get("Retry-After"))
        return Answer(response.status, content)

    def open(self, path: str, query: Mapping[str, str], *, accept: str, timeout_s: float) -> urllib3.HTTPResponse:
        """Open a watch: the response to read from. `timeout_s`: the longest silence. Raises as `ask`."""
        self.sent("WATCH", path)
        response = self._send("GET", path, query, {"Accept": accept}, None, timeout_s, silence=True)
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise refusal(response.status, response.data, response.headers.get("Retry-After"))
        return response

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        data: bytes | None,
        timeout_s: float,
        guarded: bool = False,
        *,
        silence: bool = False,
    ) -> urllib3.HTTPResponse:
        """Send, and return the response to read from. `silence`: the time-out is of each read, not of all."""
        try:
            sent = self._credentials()
        except Exception as error:  # a token that cannot be read, a credential plugin that fails
            raise Unreachable(f"{method} {path}: no credentials: {_told(error)}") from error
        url = self.host + path + (f"?{urlencode(query)}" if query else "")
        content: bytes | Iterator[bytes] | None = data
        if guarded:
            self.guard()
            if data is not None:
                # And once more at the very last: getting a connection may take its time.
                content, headers = self._guarded(data), {**headers, "Content-Length": str(len(data))}
        try:
            response = self._client.rest_client.pool_manager.request(
                method,
                url,
                body=content,
                headers={**sent, **headers},
                timeout=urllib3.Timeout(
                    total=None if silence else timeout_s, connect=min(_CONNECT_S, timeout_s), read=timeout_s
                ),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{method} {path}: {_told(error)}") from error
        return cast("urllib3.HTTPResponse", response)

    def _credentials(self) -> Mapping[str, str]:
        """Return the headers that say who asks: the official client looks after tokens, which takes it a while."""
        until_s, headers = self._known
        if time.monotonic() >= until_s:
            headers = self._client.param_serialize("GET", "/", auth_settings=["BearerToken"])[2]
            self._known = (time.monotonic() + _CREDENTIALS_S, headers)
        return headers

    def _guarded(self, data: bytes) -> Iterator[bytes]:
        """Yield a body, unless by now it must not be sent: without it, the API server does nothing."""
        self.guard()
        yield data


def connect(kubeconfig: Path | None, *, connections: int = 32) -> Transport:
    """Return a transport for a kubeconfig (else `$KUBECONFIG`), or for the cluster that this runs in.

    Raises:
        ConfigError: neither can be used.
    """
    configuration = Configuration()
    heard = _Heard()
    logging.getLogger().addHandler(heard)
    try:
        if kubeconfig is None and os.environ.get(incluster_config.SERVICE_HOST_ENV_NAME):
            incluster_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=str(kubeconfig) if kubeconfig else None, client_configuration=configuration
            )
    except Exception as error:  # it raises whatever it comes across: YAML's errors, TypeError, binascii.Error
        raise ConfigError(_unusable(kubeconfig, error)) from None
    finally:
        logging.getLogger().removeHandler(heard)
    if heard.said:
        raise ConfigError(_unusable(kubeconfig, ValueError(f"its login fails: {heard.said[0]}")))
    if not str(configuration.host).startswith(("https://", "http://")):
        raise ConfigError(_unusable(kubeconfig, ValueError(f'its server "{configuration.host}" is no URL')))
    configuration.retries = False
    configuration.connection_pool_maxsize = connections
    client = ApiClient(configuration)
    client.user_agent = "kmm"
    return Transport(client)


class _Heard(logging.Handler):
    """Keeps what the official client only logs: a login program that fails, after which nobody is logged in."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def _unusable(kubeconfig: Path | None, error: Exception) -> str:
    """Return, in one line, which kubeconfig cannot be used, why, and what to do."""
    if kubeconfig is None and os.environ.get(incluster_config.SERVICE_HOST_ENV_NAME):
        return f"the service account of this pod cannot be used: {str(error)[:_LONGEST]}: --kubeconfig names another"
    path = kubeconfig or Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube/config")
    if not path.exists() and os.pathsep not in str(path):
        return f"{path}: there is no kubeconfig: name one with --kubeconfig, or with $KUBECONFIG"
    if isinstance(error, OSError) and error.strerror:
        return f"{path}: the kubeconfig cannot be read: {error.strerror}"
    if isinstance(error, ConfigException | ValueError) and not isinstance(error, UnicodeError):
        why = " ".join(str(error).split())[:_LONGEST]
        return f"{path}: the kubeconfig cannot be used: {why}: `kubectl config view --minify` shows what it says"
    return f"{path}: is no kubeconfig: it must be YAML, such as `kubectl config view --raw` prints"


def refusal(status: int, content: bytes, retry_after: str | None) -> ApiError:
    """Return an answer that is none as the error that says what happens next."""
    try:
        said = msgspec.json.decode(content, type=_Status)
    except msgspec.MsgspecError:
        said = _Status(message=content[:_LONGEST].decode(errors="replace"))
    kinds: dict[int, type[ApiError]] = {HTTPStatus.NOT_FOUND: NotFound, HTTPStatus.GONE: Expired}
    kind = kinds.get(status, ApiError)
    # A JSON patch whose `test` fails is answered with 422 and no cause: somebody else was first.
    if status == HTTPStatus.CONFLICT:
        kind = AlreadyExists if said.reason == "AlreadyExists" else Conflict
    elif (
        status == HTTPStatus.UNPROCESSABLE_ENTITY
        and said.details is None
        and "due to an error in our request" in said.message
    ):
        kind = Conflict
    message = said.message[:_LONGEST] or f"HTTP status {status}"
    return kind(status, said.reason, message, _seconds(retry_after))


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""
    details: dict[str, Any] | None = None


def _seconds(said: str | None) -> float | None:
    """Return what `Retry-After` says, a number or a date, as seconds from now."""
    if not said:
        return None
    if said.isdecimal():
        return min(float(said[:9]), _RETRY_AFTER_S)
    try:
        return min(max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time()), _RETRY_AFTER_S)
    except ValueError:
        return None


def _told(error: Exception) -> str:
    text = str(getattr(error, "reason", None) or error)
    return text[:_LONGEST]
