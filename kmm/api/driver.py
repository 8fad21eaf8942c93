"""Merging a vendor's defaults under what a user wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merge(defaults: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return `spec` with `defaults` for what it does not set: maps deeply; a list of the user's replaces theirs.

    null and an empty string count as not set, as everywhere.
    """
    merged = dict(defaults)
    for key, value in spec.items():
        if value is None or value == "":
            merged.setdefault(key, value)
        elif isinstance(value, Mapping) and isinstance(defaults.get(key), Mapping):
            merged[key] = merge(defaults[key], value)
        else:
            merged[key] = value
    return merged
