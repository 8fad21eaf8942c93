"""What an API server says of an object by its CustomResourceDefinition: structural schema, then CEL.

On jsonschema and cel-expr-python, with what Kubernetes does differently: null equals absent, patterns are RE2's,
`x-kubernetes-list-type: set`, integer formats.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jsonschema
import re2
from cel_expr_python import cel

from kmm.api.crd import custom_resource_definition
from kmm.api.kinds import KIND_BY_NAME


@functools.cache
def openapi(kind: str) -> dict[str, Any]:
    crd = custom_resource_definition(KIND_BY_NAME[kind])
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def complaints(manifest: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[str]:
    """Return what the API server would complain of."""
    schema = openapi(manifest["kind"])
    manifest = _without_nulls(manifest, schema)
    found = [
        f"{error.json_path}: {error.message[:200]}" for error in _validator(manifest["kind"]).iter_errors(manifest)
    ]
    return found or list(_cel(manifest, schema, None if old is None else _without_nulls(old, schema)))


@functools.cache
def _validator(kind: str) -> Any:
    def pattern(_: Any, wanted: str, instance: Any, __: Any) -> Any:
        if isinstance(instance, str) and not _compiled(wanted).search(instance):
            yield jsonschema.ValidationError(f"{instance!r} does not match {wanted}")

    def list_type(_: Any, wanted: str, instance: Any, __: Any) -> Any:
        if wanted == "set" and isinstance(instance, list) and len(set(map(repr, instance))) < len(instance):
            yield jsonschema.ValidationError("is no set")

    def number_format(_: Any, wanted: str, instance: Any, __: Any) -> Any:
        if wanted in ("int32", "int64") and isinstance(instance, int):
            bits = int(wanted[3:]) - 1
            if not -(1 << bits) <= instance < 1 << bits:
                yield jsonschema.ValidationError(f"does not fit {wanted}")

    extended = jsonschema.validators.extend(
        jsonschema.Draft202012Validator,
        {"pattern": pattern, "x-kubernetes-list-type": list_type, "format": number_format},
    )
    return extended(openapi(kind))


@functools.cache
def _compiled(pattern: str) -> Any:
    return re2.compile(pattern)


def _without_nulls(data: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(data, list):
        return [_without_nulls(each, schema.get("items", {})) for each in data]
    if not isinstance(data, Mapping):
        return data
    properties = schema.get("properties", {})
    below = schema.get("additionalProperties", {})
    return {
        key: _without_nulls(value, properties.get(key, below if isinstance(below, Mapping) else {}))
        for key, value in data.items()
        if not (value is None and (key in properties or isinstance(schema.get("additionalProperties"), Mapping)))
    }


@functools.cache
def program(rule: str) -> Any:
    return cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN}).compile(rule)


def _cel(data: Any, schema: Mapping[str, Any], old: Any) -> Any:
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" in rule["rule"] and old is None:
            continue
        result = program(rule["rule"]).eval(data={"self": data, "oldSelf": old}).value()
        if result is not True:
            yield f"{rule['message']} ({result})"
    if isinstance(data, Mapping):
        for key, below in schema.get("properties", {}).items():
            if key in data:
                yield from _cel(data[key], below, old.get(key) if isinstance(old, Mapping) else None)
    elif isinstance(data, list) and "items" in schema:
        for each in data:
            yield from _cel(each, schema["items"], None)
