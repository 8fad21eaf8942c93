"""A client that adds nothing: what is sent and what is answered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

PATCH = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@dataclass(frozen=True)
class Answer:
    code: int
    body: Any
    warnings: tuple[str, ...]

    @property
    def message(self) -> str:
        return self.body["message"]

    @property
    def name(self) -> str:
        return self.body["metadata"]["name"]

    @property
    def version(self) -> str:
        return self.body["metadata"]["resourceVersion"]


class Api:
    def __init__(self, url: str, ca_file: Path | None, token: str | None) -> None:
        self.url = url
        self._http = urllib3.PoolManager(ca_certs=str(ca_file) if ca_file else None, maxsize=8)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(
        self, method: str, path: str, body: Any = None, accept: str = "application/json", kind: str = "", **query: Any
    ) -> Answer:
        headers = {**self._headers, "Accept": accept, "Content-Type": kind or "application/json"}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        target = f"{self.url}{path}" + (f"?{_query(query)}" if query else "")
        answer = self._http.request(method, target, body=data, headers=headers, timeout=60, retries=False)
        try:
            content = json.loads(answer.data)
        except ValueError:
            content = answer.data.decode()
        return Answer(answer.status, content, tuple(answer.headers.getlist("Warning")))

    def get(self, path: str, **query: Any) -> Answer:
        return self.ask("GET", path, **query)

    def post(self, path: str, body: Any, **query: Any) -> Answer:
        return self.ask("POST", path, body, **query)

    def put(self, path: str, body: Any, **query: Any) -> Answer:
        return self.ask("PUT", path, body, **query)

    def patch(self, path: str, body: Any, form: str = "merge", **query: Any) -> Answer:
        return self.ask("PATCH", path, body, kind=PATCH[form], **query)

    def delete(self, path: str, body: Any = None, **query: Any) -> Answer:
        return self.ask("DELETE", path, body, **query)

    @contextmanager
    def watch(self, path: str, accept: str = "application/json", **query: Any) -> Iterator[Iterator[dict[str, Any]]]:
        """Give the events of a watch as they come; one that stays silent for 30 seconds is an error."""
        answer = self._http.request(
            "GET",
            f"{self.url}{path}?{_query({'watch': 'true', **query})}",
            headers={**self._headers, "Accept": accept},
            preload_content=False,
            retries=False,
            timeout=urllib3.Timeout(connect=10, read=30),
        )
        try:
            yield _lines(answer)
        finally:
            answer.close()


def _lines(answer: Any) -> Iterator[dict[str, Any]]:
    left = b""
    for chunk in answer.stream(65536, decode_content=True) if answer.chunked else answer.stream():
        left += chunk
        while b"\n" in left:
            line, left = left.split(b"\n", 1)
            yield json.loads(line)


def _query(query: dict[str, Any]) -> str:
    return urlencode({{"continue_": "continue"}.get(key, key): str(value) for key, value in query.items()})


def eventually(look: Callable[[], Any], what: str = "", within_s: float = 90) -> Any:
    """Return the first true result; a machine may be slow, so the limit is far."""
    until = time.monotonic() + within_s
    while True:
        try:
            found = look()
        except (AssertionError, KeyError, IndexError) as error:
            found, last = None, error
        else:
            last = found
        if found:
            return found
        assert time.monotonic() < until, f"never: {what or look}; at last {last!r}"
        time.sleep(0.02)
