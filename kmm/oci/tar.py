"""Layers as streams: unpacked and cut into the entries of their tar archive (ustar, GNU, PAX), within limits.

Nothing is unpacked to a disk, and memory does not depend on the size of a layer or of what is in it.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, cast

CHUNK = 256 * 1024
"""Bytes that are read at once, at most."""
PATH_LONGEST = 4096

_BLOCK = 512
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW_LOG_MOST = 26  # 64 MiB
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_PEEKED = 8
_KIND = {b"\0": "file", b"0": "file", b"7": "file", b"1": "hard", b"2": "link", b"5": "directory"}
_SPARSE = b"S"
_SPARSE_MORE_AT, _SPARSE_HEADER_MORE_AT = 504, 482
_BASE_256 = 0x80
_ENTRY_SIZE = 500  # bytes, of one that is kept, about
_MODE = 0o7777
_NAME_LONGEST = 256
_ID_LARGEST = (1 << 32) - 2
_XATTR = "SCHILY.xattr."
_WHOLE = re.compile(r"\d{1,10}", re.ASCII)
_SECONDS = re.compile(r"-?\d{1,15}(\.\d{1,9})?", re.ASCII)


class LayerError(ValueError):
    """A layer that cannot be read, or that is larger than the limits. The text says why, and quotes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes. `total`: of all layers, unpacked, those that are read again counted again.

    `file`, `files`: of one file that is wanted, and of all of them. `text`: of what else is kept of entries, names
    and attributes. `hiding`: how many paths may hide what patterns fit in lower layers.
    """

    file: int = 64 * 1024 * 1024
    files: int = 256 * 1024 * 1024
    total: int = 16 * 1024 * 1024 * 1024
    entries: int = 2_000_000
    header: int = 1024 * 1024
    links: int = 40
    text: int = 16 * 1024 * 1024
    hiding: int = 200_000


class Readable(Protocol):
    """What a layer is read from: a Blob of the client, a file."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        ...


@dataclass(slots=True)
class Budget:
    """How much was read so far, against the limits.

    `check`: called again and again meanwhile, and raises where there is no more time.
    """

    limits: Limits
    check: Callable[[], None] = lambda: None
    total: int = 0
    entries: int = 0
    kept: int = 0
    text: int = 0

    def read(self, size: int) -> None:
        """Count bytes, unpacked. Raises LayerError where they are too many, as all methods do."""
        self.check()
        self.total += size
        if self.total > self.limits.total:
            raise LayerError(f"unpacks to more than {_shown(self.limits.total)}")

    def entry(self) -> None:
        """Count an entry of an archive."""
        self.entries += 1
        if self.entries > self.limits.entries:
            raise LayerError(f"has more than {self.limits.entries:,} entries")

    def keep(self, member: Member) -> None:
        """Count a file that is wanted, before it is read."""
        if member.sparse:
            raise LayerError("has a file that is wanted as a sparse one, which cannot be read here")
        if member.size > self.limits.file:
            raise LayerError(f"has a file that is wanted and larger than {_shown(self.limits.file)}")
        self.kept += member.size
        if self.kept > self.limits.files:
            raise LayerError(f"has files that are wanted and together larger than {_shown(self.limits.files)}")

    def tell(self, *texts: str) -> None:
        """Count texts that are kept of an entry."""
        self.text += sum(map(len, texts)) + _ENTRY_SIZE
        if self.text > self.limits.text:
            raise LayerError(f"has entries that are wanted with more than {_shown(self.limits.text)} of names")

    def drop(self, size: int) -> None:
        """Take back a file that is no longer wanted."""
        self.kept -= size


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What a file has beside its contents. `mtime`: seconds since the epoch in decimal, with a fraction or without.

    `xattrs`: extended attributes by name, security labels among them.
    """

    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    mtime: str = "0"
    xattrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Member:
    """One entry. `read` its content before going on to the next, or do not. `target`: of a link.

    `kind`: `file`, `directory`, `link`, `hard` (a hard link) or `other`. `header`, `records`: as they are stored.
    """

    name: str
    kind: str
    target: str
    size: int
    sparse: bool
    read: Callable[[int], bytes]
    header: bytes
    records: Mapping[str, str]

    @property
    def attributes(self) -> Attributes:
        """What it has beside its contents; what is stored of it in a way that is none is left out."""
        return Attributes(
            mode=_number(self.header[100:108]) & _MODE,
            uid=_id(self.records.get("uid"), self.header[108:116]),
            gid=_id(self.records.get("gid"), self.header[116:124]),
            user=self.records.get("uname", "")[:_NAME_LONGEST] or _text(self.header[265:297]),
            group=self.records.get("gname", "")[:_NAME_LONGEST] or _text(self.header[297:329]),
            mtime=_time(self.records.get("mtime"), self.header[136:148]),
            xattrs={key[len(_XATTR) :]: value for key, value in self.records.items() if key.startswith(_XATTR)},
        )


def _shown(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size // unit:,} {name}"
    return f"{size} bytes"


# ── Compression ───────────────────────────────────────────────────────────────────────────────────────────────


def unpacked(stream: Readable) -> Callable[[int], bytes]:
    """Return what reads the layer, unpacked. How it is packed is told by its first bytes, not by its media type."""
    head = b""
    while len(head) < _PEEKED and (more := stream.read(_PEEKED - len(head))):
        head += more
    whole = _Rejoined(head, stream)
    packed: IO[bytes]
    name = "gzip"
    damage: tuple[type[Exception], ...] = (gzip.BadGzipFile, zlib.error)
    if head.startswith(_GZIP):
        packed = cast("IO[bytes]", gzip.GzipFile(fileobj=io.BufferedReader(whole, CHUNK), mode="rb"))
    elif head.startswith(_ZSTD):
        name = "zstd"
        packed, damage = _zstd(whole)
    else:
        for magic, other in _OTHERS.items():
            if head.startswith(magic):
                raise LayerError(f"is compressed with {other}, which images are not")
        packed = io.BufferedReader(whole, CHUNK)

    def read(size: int) -> bytes:
        try:
            return packed.read(size)
        except EOFError:
            raise LayerError("breaks off") from None
        except damage:
            raise LayerError(f"is not the {name} that it begins as") from None

    return read


def _zstd(whole: _Rejoined) -> tuple[IO[bytes], tuple[type[Exception], ...]]:
    """Return the layer, unpacked, and what is raised where it is damaged."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415
        else:
            from backports import zstd  # noqa: PLC0415 -- of the extra `signing`
    except ImportError:
        raise LayerError(
            "is compressed with zstd, which needs Python 3.14 or backports.zstd: push it compressed with gzip"
        ) from None
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MOST}
    packed = zstd.ZstdFile(io.BufferedReader(whole, CHUNK), options=options)
    return cast("IO[bytes]", packed), (zstd.ZstdError,)


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        super().__init__()
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if self._head:
            piece, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            piece = self._stream.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


# ── tar ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Source:
    """Reads exactly, and counts."""

    def __init__(self, read: Callable[[int], bytes], budget: Budget) -> None:
        self._read, self._budget = read, budget
        self.left = 0  # of the entry that is being read, its padding apart

    def some(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end."""
        found = self._read(size)
        self._budget.read(len(found))
        return found

    def exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            piece = self.some(min(CHUNK, size - len(found)))
            if not piece:
                raise LayerError("breaks off")
            found += piece
        return bytes(found)

    def skip(self, size: int) -> None:
        while size:
            piece = self.some(min(CHUNK, size))
            if not piece:
                raise LayerError("breaks off")
            size -= len(piece)

    def content(self, size: int) -> bytes:
        piece = self.exactly(min(size, self.left))
        self.left -= len(piece)
        return piece


def members(read: Callable[[int], bytes], budget: Budget) -> Iterator[Member]:
    """Yield the entries of a layer, unpacked, and read it to its end. Raises LayerError."""
    source = _Source(read, budget)
    everywhere: dict[str, str] = {}
    more: dict[str, str] = {}
    while (block := source.some(_BLOCK)) and any(block):
        if len(block) < _BLOCK:
            block += source.exactly(_BLOCK - len(block))
        budget.entry()
        flag, size = block[156:157], _checked(block)
        if flag in (b"x", b"g", b"L", b"K"):
            if size > budget.limits.header:
                raise LayerError(f"has a header of more than {_shown(budget.limits.header)}")
            data = source.exactly(size)
            source.skip(-size % _BLOCK)
            if flag == b"g":
                # What is one file's own is not for all.
                everywhere |= {key: value for key, value in _pax(data).items() if not key.startswith(_XATTR)}
            elif flag == b"x":
                more |= _pax(data)
            else:
                more["path" if flag == b"L" else "linkpath"] = _text(data)
            continue
        if flag == _SPARSE:
            ahead = block[_SPARSE_HEADER_MORE_AT]
            while ahead:
                budget.entry()
                ahead = source.exactly(_BLOCK)[_SPARSE_MORE_AT]
        said = {**everywhere, **more}
        more = {}
        if "size" in said:
            size = _decimal(said["size"])
        name = said.get("GNU.sparse.name") or said.get("path") or _name(block)
        kind = "file" if flag == _SPARSE else _KIND.get(flag, "other")
        if kind == "file" and name.endswith("/"):
            kind = "directory"  # as tar of old had it
        if kind in ("directory", "link", "hard"):
            size = 0  # whatever it says: nothing follows, to those who unpack images
        source.left = size
        yield Member(
            name=name,
            kind=kind,
            target=said.get("linkpath") or _text(block[157:257]),
            size=size,
            sparse=flag == _SPARSE or _SPARSE_KEYS in said,
            read=source.content,
            header=block,
            records=said,
        )
        source.skip(source.left + (-size % _BLOCK))
        source.left = 0
    while source.some(CHUNK):
        pass


def _checked(block: bytes) -> int:
    """Return the size in a header whose checksum is right."""
    total = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
    if _octal(block[148:156]) != total:
        raise LayerError("is no tar archive, or a broken one")
    return _octal(block[124:136])


def _octal(raw: bytes) -> int:
    if raw[0] & _BASE_256:
        found = int.from_bytes(raw, "big") - (_BASE_256 << 8 * (len(raw) - 1))
    else:
        digits = raw.partition(b"\0")[0].strip()
        if not all(0x30 <= each <= 0x37 for each in digits):  # noqa: PLR2004 -- 0 to 7
            raise LayerError("is no tar archive, or a broken one")
        found = int(digits or b"0", 8)
    if not 0 <= found < 1 << 62:
        raise LayerError("has an entry of an impossible size")
    return found


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):  # noqa: PLR2004 -- less than 2**62
        raise LayerError("has an entry of an impossible size")
    return int(text)


def _name(block: bytes) -> str:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(raw: bytes) -> int:
    """Return a number that nothing else depends on: 0 where it is none."""
    try:
        return _octal(raw)
    except LayerError:
        return 0


def _id(record: str | None, raw: bytes) -> int:
    found = _number(raw) if record is None or not _WHOLE.fullmatch(record) else int(record)
    return found if found <= _ID_LARGEST else 0


def _time(record: str | None, raw: bytes) -> str:
    return record if record is not None and _SECONDS.fullmatch(record) else str(_number(raw))


_PAX_KEPT = ("path", "linkpath", "size", "GNU.sparse.name", "mtime", "uid", "gid", "uname", "gname")
_SPARSE_KEYS = "GNU.sparse."


def _pax(data: bytes) -> dict[str, str]:
    """Return the records of a PAX header that matter here."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + 20)
        length = data[at:space] if space > 0 else b""
        if not length.isdigit() or not space < at + int(length) <= len(data) or data[at + int(length) - 1] != 0x0A:  # noqa: PLR2004 -- \n
            raise LayerError("has a header that is broken")
        key, equals, value = data[space + 1 : at + int(length) - 1].partition(b"=")
        if not equals:
            raise LayerError("has a header that is broken")
        name = key.decode("utf-8", "replace")
        if name.startswith(_SPARSE_KEYS):
            found[_SPARSE_KEYS] = ""
        if name in _PAX_KEPT or name.startswith(_XATTR):
            found[name] = value.decode("utf-8", "surrogateescape")
        at += int(length)
    return found
