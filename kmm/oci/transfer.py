"""Blobs from one repository to another: there already, mounted, or read from the one and sent to the other."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from kmm.oci.blob import Blob
from kmm.oci.client import Client
from kmm.oci.manifest import Descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A repository, by its name without the host, and who may ask for it."""

    client: Client
    repository: str

    @property
    def name(self) -> tuple[str, str]:
        """Which it is, whoever asks."""
        return self.client.host, self.repository


def transfer(source: Place, target: Place, descriptor: Descriptor) -> bool:
    """Have a blob of `source` in `target` too, and say whether it had to be sent.

    Nothing of it is held: it is sent as it is read, again where that breaks off. Raises Unavailable and Forbidden as
    the clients do.
    """
    if source.name == target.name:
        return False
    if source.client.host == target.client.host:
        if target.client.mount(source.repository, target.repository, descriptor.digest):
            return False
    elif target.client.has_blob(target.repository, descriptor.digest):
        return False
    with _Content(source, descriptor) as content:
        target.client.upload(
            target.repository, cast("BinaryIO", content), digest=descriptor.digest, size=descriptor.size
        )
    return True


class _Content(io.RawIOBase):
    """A blob that can be sought: it is opened again for that."""

    def __init__(self, place: Place, descriptor: Descriptor) -> None:
        super().__init__()
        self._place, self._descriptor = place, descriptor
        self._blob: Blob | None = None
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence != io.SEEK_SET:
            raise ValueError("only from the beginning")
        if offset < self._at:
            self._end()
        while self._at < offset and self.read(min(offset - self._at, io.DEFAULT_BUFFER_SIZE)):
            pass
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        if self._blob is None:
            if self._at >= self._descriptor.size:
                return 0
            self._blob = self._place.client.blob(self._place.repository, self._descriptor)
        piece = self._blob.read(len(buffer))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._end()
        super().close()

    def _end(self) -> None:
        if self._blob is not None:
            self._blob.close()
        self._blob, self._at = None, 0
