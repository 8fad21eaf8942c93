"""What a plan can ask for: a closed set, carried out in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kmm.contract import Kind, Manifest
from kmm.core.view import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Make an object that is whole but for what the API server adds."""

    kind: Kind
    manifest: Manifest
    reason: str = ""

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The object's namespace."""
        return str(self.manifest["metadata"].get("namespace", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """Bring an object to what is wanted, if it is still the one (uid) in the state (generation) that was seen.

    `spec`: the new value of each field of its spec that we render; empty where only annotations and labels change.
    """

    kind: Kind
    name: str
    uid: str
    generation: int
    spec: Mapping[str, Any]
    annotations: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete an object, if it is still the one (uid), its dependents with it in the background.

    `namespace`: empty for that of the Module.
    """

    kind: Kind
    name: str
    uid: str
    reason: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetStatus:
    """Write the Module's status: the value of each field."""

    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelNode:
    """Change labels of a node: a value sets, None removes."""

    node: str
    labels: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Take the Go operator's finalizer off a terminating pod, if it is still the one (uid)."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Ask a registry; the answer is in a later view."""

    question: Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """An event on the Module, for a person. `warning`: something to look at.

    `with_status`: the status that is written beside it is what remembers that it was told. `made`: the names of the
    objects that it tells of; it is told only where all of them have just been created.
    """

    reason: str
    message: str
    warning: bool = False
    with_status: bool = False
    made: tuple[str, ...] = ()


Action: TypeAlias = Create | Replace | Delete | SetStatus | LabelNode | Release | Probe | Announce


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, when to look again at the latest (seconds since the epoch), and why not more.

    `starts`: how many slots are taken by the builds and signatures that it starts. `queued`: more wait for a slot, or
    for an answer before they take one. `alone`: what stands for the Secrets that those it starts read alone;
    `awaits`: more wait until they may.
    """

    actions: tuple[Action, ...] = ()
    wake_at_s: float | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    starts: int = 0
    queued: bool = False
    alone: frozenset[str] = frozenset()
    awaits: bool = False
