"""Merging a vendor's defaults under what a user wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kmm.api.module import ModuleSpec
from kmm.api.schema import Part, schema


def merge(defaults: Mapping[str, Any], spec: Mapping[str, Any], what: type = ModuleSpec) -> dict[str, Any]:
    """Return a Module's `spec`, or what else is `what`, with `defaults` for what it does not set.

    Maps merge deeply; a list of the user's replaces the vendor's. As everywhere, null and, in a field of ours, an
    empty string are not set; in a map of the user's own keys, such as a selector, an empty string is a value.
    """
    return _merge(defaults, spec, what)


def _merge(defaults: Mapping[str, Any], users: Mapping[str, Any], what: type | None) -> dict[str, Any]:
    merged = dict(defaults)
    known = schema(what).by_key if what else {}
    for key, value in users.items():
        if value is None or (value == "" and what is not None):
            merged.setdefault(key, value)
        elif isinstance(value, Mapping) and isinstance(defaults.get(key), Mapping):
            field = known.get(key)
            inner = field.what if isinstance(field, Part) and isinstance(field.what, type) else None
            merged[key] = _merge(defaults[key], value, inner)
        else:
            merged[key] = value
    return merged
