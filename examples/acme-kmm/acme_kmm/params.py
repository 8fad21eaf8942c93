"""What a Module may set in `devicePlugin.params`: read by the renderer, and judged by the rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kmm.contract import nearest

# By name: the least, the most, and what it is where it is not set.
_KNOWN = {"healthPort": (1024, 65535, 8085), "virtualFunctions": (0, 63, 0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """`health_port`: where the device plugin answers probes. `virtual_functions`: what each card is split into."""

    health_port: int
    virtual_functions: int


def problems(params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong: the name of a parameter, and what would be right."""
    for name, value in params.items():
        if name not in _KNOWN:
            yield name, f"is unknown to the renderer acme{nearest(name, _KNOWN)} (known: {', '.join(_KNOWN)})"
            continue
        least, most, _ = _KNOWN[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            yield name, f"must be a whole number from {least} to {most}"


def read(params: Mapping[str, Any]) -> Params:
    """Return the parameters. Raises ValueError: the operator shows its text as the Module's condition."""
    if wrong := [f"devicePlugin.params.{name}: {message}" for name, message in problems(params)]:
        raise ValueError("; ".join(wrong))
    values = {name: params.get(name, default) for name, (_, _, default) in _KNOWN.items()}
    return Params(health_port=values["healthPort"], virtual_functions=values["virtualFunctions"])
