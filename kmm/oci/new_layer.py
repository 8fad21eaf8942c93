"""A layer of a few files, as it is pushed: tar within gzip. The same files make the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from kmm.oci.tar import CHUNK, Attributes

_XATTR = "SCHILY.xattr."


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """An entry of a new layer: the file in `content`, a hard link to `same_as`, or a directory; paths as `a/b`."""

    path: str
    attributes: Attributes
    content: Path | None = None
    same_as: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLayer:
    """`digest`, `size`: of what is pushed; `diff_id`: the digest of it unpacked."""

    digest: str
    diff_id: str
    size: int


def write(entries: Iterable[NewEntry], target: BinaryIO) -> NewLayer:
    """Write a layer: directories, then files, then hard links, by their paths. Raises OSError.

    Memory does not depend on the size of the files.
    """
    pushed = _Hashing(target)
    with gzip.GzipFile(filename="", mode="wb", fileobj=pushed, mtime=0) as packed:
        plain = _Hashing(cast("BinaryIO", packed))
        with tarfile.open(
            fileobj=cast("BinaryIO", plain), mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", bufsize=CHUNK
        ) as archive:
            for entry in sorted(entries, key=_order):
                _add(archive, entry)
    return NewLayer(digest=pushed.digest, diff_id=plain.digest, size=pushed.size)


def _order(entry: NewEntry) -> tuple[bool, bool, str]:
    return bool(entry.same_as), entry.content is not None, entry.path


def _add(archive: tarfile.TarFile, entry: NewEntry) -> None:
    said = entry.attributes
    member = tarfile.TarInfo(entry.path)
    member.mode, member.uid, member.gid = said.mode, said.uid, said.gid
    member.uname, member.gname = said.user, said.group
    whole, _, fraction = said.mtime.partition(".")
    member.mtime = int(whole)
    member.pax_headers = {_XATTR + name: value for name, value in said.xattrs.items()}
    if fraction or member.mtime < 0:
        member.pax_headers["mtime"] = said.mtime
    if entry.same_as:
        member.type, member.linkname = tarfile.LNKTYPE, entry.same_as
        archive.addfile(member)
    elif entry.content is None:
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
    else:
        with entry.content.open("rb") as stream:
            member.size = entry.content.stat().st_size
            archive.addfile(member, stream)
    cast("Any", archive).members.clear()  # it would keep all that it wrote


class _Hashing(io.RawIOBase):
    """Passes on what is written, and knows its size and digest."""

    def __init__(self, target: BinaryIO) -> None:
        super().__init__()
        self._target = target
        self._hash = hashlib.sha256(usedforsecurity=False)
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._hash.update(data)
        written = memoryview(data).nbytes
        self.size += written
        self._target.write(data)
        return written
