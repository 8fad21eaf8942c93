"""Signs modules where they are: what is there is always the one or the other, whole."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from kmm.signing.compression import SIZE_MOST
from kmm.signing.errors import ModuleError
from kmm.signing.signer import Signed, Signer

_MODE = 0o7777


def sign(path: Path, signer: Signer, target: Path | None = None, *, limit: int = SIZE_MOST) -> Signed:
    """Sign the module in the file `path`, in place or to `target`. Links are followed.

    The mode is kept; in place, so is the owner. Raises OSError, and as `Signer.sign`; then all is as it was.
    """
    source = Path(os.path.realpath(path, strict=True))
    with opened(source) as stream:
        before = os.fstat(stream.fileno())
        with _replacing(Path(os.path.realpath(target)) if target else source) as made:
            signed = signer.sign(stream, made, limit=limit)
            after = os.fstat(stream.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise ModuleError("was changed while it was read")
            own = os.fstat(made.fileno())
            if target is None and (own.st_uid, own.st_gid) != (before.st_uid, before.st_gid):
                os.fchown(made.fileno(), before.st_uid, before.st_gid)
            os.fchmod(made.fileno(), before.st_mode & _MODE)
    return signed


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a module in a `with` block. Raises OSError, and ModuleError where it is no regular file."""
    # A pipe that nobody writes to would hold us for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModuleError("is no regular file")
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        yield stream


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Have a file that is at `path` when the block ends well, and nowhere when it does not."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".signing", dir=path.parent)
    made = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(descriptor)
        made.replace(path)
    except BaseException:
        with suppress(OSError):
            made.unlink()
        raise
