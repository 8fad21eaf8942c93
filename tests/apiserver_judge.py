"""What an API server says of an object by its CustomResourceDefinition."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from kmm.api.crd import custom_resource_definition
from kmm.api.kinds import KIND_BY_NAME
from kmm.embedded.structure import Structure


@functools.cache
def openapi(kind: str) -> dict[str, Any]:
    crd = custom_resource_definition(KIND_BY_NAME[kind])
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


@functools.cache
def _structure(kind: str) -> Structure:
    return Structure(openapi(kind), custom=True)


def complaints(manifest: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[str]:
    """Return what the API server would complain of."""
    structure = _structure(manifest["kind"])
    settled, _, mistyped = structure.settle({"apiVersion": "", "metadata": {}, **manifest})
    before = None if old is None else structure.settle({"apiVersion": "", "metadata": {}, **old})[0]
    return [f"{each.field}: {each.message}" for each in (*mistyped, *structure.judge(settled, before))]
