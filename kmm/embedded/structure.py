"""Structural schemas: prune, default and judge an object as the API server does.

Values are judged by jsonschema and rules by cel-expr-python, with what Kubernetes does differently: null equals
absent, patterns are RE2's, list types, integer formats.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import jsonschema
import jsonschema.validators
import msgspec
import re2
from cel_expr_python import cel

from kmm.api.kubernetes import definitions as api_definitions
from kmm.embedded.failure import Cause, required, shown, wrong

_HEAD = ("apiVersion", "kind", "metadata")
_PYTHON: Mapping[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


@functools.cache
def definitions() -> Mapping[str, dict[str, Any]]:
    """Return Kubernetes' own types by their short names; references (`$ref`) are such names."""
    text = files("kmm.embedded").joinpath("kubernetes.json").read_bytes()
    return {**api_definitions(), **msgspec.json.decode(text)["definitions"]}


class Structure:
    """A schema, ready for use. `custom`: of a CustomResourceDefinition, else one of Kubernetes' own."""

    def __init__(self, schema: Mapping[str, Any], *, custom: bool) -> None:
        self.schema, self.custom = schema, custom

    def settle(
        self, body: Mapping[str, Any], old: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], list[str], list[Cause]]:
        """Return the object pruned and with its defaults, the paths of unknown fields, and wrong types.

        What is as it was in `old` has been settled before.
        """
        before = old or {}
        kept = {key: value for key, value in body.items() if key in _HEAD or (key in before and value == before[key])}
        walk = _Walk(typed=True)
        if "metadata" not in before or body["metadata"] != before["metadata"]:
            kept["metadata"] = walk.settle(body["metadata"], definitions()["ObjectMeta"], "metadata")
        properties = {key: schema for key, schema in self.schema.get("properties", {}).items() if key not in kept}
        walk.typed = not self.custom
        rest = {key: value for key, value in body.items() if key not in kept}
        found = walk.settle(rest, {**self.schema, "properties": properties}, "")
        first = {key: body[key] for key in _HEAD[:2] if key in body}  # lists rely on the order
        return {**first, **kept, **found}, walk.unknown, walk.wrong

    def judge(self, body: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[Cause]:
        """Return what the schema and its rules have against a settled custom object."""
        if not self.custom:
            return []
        found = [_cause(error) for error in self._validator.iter_errors(body)]
        if any(cause.reason in _BLOCKING for cause in found):
            return [*found, _UNCHECKED] if self._has_rules else found
        return [*found, *_rules(body, self.schema, old, "")]

    @functools.cached_property
    def _has_rules(self) -> bool:
        return b'"x-kubernetes-validations"' in msgspec.json.encode(self.schema)

    @functools.cached_property
    def _validator(self) -> Any:
        return _VALIDATOR(self.schema)


# With one of these the rules are not asked: they may rely on what is missing.
_BLOCKING = tuple(f"FieldValue{kind}" for kind in ("Required", "NotSupported", "TooLong", "TooMany", "TypeInvalid"))
_UNCHECKED = Cause(
    "<nil>",
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the "
    "existing errors to complete validation",
)


class _Walk:
    """One pass over one object. `typed`: types and required fields are judged on the way."""

    def __init__(self, *, typed: bool) -> None:
        self.typed = typed
        self.unknown: list[str] = []
        self.wrong: list[Cause] = []

    def settle(self, value: Any, schema: Mapping[str, Any], path: str) -> Any:
        while "$ref" in schema:
            schema = definitions()[schema["$ref"]]
        if self.typed and not _fits(value, schema):
            self.wrong.append(wrong(path, value, f"must be of type {schema['type']}"))
            return value
        if isinstance(value, dict):
            return self._settle_object(value, schema, path)
        if isinstance(value, float) and value.is_integer() and schema.get("type") == "integer":
            return int(value)
        if isinstance(value, list) and "items" in schema:
            return [self.settle(each, schema["items"], f"{path}[{index}]") for index, each in enumerate(value)]
        return value

    def _settle_object(self, value: dict[str, Any], schema: Mapping[str, Any], path: str) -> Any:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        others = schema.get("additionalProperties")
        free = schema.get("x-kubernetes-preserve-unknown-fields") or others is True
        if self.typed and not properties and others is None:
            return value  # Kubernetes' own types that are any JSON
        settled = {}
        for key, below in value.items():
            known = properties.get(key, others if isinstance(others, Mapping) else None)
            if known is None:
                if free:
                    settled[key] = below
                else:
                    self.unknown.append(_at(path, key))
            elif below is not None or known.get("nullable"):
                settled[key] = self.settle(below, known, _at(path, key))
        for key, known in properties.items():
            if key not in settled and "default" in known and not self.typed:
                settled[key] = self.settle(copy.deepcopy(known["default"]), known, _at(path, key))
        # Elsewhere Kubernetes' own schema says "required" of what Go always writes, and nobody checks.
        if self.typed and path.startswith("spec"):
            for key in schema.get("required", ()):
                if key not in settled:
                    self.wrong.append(required(_at(path, key)))
        return settled


def _at(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    if kind is None or schema.get("x-kubernetes-int-or-string"):
        return True
    if isinstance(value, bool):
        return bool(kind == "boolean")
    return isinstance(value, _PYTHON[kind])


def _pattern(_: Any, wanted: str, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, str) and not _compiled(wanted).search(instance):
        yield jsonschema.ValidationError("does not match")


def _type(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if not (instance is None and schema.get("nullable")) and not validator.is_type(instance, wanted):
        yield jsonschema.ValidationError("is of another type")


def _int_or_string(_: Any, wanted: Any, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    if wanted and (isinstance(instance, bool) or not isinstance(instance, (int, str))):
        yield jsonschema.ValidationError("is neither", validator="type", validator_value="integer,string")


def _any_of(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if not schema.get("x-kubernetes-int-or-string"):  # it says the same as that
        yield from jsonschema.Draft202012Validator.VALIDATORS["anyOf"](validator, wanted, instance, schema)


def _list_type(_: Any, wanted: str, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if wanted == "atomic" or not isinstance(instance, list):
        return
    keys = schema.get("x-kubernetes-list-map-keys", ())
    seen: set[str] = set()
    for index, each in enumerate(instance):
        identity = each if wanted == "set" else {key: each.get(key) for key in keys}
        if repr(identity) in seen:
            yield jsonschema.ValidationError("twice", path=[index], instance=identity)
        seen.add(repr(identity))


def _format(_: Any, wanted: str, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    if wanted in ("int32", "int64") and isinstance(instance, int):
        bits = int(wanted[3:]) - 1
        if not -(1 << bits) <= instance < 1 << bits:
            yield jsonschema.ValidationError("does not fit", validator_value=wanted)
    elif wanted == "date-time" and isinstance(instance, str) and not _compiled(_DATE_TIME).search(instance):
        yield jsonschema.ValidationError("does not fit", validator_value=wanted)


_DATE_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"
_VALIDATOR: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    {
        "anyOf": _any_of,
        "format": _format,
        "pattern": _pattern,
        "type": _type,
        "x-kubernetes-int-or-string": _int_or_string,
        "x-kubernetes-list-type": _list_type,
    },
)


@functools.cache
def _compiled(pattern: str) -> Any:
    return re2.compile(pattern)


def _cause(error: Any) -> Cause:
    """Return a finding of jsonschema in Kubernetes' words."""
    path = ""
    for step in error.absolute_path:
        path = f"{path}[{step}]" if isinstance(step, int) else _at(path, str(step))
    value, limit = error.instance, error.validator_value
    match error.validator:
        case "required":
            missing = next(key for key in limit if key not in value)
            return required(_at(path, missing))
        case "enum":
            supported = ", ".join(f'"{each}"' for each in limit)
            message = f"Unsupported value: {shown(value)}: supported values: {supported}"
            return Cause(path, "FieldValueNotSupported", message)
        case "maxLength":
            return Cause(path, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")
        case "maxItems" | "maxProperties":
            message = f"Too many: {len(value)}: must have at most {limit} items"
            return Cause(path, "FieldValueTooMany", message)
        case "x-kubernetes-list-type":
            text = msgspec.json.encode(value).decode()
            return Cause(path, "FieldValueDuplicate", f"Duplicate value: {text}")
        case "format":
            message = f"Invalid value: {shown(value)}: {path} in body must be of type {limit}: {shown(value)}"
            return Cause(path, "FieldValueTypeInvalid", message)
        case "type":
            named = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
            got = named.get(type(value), "null")
            message = f'Invalid value: "{got}": {path} in body must be of type {limit}: "{got}"'
            return Cause(path, "FieldValueTypeInvalid", message)
    said = {
        "pattern": f"should match '{limit}'",
        "minLength": f"should be at least {limit} chars long",
        "minItems": f"should have at least {limit} items",
        "minProperties": f"should have at least {limit} properties",
        "minimum": f"should be greater than or equal to {limit}",
        "maximum": f"should be less than or equal to {limit}",
    }.get(error.validator, f"must validate {error.validator}")
    counted = len(value) if error.validator in ("minItems", "minProperties") else value
    return wrong(path, counted, f"{path} in body {said}")


@functools.cache
def program(rule: str) -> Any:
    """Compile a CEL rule."""
    return cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN}).compile(rule)


def _rules(value: Any, schema: Mapping[str, Any], old: Any, path: str) -> Iterator[Cause]:
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" in rule["rule"] and old is None:
            continue  # a transition rule judges updates alone
        try:
            held = program(rule["rule"]).eval(data={"self": value, "oldSelf": old}).value()
        except Exception as error:  # the evaluator raises what it likes
            held = error
        if held is not True:
            said = rule.get("message") or f"failed rule: {rule['rule']}"
            if held is not False:
                said = f"{said}: {held}"
            at = _at(path, rule.get("fieldPath", "").lstrip(".")).rstrip(".") or "<nil>"
            if isinstance(value, (dict, list)):
                yield Cause(at, "FieldValueInvalid", f"Invalid value: {said}")
            else:
                yield wrong(at, value, said)
    if isinstance(value, Mapping):
        others = schema.get("additionalProperties")
        for key, each in value.items():
            below = (schema.get("properties") or {}).get(key, others)
            if isinstance(below, Mapping):
                yield from _rules(each, below, old.get(key) if isinstance(old, Mapping) else None, _at(path, key))
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for index, each in enumerate(value):
            yield from _rules(each, schema["items"], _counterpart(each, old, schema), f"{path}[{index}]")


def _counterpart(each: Any, old: Any, schema: Mapping[str, Any]) -> Any:
    """Return what an item of a list was before: only list maps know."""
    keys: Sequence[str] = schema.get("x-kubernetes-list-map-keys", ())
    if not keys or not isinstance(old, list):
        return None
    return next((was for was in old if all(was.get(key) == each.get(key) for key in keys)), None)


def objections(schema: Any, path: str) -> Iterator[Cause]:
    """Yield why a CustomResourceDefinition's schema is not structural, or what in its rules does not compile."""
    if not isinstance(schema, Mapping):
        return
    if not schema.get("type") and not any(
        schema.get(f"x-kubernetes-{free}") for free in ("int-or-string", "preserve-unknown-fields")
    ):
        yield required(f"{path}.type", "must not be empty for specified object fields")
    if schema.get("type") not in (None, "", *_PYTHON):
        supported = ", ".join(f'"{each}"' for each in sorted(_PYTHON))
        message = f"Unsupported value: {shown(schema['type'])}: supported values: {supported}"
        yield Cause(f"{path}.type", "FieldValueNotSupported", message)
    for index, rule in enumerate(schema.get("x-kubernetes-validations", ())):
        try:
            program(rule["rule"])
        except Exception as error:
            yield wrong(
                f"{path}.x-kubernetes-validations[{index}].rule", rule["rule"], f"compilation failed: {error}"
            )
    for key, below in (schema.get("properties") or {}).items():
        yield from objections(below, f"{path}.properties[{key}]")
    for key in ("items", "additionalProperties"):
        yield from objections(schema.get(key), f"{path}.{key}")
