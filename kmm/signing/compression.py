"""How modules are compressed: told by their first bytes, unpacked within limits, packed as kernels read it.

Kernels (since 5.17) and libkmod unpack modules themselves. So they are packed as `make modules_install` does: xz with
CRC32 and a dictionary of 1 MiB, gzip without a name or a time, zstd with the size of what it holds. As kernels read
one stream and no more, so is done here.
"""

from __future__ import annotations

import lzma
import sys
import zlib
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, BinaryIO, Protocol, cast

from kmm.signing.errors import CompressionError

SIZE_MOST = 1024 * 1024 * 1024
"""Bytes of a module, unpacked."""
CHUNK = 256 * 1024
"""Bytes that are read, and given, at once, at most."""

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_XZ_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1024 * 1024}]
_ZSTD_WINDOW_LOG_MOST = 26  # 64 MiB, as much as the largest preset of xz needs
_XZ_MEMORY_MOST = 80 * 1024 * 1024


class Compression(Enum):
    """By the suffix that it gives to a module's name."""

    NONE = ""
    GZIP = ".gz"
    XZ = ".xz"
    ZSTD = ".zst"


_MAGIC = {b"\x1f\x8b": Compression.GZIP, b"\xfd7zXZ\0": Compression.XZ, b"\x28\xb5\x2f\xfd": Compression.ZSTD}


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def detect(stream: BinaryIO) -> Compression:
    """Return how `stream` is compressed, and leave it at its beginning."""
    stream.seek(0)
    head = stream.read(max(map(len, _MAGIC)))
    stream.seek(0)
    return next((found for magic, found in _MAGIC.items() if head.startswith(magic)), Compression.NONE)


def unpacked(stream: BinaryIO, compression: Compression, limit: int = SIZE_MOST) -> Iterator[bytes]:
    """Yield what `stream` holds, unpacked, from where it is to its end. Memory does not depend on its size.

    Raises CompressionError where it is damaged, where it unpacks to more than `limit` bytes, and where it needs what
    is not installed.
    """
    size = 0
    for piece in _pieces(stream, compression):
        size += len(piece)
        if size > limit:
            raise CompressionError(f"is larger than {limit:,} bytes{', unpacked' * bool(compression.value)}")
        yield piece


def packed(pieces: Iterable[bytes], compression: Compression, size: int) -> Iterator[bytes]:
    """Yield `pieces` compressed; they have `size` bytes together. Raises CompressionError as `unpacked`."""
    if compression is Compression.NONE:
        yield from pieces
        return
    compressor = _compressor(compression, size)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def _pieces(stream: BinaryIO, compression: Compression) -> Iterator[bytes]:
    if compression is Compression.NONE:
        yield from iter(lambda: stream.read(CHUNK), b"")
        return
    decompressor, errors = _decompressor(compression)
    while not decompressor.eof:
        data = stream.read(CHUNK) if (hungry := decompressor.needs_input) else b""
        try:
            piece = decompressor.decompress(data, CHUNK)
        except errors:
            raise CompressionError(
                f"is not the {compression.name.lower()} that it begins as: damaged, or with a window over 64 MiB"
            ) from None
        if piece:
            yield piece
        elif hungry and not data:
            raise CompressionError("breaks off")
    if decompressor.unused_data or stream.read(1):
        raise CompressionError("has something after what is compressed, which kernels do not read")


class _Gunzip:
    """zlib's, with the interface that the others have."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP_WINDOW)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _decompressor(compression: Compression) -> tuple[_Decompressor, type[Exception]]:
    """Return a decompressor, and what it raises."""
    if compression is Compression.GZIP:
        return _Gunzip(), zlib.error
    if compression is Compression.XZ:
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_MOST), lzma.LZMAError
    return _zstd_decompressor()


def _compressor(compression: Compression, size: int) -> _Compressor:
    if compression is Compression.GZIP:
        return zlib.compressobj(wbits=_GZIP_WINDOW)
    if compression is Compression.XZ:
        return lzma.LZMACompressor(format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=_XZ_FILTERS)
    return _zstd_compressor(size)


def _zstd_decompressor() -> tuple[_Decompressor, type[Exception]]:
    zstd = _zstd()
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MOST}
    return zstd.ZstdDecompressor(options=options), zstd.ZstdError


def _zstd_compressor(size: int) -> _Compressor:
    zstd = _zstd()
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})
    compressor.set_pledged_input_size(size)
    return cast("_Compressor", compressor)


def _zstd() -> Any:
    """Return the module that Python has since 3.14, or the package that is the same for those before."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415
        else:
            from backports import zstd  # noqa: PLC0415
    except ImportError:
        raise CompressionError(
            "is compressed with zstd, which needs Python 3.14, or `pip install 'kmm-operator[signing]'`"
        ) from None
    return zstd
