"""Kubernetes' own schema of the types that a Module embeds (kubernetes.json, written by tools/)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

# What CustomResourceDefinitions say of a quantity, as the tools that generate them write it.
QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)


@cache
def definitions() -> Mapping[str, dict[str, Any]]:
    """Return every type by its short name; references (`$ref`) are such names."""
    text = files("kmm.api").joinpath("kubernetes.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)["definitions"]
    int_or_string = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    for name in ("IntOrString", "Quantity"):
        if name in found:
            found[name] = int_or_string | ({"pattern": QUANTITY} if name == "Quantity" else {})
    # The Go operator's later releases have an init container without a name; it is given one.
    found["InitContainer"] = found["Container"] | {"required": ["image"]}
    return found


def inlined(prop: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with every reference replaced by what it refers to, as a CRD wants it."""
    if "$ref" in prop:
        own = {key: value for key, value in prop.items() if key != "$ref"}
        return {**inlined(definitions()[prop["$ref"]]), **own}
    found = dict(prop)
    for key in ("items", "additionalProperties"):
        if isinstance(prop.get(key), Mapping):
            found[key] = inlined(prop[key])
    if "properties" in prop:
        found["properties"] = {name: inlined(below) for name, below in prop["properties"].items()}
    return found


def matches(pattern: str, text: str) -> bool:
    """Whether one of *our own* patterns (`^…$`) matches a whole text, as the API server would say."""
    return re.fullmatch(pattern, text) is not None
