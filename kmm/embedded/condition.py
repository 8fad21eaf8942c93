"""Conditions, by which a status says how its object is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def condition(kind: str, reason: str, message: str, since: str, status: str = "True") -> dict[str, Any]:
    """Return a condition. `since`: when its status became what it is."""
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


def condition_of(status: Mapping[str, Any] | None, kind: str) -> Mapping[str, Any]:
    """Return the condition of this type in a status; an empty one where there is none."""
    conditions = (status or {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == kind), {})
