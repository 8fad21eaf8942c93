"""Where runtimes put what layers store: an entry may be stored through a link."""

from __future__ import annotations

from collections.abc import Iterable

from kmm.oci.path import beside, normal, prefixes
from kmm.oci.tar import LayerError, Limits


class Placement:
    """Follows layers as they are read, from the top, perhaps several times.

    What is stored through a link of its own layer is where that leads to: all runtimes unpack it there. What is
    stored through a link of a lower layer is there for those that unpack one layer onto the other. Those that unpack
    each by itself, to lay them over each other (overlayfs), have a directory in place of the link. So that is
    refused, where the link is on the way to what is looked for, or leads there.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._number = 0
        self._paths: set[str] = set()
        self._bases: set[str] = set()
        self._links: dict[str, str] = {}  # of the layer: where they lead to, by their paths
        self._links_size = 0
        # Hashes of paths: there may be many, and how long they are is for others to choose.
        self._known: set[int] = set()  # directories and links of the layer
        self._untold: dict[int, int] = {}  # directories that have no entry, though others are in them: the top layer

    def begin(self, number: int, paths: Iterable[str], bases: Iterable[str]) -> None:
        """Begin a layer. `paths`: those on the way to what is looked for; `bases`: all below them may be.

        Those of before count too: it was links that led away from them.
        """
        self._number = number
        self._paths.update(paths)
        self._bases.update(bases)
        self._links.clear()
        self._links_size = 0
        self._known.clear()

    def place(self, name: str, kind: str, target: str) -> str:
        """Return where an entry is. `kind`, `target`: as of members.

        Raises LayerError where runtimes do not agree on that.
        """
        name = self.through(name)
        self._links.pop(name, None)
        key = hash(name)
        if kind == "link" and target and self._matters(name, leads_to := beside(name, target)):
            if self._untold.get(key, -1) > self._number:
                raise LayerError(
                    "has a link in place of which a layer above it stores files, and runtimes do not agree where they"
                    " are: build that layer with the path that the link leads to, or with a directory in its place"
                )
            self._links[name] = leads_to
            self._links_size += len(name) + len(leads_to)
            if self._links_size > self._limits.text:
                raise LayerError("has more links where something is looked for than can be followed")
        self._untold.pop(key, None)
        if kind in ("directory", "link"):
            self._known.add(key)
        parent = name
        while (parent := parent.rpartition("/")[0]) and (above := hash(parent)) not in self._known:
            self._known.add(above)
            self._untold[above] = max(self._number, self._untold.get(above, -1))
        if len(self._known) + len(self._untold) > self._limits.hiding:
            raise LayerError(f"has more than {self._limits.hiding:,} directories and links")
        return name

    def through(self, name: str) -> str:
        """Return where `name` is, whose directories may be links of the layer."""
        for _ in range(self._limits.links):
            above = prefixes(name)[:-1] if self._links else ()
            link = next((each for each in above if each in self._links), None)
            if link is None:
                return name
            name = normal(self._links[link] + name[len(link) :])
        raise LayerError("has an entry that is stored through links that lead in circles")

    def _matters(self, name: str, leads_to: str) -> bool:
        """Say whether a link is on the way to what is looked for, or leads there."""
        return (
            not leads_to
            or name in self._paths
            or leads_to in self._paths
            or any(not base or each.startswith(f"{base}/") for base in self._bases for each in (name, leads_to))
        )
