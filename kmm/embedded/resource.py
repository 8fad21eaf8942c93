"""A resource: a kind as the API server serves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kmm.embedded.structure import Structure

Cell = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of `kubectl get`. `cell`: from an object to what stands in it."""

    name: str
    cell: Cell
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resource:
    """A kind as the API server serves it.

    `status`: it has that subresource. `born_with_status`: a creation may set it. `generation`: it is counted.
    `selectable`: the paths beside name and namespace that field selectors may ask.
    """

    kind: str
    plural: str
    structure: Structure
    group: str = ""
    version: str = "v1"
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    status: bool = False
    born_with_status: bool = False
    generation: bool = False
    custom: bool = False
    selectable: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    paths: tuple[tuple[str, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(tuple(each.split(".")) for each in self.selectable))

    @property
    def key(self) -> tuple[str, str]:
        """What it is stored under: a later definition of the same resource finds the same objects."""
        return (self.group, self.plural)

    @property
    def qualified(self) -> str:
        """What messages call it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """What `apiVersion:` says."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def known_fields(self) -> tuple[str, ...]:
        """What field selectors may ask."""
        return ("metadata.name", "metadata.namespace", *self.selectable)

    def fields_of(self, body: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what an object says of the selectable fields."""
        return tuple(_at(body, path) for path in self.paths)


def _at(value: Any, path: tuple[str, ...]) -> str:
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
