"""A kernel module as a file holds it: perhaps compressed, perhaps signed."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from kmm.signing import appended
from kmm.signing.appended import Appended
from kmm.signing.compression import SIZE_MOST, Compression, detect, packed, unpacked
from kmm.signing.errors import ModuleError

_ELF = b"\x7fELF"
_ORDER_AT, _TYPE, _HEAD = 5, slice(16, 18), 18
_BIG_ENDIAN, _RELOCATABLE = 2, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """`size`: bytes of the module, unpacked and without its signatures, of which `digest` is the digest.

    Without a hash, `digest` is empty. `signatures`: the last one, which the kernel reads, first.
    """

    compression: Compression
    size: int
    digest: bytes
    signatures: tuple[Appended, ...]


def read(
    stream: BinaryIO, hash_name: str | None, *, strip_most: int | None = None, limit: int = SIZE_MOST
) -> Contents:
    """Read a module from the beginning of `stream`. `strip_most`: what is below so many signatures is the module.

    Raises ModuleError where it is none, and those of its errors that say why it cannot be read.
    """
    compression = detect(stream)
    digest = hashlib.new(hash_name, usedforsecurity=False) if hash_name else None
    size = held_size = 0
    head = b""
    held = deque[bytes]()  # the signatures are at the end, and where that is shows when there is no more
    for piece in unpacked(stream, compression, limit):
        if len(head) < _HEAD:
            head += piece[:_HEAD]
            if len(head) >= _HEAD:
                _need_module(head)
        held.append(piece)
        held_size += len(piece)
        while held_size - len(held[0]) >= appended.SIZE_MOST:
            ready = held.popleft()
            held_size -= len(ready)
            if digest:
                digest.update(ready)
            size += len(ready)
    _need_module(head)
    tail = b"".join(held)
    end, signatures = appended.split(tail, strip_most)
    if digest:
        digest.update(memoryview(tail)[:end])
    return Contents(
        compression=compression,
        size=size + end,
        digest=digest.digest() if digest else b"",
        signatures=signatures,
    )


def write(stream: BinaryIO, contents: Contents, signature: bytes, target: BinaryIO) -> None:
    """Write the module that was read from `stream` to `target`, compressed as it was, with `signature` at its end.

    Raises as `read`, and ModuleError where `stream` holds another one by now.
    """
    size = contents.size + len(signature)
    target.writelines(packed(_signed(stream, contents, signature), contents.compression, size))


def strip(stream: BinaryIO, target: BinaryIO, *, limit: int = SIZE_MOST) -> int:
    """Write the module in `stream` to `target` without its signatures, and return how many there were.

    Raises as `read` and `write`.
    """
    contents = read(stream, None, limit=limit)
    write(stream, contents, b"", target)
    return len(contents.signatures)


def _signed(stream: BinaryIO, contents: Contents, signature: bytes) -> Iterator[bytes]:
    left = contents.size
    if detect(stream) is contents.compression:
        # What is kept does not exceed what was read within its limit.
        for piece in unpacked(stream, contents.compression, contents.size + appended.SIZE_MOST):
            yield piece[:left]
            left -= min(left, len(piece))
    if left:
        raise ModuleError("was changed while it was read")
    yield signature


def _need_module(head: bytes) -> None:
    if not head.startswith(_ELF) or len(head) < _HEAD:
        raise ModuleError("is no kernel module: it is no ELF file")
    if int.from_bytes(head[_TYPE], "big" if head[_ORDER_AT] == _BIG_ENDIAN else "little") != _RELOCATABLE:
        raise ModuleError("is no kernel module: it is an ELF file of another kind")
