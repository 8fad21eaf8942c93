"""Labels of objects that have the same keys: thousands of nodes have dozens each, and differ in a few values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any


class Labels(Mapping[str, str]):
    """An object's labels, immutable. Where keys are kept is shared, which takes a fifth of a dict's memory."""

    __slots__ = ("_places", "_values")

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._places = _places(tuple(labels))
        self._values = tuple(map(shared, labels.values()))

    def __getitem__(self, key: str) -> str:
        return self._values[self._places[key]]

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default: asked of every node by every Module, so without an exception."""
        place = self._places.get(key)
        return default if place is None else self._values[place]

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Labels) and other._places is self._places:
            return other._values == self._values
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(dict(self))


@lru_cache(maxsize=1024)
def _places(keys: tuple[str, ...]) -> Mapping[str, int]:
    return {shared(key): place for place, key in enumerate(keys)}


@lru_cache(maxsize=8192)
def shared(text: str) -> str:
    """Return the text as it was given the first time: kept once while it is in use, and not for ever.

    `sys.intern` would keep it as long as the process lives, on Python 3.12.
    """
    return text
