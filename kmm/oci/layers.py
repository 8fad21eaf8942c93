"""Files inside an image, found by walking its layers from the top, without unpacking anything to a disk.

`find` and `locate` read layer after layer as a stream and stop below the layer where the last file was found. Memory
does not depend on the size of the layers. What holds:

- A layer in which something was found is read to its end: of several entries with one name the last counts, and
  the digest of a layer can only be judged there.
- Whiteouts and opaque directories hide what lower layers have, never what their own layer has.
- A link starts the search for its target from the top again (a hard link: from its own layer), inside the image's
  root whatever it says; `..` in it is taken by its letters. A link that leads nowhere or in circles is a file that
  is not there.
- An entry that is stored through a link of its own layer is where that leads to. Stored through one of a lower
  layer, it may be in either place, as runtimes have it: see kmm.oci.placement, which refuses that.
- A pattern is looked for down to the lowest layer, or to one that hides all below it. Links lead to its first
  directories, and from files that fit it; directories that fit it are not entered through links.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeAlias, TypeVar

from kmm.oci import glob
from kmm.oci.path import beside, normal, prefixes
from kmm.oci.placement import Placement
from kmm.oci.tar import (
    CHUNK,
    Attributes,
    Budget,
    LayerError,
    Limits,
    Member,
    Readable,
    members,
    unpacked,
)

__all__ = ["Found", "Keeper", "LayerError", "Limits", "Located", "Opener", "Readable", "find", "locate"]

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_DEEPEST = 256  # each directory on the way is kept, and looked up for each entry
_NEARBY_MOST = 5_000
_NEARBY_LONGEST = 512
_MODULE = re.compile(r"\.ko(\.(gz|xz|zst))?$")

T = TypeVar("T")

Opener: TypeAlias = Callable[[], AbstractContextManager[Readable]]
"""Opens a layer, compressed as it is stored. It may be called several times."""


class Keeper(Protocol[T]):
    """What becomes of the contents of files that are wanted."""

    def keep(self, member: Member) -> T:
        """Read the contents of a member, which are within the limits."""
        ...

    def drop(self, kept: T) -> None:
        """Forget them: it was not the file after all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Located(Generic[T]):
    """A file. `path`: as `a/b`, without links; `layer`: the number of the one that has it, the lowest is 0.

    `stored`: the path under which its contents are there, another one for a hard link. `directories`: those above
    `path` that its layer or one above says something of.
    """

    path: str
    layer: int
    stored: str
    size: int
    content: T
    attributes: Attributes
    directories: dict[str, Attributes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[T]):
    """What was found. `missing`: what was asked for and leads to no file; `nearby`: names of files, for who seeks.

    `nearby`: kernel modules, and files of the names asked for, as far as was read and there are not too many.
    """

    files: tuple[Located[T], ...]
    missing: tuple[str, ...]
    nearby: tuple[str, ...]


def find(
    layers: Sequence[Opener],
    paths: Sequence[str],
    limits: Limits | None = None,
    check: Callable[[], None] = lambda: None,
) -> dict[str, bytes]:
    """Return the contents of the files at `paths` (absolute) in an image; what is not there is left out.

    `layers`: the lowest first, as manifests have them. `check`: called again and again meanwhile, and raises where
    there is no more time: what is small where it comes from may be large, unpacked.

    Raises:
        LayerError: a layer is broken, compressed in a way that cannot be read here, or exceeds a limit.
        Whatever the openers, their streams and `check` raise.
    """
    top = len(layers) - 1
    searches = [_Search[bytes](asked=path, at=normal(path), top=top, layer=top) for path in dict.fromkeys(paths)]
    _Walk(layers, _Memory(), Budget(limits or Limits(), check)).go(searches, [])
    return {each.asked: each.found.content for each in searches if each.found is not None}


def locate(
    layers: Sequence[Opener],
    wanted: Sequence[str],
    keeper: Keeper[T],
    limits: Limits | None = None,
    check: Callable[[], None] = lambda: None,
) -> Found[T]:
    """Return where the files are that `wanted` names (absolute paths and patterns, as kmm.oci.glob has them).

    A file that is reached in several ways is there once. Raises as `find`, and LayerError where an entry's path or a
    hard link's target has `..` in it, which nobody writes who means well. Those with a slash in front begin at the
    image's root, as runtimes and builders have it.
    """
    top = len(layers) - 1
    walk = _Walk(layers, keeper, Budget(limits or Limits(), check), nearby := _Nearby(wanted))
    asked = list(dict.fromkeys(wanted))
    searches = [
        _Search[T](asked=path, at=normal(path), top=top, layer=top) for path in asked if not glob.is_glob(path)
    ]
    globs = [_Glob[T].of(pattern, top) for pattern in asked if glob.is_glob(pattern)]
    walk.go(searches, globs)
    known = [located for each in globs for located in each.files()]
    more, linked = _linked(globs, known, top)
    walk.go([search for _, search in linked], [])
    known += more
    known += [search.found for search in (*searches, *(search for _, search in linked)) if search.found]
    files: dict[str, Located[T]] = {}
    for located in known:
        files.setdefault(located.path, located)
    used = {id(located.content) for located in files.values()}
    for content in {id(each.content): each.content for each in known}.values():
        if id(content) not in used:
            keeper.drop(content)
    reached = {id(each) for each, search in linked if search.found}
    return Found(
        files=tuple(sorted(files.values(), key=lambda each: each.path)),
        missing=tuple(
            [each.asked for each in searches if each.found is None]
            + [each.asked for each in globs if id(each) not in reached and not any(True for _ in each.files())]
        ),
        nearby=tuple(nearby.names),
    )


def _linked(
    globs: Sequence[_Glob[T]], known: Sequence[Located[T]], top: int
) -> tuple[list[Located[T]], list[tuple[_Glob[T], _Search[T]]]]:
    """Return what the links that fit lead to, where it is known, and searches for the rest."""
    by_place = {(each.layer, each.path): each for each in known}
    paths = {each.path for each in known}
    more: list[Located[T]] = []
    searches: list[tuple[_Glob[T], _Search[T]]] = []
    for each in globs:
        for path, layer, entry in each.links_to():
            if entry.kind == "hard":
                if target := by_place.get((layer, normal(entry.target))):
                    more.append(each.hard(path, layer, target))
                else:
                    searches.append((each, _Search[T](asked=each.asked, at=path, top=top, layer=layer)))
            elif (at := beside(path, entry.target)) not in paths:
                searches.append((each, _Search[T](asked=each.asked, at=at, top=top, layer=top)))
    return more, searches


class _Memory:
    """Keeps contents as bytes."""

    def keep(self, member: Member) -> bytes:
        found = bytearray()
        while chunk := member.read(CHUNK):
            found += chunk
        return bytes(found)

    def drop(self, kept: bytes) -> None:
        pass


@dataclass(slots=True, kw_only=True)
class _Entry(Generic[T]):
    """What a layer has at a path. `content`: of a file, where it is kept; `attributes`: where they are wanted."""

    kind: str
    target: str = ""
    size: int = 0
    content: T | None = None
    attributes: Attributes = Attributes()  # noqa: RUF009 -- frozen


@dataclass(slots=True)
class _Seen(Generic[T]):
    """What a layer has at the paths that matter, and which of them it hides from the layers below."""

    entries: dict[str, _Entry[T]] = field(default_factory=dict)
    above: set[str] = field(default_factory=set)  # directories of the entries
    hidden: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class _Search(Generic[T]):
    """The search for one file: where it is looked for now, and from which layer down."""

    asked: str
    at: str
    top: int
    layer: int
    open: bool = True
    found: Located[T] | None = None
    links: int = 0
    directories: dict[str, Attributes] = field(default_factory=dict)  # of layers above: a lower link is not there
    place: str = ""  # of the hard link that led here
    above: dict[str, Attributes] = field(default_factory=dict)  # the directories of that
    upmost: int = field(init=False)

    def __post_init__(self) -> None:
        self.upmost = self.top
        self.open = bool(self.at)

    @property
    def path(self) -> str:
        """What layers are looked through for."""
        return self.at

    def look(self, seen: _Seen[T], number: int, links_most: int) -> None:
        """Decide what `seen`, which is of layer `number`, means."""
        for prefix in prefixes(self.at):
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
                continue  # what came after it is below it: stored instead of the file
            if entry.kind == "link":
                # Wherever a hard link led from, what this one leads to is what is there now.
                self.place, self.top = "", self.upmost
                self._restart(beside(prefix, entry.target, rest), links_most)
                return
            self._note(seen)
            if last and entry.kind == "hard":
                # It is bound to what was there when its layer was made. Named itself, it leads nowhere.
                target = normal(entry.target)
                if not self.place:
                    self.place, self.above = self.at, dict(self.directories)
                self.top = number if target != self.at else number - 1
                self._restart(target, links_most)
                return
            if last and entry.content is not None:
                self.found = Located(
                    path=self.place or self.at,
                    layer=number,
                    stored=self.at,
                    size=entry.size,
                    content=entry.content,
                    attributes=entry.attributes,
                    directories=self.above if self.place else dict(self.directories),
                )
            self.open = False
            return
        if _hides(seen, self.at, itself=False):
            self.open = False
            return
        self._note(seen)
        self.layer = number - 1

    def _note(self, seen: _Seen[T]) -> None:
        """Keep what a layer says of the directories on the way."""
        for prefix in prefixes(self.at):
            if (entry := seen.entries.get(prefix)) and entry.kind == "directory":
                self.directories.setdefault(prefix, entry.attributes)

    def _restart(self, at: str, links_most: int) -> None:
        self.links += 1
        if self.links > links_most or not at:
            self.open = False
        self.at, self.layer = at, self.top
        self.directories = {}


@dataclass(slots=True, kw_only=True)
class _Glob(Generic[T]):
    """The search for all that fits a pattern, below a directory that links may lead to."""

    asked: str
    base: str
    rest: Sequence[str]
    top: int
    layer: int
    open: bool = True
    links: int = 0
    directories: set[str] = field(default_factory=set)  # of layers above, down to the base
    entries: dict[str, tuple[int, _Entry[T]]] = field(default_factory=dict)  # with the numbers of their layers
    folders: dict[str, tuple[int, Attributes]] = field(default_factory=dict)
    # Hashes of paths: there may be many, and how long they are is for others to choose.
    covered: set[int] = field(default_factory=set)  # a file of a lower layer is not there
    closed: set[int] = field(default_factory=set)  # nothing of a lower layer is there below them
    covers: set[int] = field(default_factory=set)  # the same of the layer that is being read
    closes: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, asked: str, top: int) -> _Glob[T]:
        """Return the search for a pattern."""
        base, rest = glob.split(normal(asked))
        return cls(asked=asked, base=base, rest=rest, top=top, layer=top)

    @property
    def path(self) -> str:
        """What layers are looked through for."""
        return self.base

    def see(self, name: str, kind: str, limits: Limits) -> bool:
        """Note that the layer has `name`, and say whether it is wanted.

        `kind`: as of members, else `whiteout` or `opaque`.
        """
        inner = self._inner(name)
        if not inner:
            if kind == "opaque" and name == self.base:
                self.closes.add(hash(name))
            return False
        hides = kind in ("whiteout", "opaque")
        fits = not hides and glob.fits(inner, self.rest)
        if fits or kind == "whiteout":
            self.covers.add(hash(name))
        if kind != "directory" and glob.may_hold(inner, self.rest):
            self.closes.add(hash(name))
        if len(self.covered) + len(self.closed) + len(self.covers) + len(self.closes) > limits.hiding:
            raise LayerError(
                f"has more than {limits.hiding:,} entries where a pattern is looked for: name less by it"
            )
        return fits and name not in self.entries and not self._is_hidden(name)

    def folder(self, name: str) -> bool:
        """Say whether a directory is one above what may fit."""
        inner = self._inner(name)
        return bool(inner) and name not in self.folders and glob.may_hold(inner, self.rest)

    def look(self, seen: _Seen[T], number: int, links_most: int) -> None:
        """Take what fits from `seen`, which is of layer `number`, and decide where to go on."""
        for name, entry in seen.entries.items():
            inner = self._inner(name)
            if entry.kind == "directory":
                if not inner or glob.may_hold(inner, self.rest):
                    self.folders.setdefault(name, (number, entry.attributes))
            elif inner and entry.kind != "other" and glob.fits(inner, self.rest) and not self._is_hidden(name):
                self.entries.setdefault(name, (number, entry))
        self.covered |= self.covers
        self.closed |= self.closes
        self.covers, self.closes = set(), set()
        for prefix in prefixes(self.base) if self.base else ():
            found = seen.entries.get(prefix)
            if found is None or found.kind == "directory":
                continue
            if found.kind == "link" and prefix not in self.directories:
                self._restart(beside(prefix, found.target, self.base[len(prefix) :]), links_most)
            else:
                self.open = False
            return
        if _hides(seen, self.base, itself=True):
            self.open = False
            return
        self.directories.update(
            prefix
            for prefix in prefixes(self.base)
            if (each := seen.entries.get(prefix)) and each.kind == "directory"
        )
        self.layer = number - 1

    def files(self) -> Iterator[Located[T]]:
        """Yield the files that fit."""
        for path, (layer, entry) in self.entries.items():
            if entry.content is not None:
                yield self._located(path, path, layer, entry, entry.content)

    def links_to(self) -> Iterator[tuple[str, int, _Entry[T]]]:
        """Yield what fits and is a link: its path, layer and entry."""
        for path, (layer, entry) in self.entries.items():
            if entry.kind in ("link", "hard"):
                yield path, layer, entry

    def hard(self, path: str, layer: int, target: Located[T]) -> Located[T]:
        """Return the hard link at `path` of a file that is known."""
        return replace(target, path=path, directories=self._above(path, layer))

    def _located(self, path: str, stored: str, layer: int, entry: _Entry[T], content: T) -> Located[T]:
        return Located(
            path=path,
            layer=layer,
            stored=stored,
            size=entry.size,
            content=content,
            attributes=entry.attributes,
            directories=self._above(path, layer),
        )

    def _above(self, path: str, layer: int) -> dict[str, Attributes]:
        known = {prefix: self.folders[prefix] for prefix in prefixes(path)[:-1] if prefix in self.folders}
        return {prefix: attributes for prefix, (at, attributes) in known.items() if at >= layer}

    def _inner(self, name: str) -> str:
        """Return the path below the base, or an empty text where it is not below it."""
        if not self.base:
            return name
        return name[len(self.base) + 1 :] if name.startswith(f"{self.base}/") else ""

    def _is_hidden(self, name: str) -> bool:
        return hash(name) in self.covered or any(hash(each) in self.closed for each in prefixes(name)[:-1])

    def _restart(self, base: str, links_most: int) -> None:
        self.links += 1
        if self.links > links_most:
            self.open = False
        self.base, self.layer = base, self.top
        self.directories.clear()
        self.covered.clear()
        self.closed.clear()


class _Nearby:
    """Names of files for who asked for one that is not there: modules, and those that are called the same."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self.names: dict[str, None] = {}
        self._called = {path.rpartition("/")[2] for path in wanted}
        self._gone: set[str] = set()
        self._goes: set[str] = set()
        self._lowest: int | None = None
        self._new = False

    def begin(self, number: int) -> None:
        """Begin a layer. Only those that were not read yet count."""
        self._gone |= self._goes
        self._goes = set()
        self._new = self._lowest is None or number < self._lowest
        self._lowest = number if self._new else self._lowest

    def see(self, name: str, kind: str) -> None:
        """Note what the layer has."""
        if not self._new or len(name) > _NEARBY_LONGEST or len(self._goes) + len(self._gone) > _NEARBY_MOST:
            return
        if kind in ("whiteout", "opaque"):
            self._goes.add(name)
            return
        base = name.rpartition("/")[2]
        if (
            kind in ("file", "link", "hard")
            and len(self.names) < _NEARBY_MOST
            and (base in self._called or _MODULE.search(base))
            and not any(each in self._gone for each in prefixes(name))
        ):
            self.names[name] = None


class _Walk(Generic[T]):
    """Goes through the layers of an image as often as the searches need it."""

    def __init__(
        self, layers: Sequence[Opener], keeper: Keeper[T], budget: Budget, nearby: _Nearby | None = None
    ) -> None:
        self._layers, self._keeper, self._budget = layers, keeper, budget
        self._placement = Placement(budget.limits)
        self.nearby = nearby  # where there is one, all of the rest is wanted too: attributes, and no `..`

    def go(self, searches: Sequence[_Search[T]], globs: Sequence[_Glob[T]]) -> None:
        """Bring the searches to their ends. Raises as `find`."""
        every: list[_Search[T] | _Glob[T]] = [*searches, *globs]
        while open_searches := [each for each in every if each.open]:
            # Those that are farthest up go first: one pass from the top serves all that can join it.
            number = max(each.layer for each in open_searches)
            here = [each for each in open_searches if each.layer == number]
            if number < 0:
                for each in here:
                    each.open = False
                continue
            with self._layers[number]() as stream:
                seen = self._scan(stream, number, here)
            for each in here:
                each.look(seen, number, self._budget.limits.links)

    def _scan(self, stream: Readable, number: int, searches: Sequence[_Search[T] | _Glob[T]]) -> _Seen[T]:
        """Read a layer and return what it has at the paths of `searches` and above them."""
        globs = [each for each in searches if isinstance(each, _Glob)]
        wanted = {each.path for each in searches if isinstance(each, _Search)}
        relevant = {prefix for each in searches if each.path for prefix in prefixes(each.path)}
        seen = _Seen[T]()
        self._placement.begin(number, relevant, [each.base for each in globs])
        if self.nearby:
            self.nearby.begin(number)
        for member in members(unpacked(stream), self._budget):
            if self.nearby and ".." in member.name.split("/"):
                raise LayerError("has an entry whose path leads out of its directory, by ..")
            if self.nearby and member.kind == "hard" and ".." in member.target.split("/"):
                raise LayerError("has a hard link that leads out of its directory, by ..")
            name = self._placement.place(normal(member.name), member.kind, member.target)
            if member.kind == "hard":
                member.target = self._placement.through(normal(member.target))
            if name.count("/") >= _DEEPEST:
                raise LayerError(f"has an entry in more than {_DEEPEST} directories")
            parent, _, base = name.rpartition("/")
            kind = member.kind
            if base == _OPAQUE:
                name, kind = parent, "opaque"
                if not parent or parent in relevant:
                    seen.opaque.add(parent)
            elif base.startswith(_WHITEOUT):
                name, kind = f"{parent}/{base[len(_WHITEOUT) :]}".lstrip("/"), "whiteout"
                if name in relevant:
                    seen.hidden.add(name)
            if self.nearby:
                self.nearby.see(name, kind)
            # Each is told of it.
            fit = sum([each.see(name, kind, self._budget.limits) for each in globs])
            if kind in ("opaque", "whiteout"):
                continue
            above = kind == "directory" and any(each.folder(name) for each in globs)
            if fit or above or name in relevant or name in seen.entries or name in seen.above:
                self._note(seen, name, member, keep=bool(fit) or name in wanted)
        return seen

    def _note(self, seen: _Seen[T], name: str, member: Member, *, keep: bool) -> None:
        if member.kind != "directory" and name in seen.above:
            # What was below it went when it came.
            for below in [each for each in seen.entries if each.startswith(f"{name}/")]:
                self._forget(seen.entries.pop(below))
        if previous := seen.entries.get(name):
            self._forget(previous)
        entry = _Entry[T](kind=member.kind, target=member.target, size=member.size)
        if self.nearby:
            entry.attributes = member.attributes
            self._budget.tell(name, member.target, *entry.attributes.xattrs, *entry.attributes.xattrs.values())
        if member.kind == "file" and keep:
            self._budget.keep(member)
            entry.content = self._keeper.keep(member)
        seen.entries[name] = entry
        # The directories of one that is known are known.
        parent = name
        while (parent := parent.rpartition("/")[0]) and parent not in seen.above:
            self._budget.tell(parent)
            seen.above.add(parent)

    def _forget(self, entry: _Entry[T]) -> None:
        if entry.content is not None:
            self._budget.drop(entry.size)
            self._keeper.drop(entry.content)


def _hides(seen: _Seen[T], path: str, *, itself: bool) -> bool:
    """Say whether a layer hides what lower ones have at `path`; with `itself`, what they have below it."""
    above = ["", *prefixes(path)] if path else [""]
    opaque = above if itself else above[:-1]
    return any(each in seen.hidden for each in above) or any(each in seen.opaque for each in opaque)
