"""What a registry sends: JSON, or the content of a blob, whole or in part, as it is or as a fault has it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from kmm.embedded.registry_failure import Refusal
from kmm.embedded.registry_fault import RegistryFault, Trouble

BLOB = "application/octet-stream"
PIECE = 256 << 10
_JSON = "application/json; charset=utf-8"
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


class Lost(Exception):
    """The connection is to end without an answer."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """What is to be sent: `body`, or `length` bytes of a file from `start`."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: Path | None = None
    start: int = 0
    length: int = 0

    def size(self) -> int:
        return self.length if self.file else len(self.body)

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the body in pieces of at most so many bytes."""
        if self.file is None:
            for start in range(0, len(self.body), size):
                yield self.body[start : start + size]
            return
        left = self.length
        with self.file.open("rb") as file:
            file.seek(self.start)
            while left and (piece := file.read(min(left, size))):
                left -= len(piece)
                yield piece


def json_answer(said: Any) -> Answer:
    return Answer(headers={"Content-Type": _JSON}, body=msgspec.json.encode(said))


def content(request: web.BaseRequest, file: Path, digest: str) -> Answer:
    """Answer with a blob, or with a part of it."""
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "max-age=31536000",
        "Content-Type": BLOB,
        "Docker-Content-Digest": digest,
        "Etag": f'"{digest}"',
    }
    if request.headers.get("If-None-Match", "").strip('"') == digest:
        return Answer(status=304, headers=headers)
    size = file.stat().st_size
    said = request.headers.get("Range", "")
    if not said or "," in said:
        return Answer(headers=headers, file=file, length=size)
    match = _RANGE.fullmatch(said)
    first, last = 0, size - 1
    if match and match[1]:
        first, last = int(match[1]), min(int(match[2] or last), last)
    elif match and match[2]:
        first = max(size - int(match[2]), 0)
    if not match or not (match[1] or match[2]) or not first <= last:
        raise Refusal(("RANGE_INVALID", None), headers={"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Answer(status=206, headers=headers, file=file, start=first, length=last - first + 1)


async def troubled(pieces: Iterator[bytes], fault: RegistryFault | None) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of a body as a fault has them."""
    sent = 0
    for each in pieces:
        piece = each
        match fault.kind if fault else None:
            case Trouble.DRIP if fault:
                await asyncio.sleep(fault.delay_s)
            case Trouble.CORRUPT if not sent:
                piece = _corrupt(piece)
            case Trouble.CUT | Trouble.TRUNCATE if fault:
                piece = piece[: fault.after_bytes - sent]
                if piece:
                    yield piece
                sent += len(piece)
                if sent < fault.after_bytes:
                    continue
                if fault.kind is Trouble.CUT:
                    raise Lost
                return
        yield piece
        sent += len(piece)
    while fault and fault.kind is Trouble.FLOOD:
        # Python 3.11's TLS takes what is written after the client went: only the loop's next round tells of that.
        await asyncio.sleep(0)
        yield b" " * PIECE
    if fault and fault.kind is Trouble.CUT:
        raise Lost


def _corrupt(piece: bytes) -> bytes:
    """Return other bytes, as many; a manifest that names another digest, where it names one."""
    at = piece.rfind(b"sha256:") + len(b"sha256:") if b"sha256:" in piece else 0
    return piece[:at] + (b"1" if piece[at : at + 1] == b"0" else b"0") + piece[at + 1 :]
