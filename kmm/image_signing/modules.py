"""The modules of one image: found in its layers, signed, and put into a new layer."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kmm.image_signing.errors import ImageError, NoModulesError
from kmm.oci import glob, layers, new_layer
from kmm.oci.layers import Located, Opener
from kmm.oci.new_layer import NewEntry, NewLayer
from kmm.oci.tar import CHUNK, Limits, Member
from kmm.signing.compression import SIZE_MOST
from kmm.signing.errors import ModuleError
from kmm.signing.signer import Signer

LIMITS = Limits(file=SIZE_MOST, files=sys.maxsize)
"""Of layers. All modules together are for an Allowance."""
TOGETHER_MOST = 4 * 1024 * 1024 * 1024
"""Bytes of all modules that are signed together, unpacked."""

_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
# They speak of the contents that a file had before.
_XATTRS_DROPPED = frozenset({"security.ima", "security.evm"})
_PACKED = re.compile(r"\.ko\.(xz|gz|zst)$")
_NEAREST_RATIO = 0.4
_SHOWN_MOST = 3
_SHOWN_LONGEST = 300


@dataclass(slots=True, kw_only=True)
class Allowance:
    """How much may be signed: of an index, in all its images together.

    `most`: bytes, unpacked; `check`: raises where there is no more time.
    """

    most: int = TOGETHER_MOST
    check: Callable[[], None] = lambda: None
    used: int = 0

    def need(self, size: int) -> None:
        """Raise ImageError where it does not last for `size` more bytes."""
        if self.used + size > self.most:
            raise ImageError(
                f"has modules that are together larger than {self.most / 1024**3:g} GiB, unpacked: name fewer, or "
                "allow more with --modules-limit (of a Module: sign.params.modulesLimitGiB)"
            )

    def use(self, size: int) -> None:
        """Count a module that was signed. Raises as `need`."""
        self.need(size)
        self.used += size


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedFile:
    """A module in an image. `path`: absolute; `replaced`: how many older signatures were taken off."""

    path: str
    replaced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedLayer:
    """A layer of signed modules, to be pushed from a file.

    `absent`: what was asked for and is not there, patterns for each compression as one; `why`: what to say of it.
    """

    layer: NewLayer
    content: Path
    files: tuple[SignedFile, ...]
    absent: tuple[str, ...] = ()
    why: str = ""


def every(directory: str, kernel: str | None) -> tuple[str, ...]:
    """Return the patterns of every module of a kernel (None: of all) in `<directory>/lib/modules`."""
    modules = glob.escape(f"{directory}/lib/modules") + (f"/{glob.escape(kernel)}" if kernel else "")
    return tuple(f"{modules}/**/*{suffix}" for suffix in _SUFFIXES)


def sign(
    openers: Sequence[Opener], wanted: Sequence[str], signer: Signer, folder: Path, allowance: Allowance | None = None
) -> SignedLayer:
    """Sign the modules that `wanted` names: paths and patterns.

    `folder`: an empty one, for what is too large for memory.

    Raises:
        NoModulesError: none of it is there.
        ImageError: a file is no module, or `allowance` does not last.
        LayerError: a layer cannot be read.
        Whatever the openers, the signer and the allowance's check raise.
    """
    allowance = allowance or Allowance()
    found = layers.locate(openers, wanted, _Spool(folder, allowance), LIMITS, allowance.check)
    if not found.files:
        raise NoModulesError(missing(wanted, found.nearby))
    absent = [each for each in asked(found.missing) if each not in asked(set(wanted).difference(found.missing))]
    entries: dict[str, NewEntry] = {}
    signed: list[SignedFile] = []
    first: dict[tuple[int, str], tuple[str, int]] = {}
    for each in found.files:
        for path, attributes in each.directories.items():
            entries.setdefault(path, NewEntry(path=path, attributes=attributes))
        same_as, replaced = first.get((each.layer, each.stored), ("", 0))
        if not same_as:
            replaced = _sign(each, signer, allowance)
            first[each.layer, each.stored] = each.path, replaced
        kept = {name: value for name, value in each.attributes.xattrs.items() if name not in _XATTRS_DROPPED}
        entries[each.path] = NewEntry(
            path=each.path,
            attributes=replace(each.attributes, xattrs=kept),
            content=None if same_as else each.content,
            same_as=same_as,
        )
        signed.append(SignedFile(path=f"/{each.path}", replaced=replaced))
    content = folder / "layer"
    with content.open("wb") as stream:
        layer = new_layer.write(entries.values(), stream)
    for each in found.files:
        each.content.unlink(missing_ok=True)
    return SignedLayer(
        layer=layer,
        content=content,
        files=tuple(signed),
        absent=tuple(absent),
        why=missing(absent, found.nearby) if absent else "",
    )


def asked(wanted: Iterable[str]) -> tuple[str, ...]:
    """Return what whoever reads this asked for: patterns for each compression are one."""
    return tuple(dict.fromkeys(_PACKED.sub(".ko", each) if glob.is_glob(each) else each for each in wanted))


def shown(paths: Sequence[str]) -> str:
    """Return the first of the paths, those that are long cut."""
    return ", ".join(map(_shown, paths[:_SHOWN_MOST]))


def missing(wanted: Sequence[str], names: Sequence[str]) -> str:
    """Return what to say of files that are not there: the nearest of `names`, which are."""
    paths = asked(wanted)
    said = shown(paths)
    near = list(dict.fromkeys(each for path in paths[:_SHOWN_MOST] for each in _nearest(path, names)))
    if not near:
        return f"has no {said}" + ("" if names else ", and no kernel module at all")
    return f"has no {said}; what is near: {shown(near)}"


def _sign(located: Located[Path], signer: Signer, allowance: Allowance) -> int:
    """Sign the file where it is kept, and return how many older signatures it had."""
    allowance.check()
    made = located.content.with_suffix(".signed")
    try:
        with located.content.open("rb") as source, made.open("wb") as target:
            signed = signer.sign(source, target)
    except ModuleError as error:
        raise ImageError(f"has a file that cannot be signed: {_shown(f'/{located.path}')} {error}") from None
    allowance.use(signed.size)
    made.replace(located.content)
    return signed.replaced


def _nearest(path: str, names: Sequence[str]) -> Iterator[str]:
    """Yield the absolute paths that are likest: of the same name first."""
    base = path.rpartition("/")[2]
    yield from (f"/{name}" for name in names if name.rpartition("/")[2] == base)
    for name in difflib.get_close_matches(path.strip("/")[:512], names, n=_SHOWN_MOST, cutoff=_NEAREST_RATIO):
        yield f"/{name}"


def _shown(path: str) -> str:
    return path if len(path) <= _SHOWN_LONGEST else f"{path[: _SHOWN_LONGEST - 1]}…"


class _Spool:
    """Keeps contents in files. Unpacked, they are not smaller than what is kept."""

    def __init__(self, folder: Path, allowance: Allowance) -> None:
        self._folder, self._allowance = folder, allowance
        self._number = self._size = 0

    def keep(self, member: Member) -> Path:
        self._number += 1
        self._size += member.size
        self._allowance.need(self._size)
        path = self._folder / f"{self._number}"
        with path.open("wb") as stream:
            while piece := member.read(CHUNK):
                stream.write(piece)
        return path

    def drop(self, kept: Path) -> None:
        self._size -= kept.stat().st_size
        kept.unlink()
