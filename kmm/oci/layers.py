"""Files inside an image, found by walking its layers from the top, without unpacking anything to a disk.

`find` reads layer after layer as a stream and stops below the layer where the last file was found. Memory does not
depend on the size of the layers. What holds:

- A layer in which something was found is read to its end: of several entries with one name the last counts, and
  the digest of a layer can only be judged there.
- Whiteouts and opaque directories hide what lower layers have, never what their own layer has.
- A link starts the search for its target from the top again (a hard link: from its own layer), inside the image's
  root whatever it says; `..` in it is taken by its letters. A link that leads nowhere or in circles is a file that
  is not there.
- An entry is at the path it is stored under: one that was stored through a link of a lower layer is found by its
  own path, not by the link's target.
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, TypeAlias, cast

_BLOCK = 512
_CHUNK = 256 * 1024
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW_LOG_MOST = 26  # 64 MiB
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_PEEKED = 8
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_PATH_LONGEST = 4096
_KIND = {b"\0": "file", b"0": "file", b"7": "file", b"1": "hard", b"2": "link", b"5": "directory"}
_SPARSE = b"S"
_SPARSE_MORE_AT, _SPARSE_HEADER_MORE_AT = 504, 482
_BASE_256 = 0x80


class LayerError(ValueError):
    """A layer that cannot be read, or that is larger than the limits. The text says why, and quotes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes. `total`: of all layers, unpacked, those that are read again counted again."""

    file: int = 64 * 1024 * 1024
    files: int = 256 * 1024 * 1024
    total: int = 16 * 1024 * 1024 * 1024
    entries: int = 2_000_000
    header: int = 1024 * 1024
    links: int = 40


class Readable(Protocol):
    """What a layer is read from: a Blob of the client, a file."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        ...


Opener: TypeAlias = Callable[[], AbstractContextManager[Readable]]
"""Opens a layer, compressed as it is stored. It may be called several times."""


def find(layers: Sequence[Opener], paths: Sequence[str], limits: Limits | None = None) -> dict[str, bytes]:
    """Return the contents of the files at `paths` (absolute) in an image; what is not there is left out.

    `layers`: the lowest first, as manifests have them.

    Raises:
        LayerError: a layer is broken, compressed in a way that cannot be read here, or exceeds a limit.
        Whatever the openers and their streams raise.
    """
    budget = _Budget(limits or Limits())
    searches = [_Search(asked=path, at=_normal(path), top=len(layers) - 1) for path in dict.fromkeys(paths)]
    while open_searches := [each for each in searches if each.open]:
        # Those that are farthest up go first: one pass from the top serves all that can join it.
        number = max(each.layer for each in open_searches)
        here = [each for each in open_searches if each.layer == number]
        if number < 0:
            for each in here:
                each.open = False
            continue
        with layers[number]() as stream:
            seen = _scan(stream, here, budget)
        for each in here:
            each.look(seen, number, budget.limits.links)
    return {each.asked: each.content for each in searches if each.content is not None}


@dataclass(slots=True)
class _Budget:
    limits: Limits
    total: int = 0
    entries: int = 0
    kept: int = 0

    def read(self, size: int) -> None:
        self.total += size
        if self.total > self.limits.total:
            raise LayerError(f"unpacks to more than {_shown(self.limits.total)}")

    def entry(self) -> None:
        self.entries += 1
        if self.entries > self.limits.entries:
            raise LayerError(f"has more than {self.limits.entries:,} entries")


@dataclass(slots=True, kw_only=True)
class _Entry:
    """What a layer has at a path. `content`: of a file, where it is kept."""

    kind: str
    target: str = ""
    content: bytes | None = None


@dataclass(slots=True)
class _Seen:
    """What a layer has at the paths that matter, and which of them it hides from the layers below."""

    entries: dict[str, _Entry] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class _Search:
    """The search for one file: where it is looked for now, and from which layer down."""

    asked: str
    at: str
    top: int
    open: bool = True
    content: bytes | None = None
    links: int = 0
    layer: int = field(init=False)
    directories: set[str] = field(default_factory=set)  # of layers above: a lower link is not what is there

    def __post_init__(self) -> None:
        self.layer = self.top
        self.open = bool(self.at)

    def look(self, seen: _Seen, number: int, links_most: int) -> None:
        """Decide what `seen`, which is of layer `number`, means."""
        for prefix in _prefixes(self.at):
            entry = seen.entries.get(prefix)
            last = prefix == self.at
            if entry is None:
                continue
            if prefix in self.directories and entry.kind != "directory":
                self.open = False
                return
            if entry.kind == "directory" and not last:
                continue
            rest = self.at[len(prefix) :]
            if not last and self.at in seen.entries:
                continue  # what came after it is below it: stored through the link, or instead of the file
            if entry.kind == "link":
                parent = prefix.rpartition("/")[0]
                base = "" if entry.target.startswith("/") else parent
                self._restart(_normal(f"{base}/{entry.target}{rest}"), self.top, links_most)
                return
            if last and entry.kind == "hard":
                # It is bound to what was there when its layer was made. Named itself, it leads nowhere.
                target = _normal(entry.target)
                self.top = number if target != self.at else number - 1
                self._restart(target, self.top, links_most)
                return
            if last and entry.kind == "file":
                self.content = entry.content
            self.open = False
            return
        parents = ["", *_prefixes(self.at)]
        if any(each in seen.hidden for each in parents) or any(each in seen.opaque for each in parents[:-1]):
            self.open = False
            return
        self.directories.update(
            prefix for prefix in parents if (entry := seen.entries.get(prefix)) and entry.kind == "directory"
        )
        self.layer = number - 1

    def _restart(self, at: str, top: int, links_most: int) -> None:
        self.links += 1
        if self.links > links_most or not at:
            self.open = False
        self.at, self.top, self.layer = at, top, top
        self.directories.clear()


def _normal(path: str) -> str:
    """Return a path without `.` and `..`, as `a/b`; what leads out of the root stays in it."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    found = "/".join(parts)
    return "" if len(found) > _PATH_LONGEST or "\0" in found else found


def _prefixes(path: str) -> list[str]:
    """Return `a`, `a/b`, `a/b/c`."""
    parts = path.split("/")
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _shown(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size // unit:,} {name}"
    return f"{size} bytes"


def _scan(stream: Readable, searches: Sequence[_Search], budget: _Budget) -> _Seen:
    """Read a layer and return what it has at the paths of `searches` and above them."""
    wanted = {each.at for each in searches}
    relevant = {prefix for path in wanted for prefix in _prefixes(path)}
    seen = _Seen()
    for member in _members(_unpacked(stream), budget):
        name = _normal(member.name)
        parent, _, base = name.rpartition("/")
        if base == _OPAQUE:
            if not parent or parent in relevant:
                seen.opaque.add(parent)
        elif base.startswith(_WHITEOUT):
            hidden = f"{parent}/{base[len(_WHITEOUT) :]}".lstrip("/")
            if hidden in relevant:
                seen.hidden.add(hidden)
        elif name in relevant:
            previous = seen.entries.get(name)
            if previous and previous.content is not None:
                budget.kept -= len(previous.content)
            if member.kind != "directory":
                # What was below it went when it came.
                for below in [each for each in seen.entries if each.startswith(f"{name}/")]:
                    del seen.entries[below]
            content = None
            if member.kind == "file" and name in wanted:
                content = _content(member, budget)
            seen.entries[name] = _Entry(kind=member.kind, target=member.target, content=content)
    return seen


def _content(member: _Member, budget: _Budget) -> bytes:
    if member.sparse:
        raise LayerError("has a file that is wanted as a sparse one, which cannot be read here")
    if member.size > budget.limits.file:
        raise LayerError(f"has a file that is wanted and larger than {_shown(budget.limits.file)}")
    budget.kept += member.size
    if budget.kept > budget.limits.files:
        raise LayerError(f"has files that are wanted and together larger than {_shown(budget.limits.files)}")
    found = bytearray()
    while chunk := member.read(_CHUNK):
        found += chunk
    return bytes(found)


# ── Compression ───────────────────────────────────────────────────────────────────────────────────────────────


def _unpacked(stream: Readable) -> Callable[[int], bytes]:
    """Return what reads the layer, unpacked. How it is packed is told by its first bytes, not by its media type."""
    head = b""
    while len(head) < _PEEKED and (more := stream.read(_PEEKED - len(head))):
        head += more
    whole = _Rejoined(head, stream)
    packed: IO[bytes]
    name = "gzip"
    damage: tuple[type[Exception], ...] = (gzip.BadGzipFile, zlib.error)
    if head.startswith(_GZIP):
        packed = cast("IO[bytes]", gzip.GzipFile(fileobj=io.BufferedReader(whole, _CHUNK), mode="rb"))
    elif head.startswith(_ZSTD):
        name = "zstd"
        packed, damage = _zstd(whole)
    else:
        for magic, other in _OTHERS.items():
            if head.startswith(magic):
                raise LayerError(f"is compressed with {other}, which images are not")
        packed = io.BufferedReader(whole, _CHUNK)

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
    packed = zstd.ZstdFile(io.BufferedReader(whole, _CHUNK), options=options)
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


@dataclass(slots=True, kw_only=True)
class _Member:
    """One entry. `read` its content before going on to the next, or do not."""

    name: str
    kind: str
    target: str
    size: int
    sparse: bool
    read: Callable[[int], bytes]


class _Source:
    """Reads exactly, and counts."""

    def __init__(self, read: Callable[[int], bytes], budget: _Budget) -> None:
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
            piece = self.some(min(_CHUNK, size - len(found)))
            if not piece:
                raise LayerError("breaks off")
            found += piece
        return bytes(found)

    def skip(self, size: int) -> None:
        while size:
            piece = self.some(min(_CHUNK, size))
            if not piece:
                raise LayerError("breaks off")
            size -= len(piece)

    def content(self, size: int) -> bytes:
        piece = self.exactly(min(size, self.left))
        self.left -= len(piece)
        return piece


def _members(read: Callable[[int], bytes], budget: _Budget) -> Iterator[_Member]:
    """Yield the entries of a tar archive (ustar, GNU, PAX), and read it to its end."""
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
                everywhere |= _pax(data)
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
        if kind in ("directory", "link", "hard") and flag != b"1":
            size = 0
        source.left = size
        yield _Member(
            name=name,
            kind=kind,
            target=said.get("linkpath") or _text(block[157:257]),
            size=size,
            sparse=flag == _SPARSE or _SPARSE_KEYS in said,
            read=source.content,
        )
        source.skip(source.left + (-size % _BLOCK))
        source.left = 0
    while source.some(_CHUNK):
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


_PAX_KEPT = ("path", "linkpath", "size", "GNU.sparse.name")
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
        if name in _PAX_KEPT:
            found[name] = value.decode("utf-8", "surrogateescape")
        at += int(length)
    return found
