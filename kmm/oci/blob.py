"""Blobs, read as they come."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import quote

from kmm.contract import Unavailable
from kmm.oci.connection import Answer, Broken
from kmm.oci.conversation import Conversation
from kmm.oci.manifest import Descriptor

RESUMES_MOST = 3


class Blob:
    """A blob that is read as it comes, its size and digest verified: the last piece is not given before they fit."""

    def __init__(self, registry: Conversation, repository: str, descriptor: Descriptor) -> None:
        self._registry, self._repository, self._descriptor = registry, repository, descriptor
        self._hash = hashlib.new(descriptor.digest.partition(":")[0], usedforsecurity=False)
        self._read = 0
        self._resumes = 0
        self._answer: Answer | None = self._open()

    def __enter__(self) -> Self:
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
                    raise Broken(f"{self._registry.host}: broke off a blob")  # noqa: TRY301
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
                raise Unavailable(f"{self._registry.host}: sent a blob that is larger than its manifest says")
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
            raise Unavailable(f"{self._registry.host}: sent a blob that is larger than its manifest says")
        if self._hash.hexdigest() != self._descriptor.digest.partition(":")[2]:
            raise Unavailable(f"{self._registry.host}: sent a blob that does not have the digest it should")

    def _open(self) -> Answer:
        headers = {"Range": f"bytes={self._read}-"} if self._read else {}
        path = f"/v2/{quote(self._repository)}/blobs/{self._descriptor.digest}"
        answer = self._registry.ask("GET", path, self._repository, headers=headers)
        if answer.status == HTTPStatus.NOT_FOUND:
            answer.close()
            raise Unavailable(f"{self._registry.host}: lacks a blob of {self._repository} that is part of an image")
        if answer.status == HTTPStatus.PARTIAL_CONTENT and self._read:
            if not answer.header("Content-Range").startswith(f"bytes {self._read}-"):
                answer.close()
                raise Unavailable(f"{self._registry.host}: sent another part of a blob than was asked for")
            return answer
        if answer.status != HTTPStatus.OK:
            raise self._registry.unexpected(answer)
        passed = 0
        while passed < self._read:  # it knows no ranges
            chunk = answer.read(min(64 * 1024, self._read - passed))
            if not chunk:
                raise Unavailable(f"{self._registry.host}: broke off a blob")
            passed += len(chunk)
        return answer
