"""Uploads of blobs: mounted, at once or in pieces; taken up again, and cancelled where they fail."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import quote, urlencode

from kmm.contract import ContractError, Unavailable
from kmm.oci.connection import Answer, Broken, Deadline
from kmm.oci.conversation import Conversation

ATTEMPTS_MOST = 4
_CHUNK_MOST = 64 * 1024 * 1024
_PIECE = 256 * 1024
_CANCEL_MOST_S = 2.0
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_OCTETS = {"Content-Type": "application/octet-stream"}


def mount(registry: Conversation, from_repository: str, to_repository: str, digest: str) -> bool:
    """Do what Client.mount says."""
    query = urlencode({"mount": digest, "from": from_repository})
    answer = registry.ask(
        "POST", f"/v2/{quote(to_repository)}/blobs/uploads/?{query}", to_repository, push=True, reads=from_repository
    )
    if answer.status == HTTPStatus.CREATED:
        answer.done()
        return True
    session = _Upload(registry, to_repository, registry.deadline)
    session.begun(answer)
    session.cancel(registry.deadline)
    return False


def upload(
    registry: Conversation,
    repository: str,
    content: bytes | BinaryIO,
    digest: str,
    chunk_bytes: int,
    size: int | None = None,
) -> str:
    """Do what Client.upload says."""
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    computed = digest
    if size is None or not digest:
        size, computed = _measured(source, digest.partition(":")[0] or "sha256")
    if digest and digest != computed:
        raise ValueError("the content does not have the digest that was given")
    # A part of the time is for cancelling: a registry keeps what was begun for days.
    whole = registry.deadline
    session = _Upload(registry, repository, whole.sooner(min(_CANCEL_MOST_S, whole.left_s() / 10)))
    try:
        for attempt in range(1, ATTEMPTS_MOST + 1):
            try:
                session.send(source, size, computed, chunk_bytes)
            except Broken:
                if attempt == ATTEMPTS_MOST:
                    raise
            else:
                break
    except BaseException:
        session.cancel(whole)
        raise
    return computed


class _Upload:
    """One session of uploading: where it goes on, and how far it came."""

    def __init__(self, registry: Conversation, repository: str, deadline: Deadline) -> None:
        self._registry, self._repository, self._deadline = registry, repository, deadline
        self._url = ""
        self._offset = 0
        self._least = 0
        self._broken = False

    def send(self, source: BinaryIO, size: int, digest: str, chunk_bytes: int) -> None:
        """Begin, or go on where it broke off, and finish. Raises Broken where it may be tried again."""
        if self._broken:
            self._take_up()
        if not self._url:
            self.begun(self._ask("POST", f"/v2/{quote(self._repository)}/blobs/uploads/"))
        self._broken = True
        if chunk_bytes:
            chunk_bytes = min(max(chunk_bytes, self._least), _CHUNK_MOST)
            while self._offset < size:
                self._send_chunk(source, min(chunk_bytes, size - self._offset))
        start = self._offset
        headers = {**_OCTETS, "Content-Length": str(size - start)}
        if 0 < start < size:
            headers["Content-Range"] = f"{start}-{size - 1}"
        url = f"{self._url}{'&' if '?' in self._url else '?'}{urlencode({'digest': digest})}"
        answer = self._registry.ask(
            "PUT",
            url,
            self._repository,
            push=True,
            headers=headers,
            body=lambda: _pieces(source, start, size - start) if start < size else b"",
            deadline=self._deadline,
        )
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._again(answer)
        if answer.status not in (HTTPStatus.CREATED, HTTPStatus.NO_CONTENT):
            raise self._registry.unexpected(answer)
        answer.done()
        self._url = ""
        if answer.header("Docker-Content-Digest") not in ("", digest):
            raise Unavailable(f"{self._registry.host}: says that it took another blob than the one sent")

    def begun(self, answer: Answer) -> None:
        """Read where the upload goes to."""
        if answer.status != HTTPStatus.ACCEPTED:
            raise self._registry.unexpected(answer)
        least = answer.header("OCI-Chunk-Min-Length")
        self._least = int(least[:12]) if least.isascii() and least.isdecimal() else 0
        self._go_on(answer, f"{self._registry.base}/v2/{quote(self._repository)}/blobs/uploads/")
        self._offset = 0

    def cancel(self, deadline: Deadline) -> None:
        """Give the upload up, if there is one. Never raises."""
        if self._url:
            with suppress(ContractError):
                self._registry.ask("DELETE", self._url, self._repository, push=True, deadline=deadline).done()
            self._url = ""

    def _send_chunk(self, source: BinaryIO, length: int) -> None:
        start = self._offset
        source.seek(start)
        chunk = source.read(length)
        if len(chunk) != length:
            raise ValueError("the content has become shorter")
        headers = {**_OCTETS, "Content-Range": f"{start}-{start + length - 1}"}
        answer = self._registry.ask(
            "PATCH",
            self._url,
            self._repository,
            push=True,
            headers=headers,
            body=lambda: chunk,
            deadline=self._deadline,
        )
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._again(answer)
        if answer.status not in (HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT):
            raise self._registry.unexpected(answer)
        self._go_on(answer, self._url)
        self._offset = start + length

    def _take_up(self) -> None:
        """Ask how far it came; where the registry does not know any more, begin again."""
        answer = self._ask("GET", self._url)
        told = _RANGE.fullmatch(answer.header("Range"))
        if answer.status in (HTTPStatus.NO_CONTENT, HTTPStatus.ACCEPTED) and told:
            # Registries say 0-0 where they have nothing.
            self._offset = int(told[1]) + 1 if int(told[1]) else 0
            if answer.header("Location"):
                self._go_on(answer, self._url)
            else:
                answer.done()
            return
        answer.done()
        self.cancel(self._deadline)

    def _again(self, answer: Answer) -> None:
        """Begin again: the registry has not what it should have."""
        answer.done()
        self.cancel(self._deadline)
        raise Broken(f"{self._registry.host}: lost a part of an upload")

    def _go_on(self, answer: Answer, base: str) -> None:
        self._url = self._registry.location(answer, base)
        answer.done()

    def _ask(self, method: str, where: str) -> Answer:
        return self._registry.ask(method, where, self._repository, push=True, deadline=self._deadline)


def _measured(source: BinaryIO, algorithm: str) -> tuple[int, str]:
    found, size = hashlib.new(algorithm, usedforsecurity=False), 0
    source.seek(0)
    while piece := source.read(_PIECE):
        found.update(piece)
        size += len(piece)
    return size, f"{algorithm}:{found.hexdigest()}"


def _pieces(source: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    source.seek(start)
    while length:
        piece = source.read(min(_PIECE, length))
        if not piece:
            raise ValueError("the content has become shorter")
        length -= len(piece)
        yield piece
