"""The one mechanism behind every kind: a frozen dataclass whose fields each carry their marshmallow field.

From it come the values that the core works with, the errors with their paths, the warnings about unknown
names, and the OpenAPI schema of the CustomResourceDefinition, so that they cannot disagree.

As in the API server: null equals an absent field, and unknown fields are left out (and warned about).
As in the Go operator: an empty string equals an absent field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, ClassVar, TypeVar, cast

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, pre_load, validates_schema

from kmm.api import kubernetes
from kmm.contract import Finding, Severity, nearest

Path = tuple[str | int, ...]
OpenApi = dict[str, Any]
V = TypeVar("V")

_SHOWN = 80
# Of one list or map, so that a hostile file costs no more to explain than to read.
_ERRORS_MOST = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What no single field can say: the same judgement in CEL, for the API server, and in Python.

    `offences(object)` yields where (below the object) and what is wrong; it gets what the user wrote, of
    whatever type, and treats what has a wrong type as absent, since its field already says so.
    `cel` is None where CEL cannot say it: docs/validation.md lists those.
    """

    name: str
    message: str
    cel: str | None
    offences: Callable[[Any], Iterable[tuple[Path, str]]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A rule about a change: `allowed(old, new)` tells whether the one object may become the other."""

    name: str
    message: str
    cel: str
    path: Path
    allowed: Callable[[Any, Any], bool]


def at(data: object, *path: str) -> Any:
    """Return the value at `path` in what a user wrote, or None where it, or a part of the way, is absent."""
    for key in path:
        if not isinstance(data, Mapping):
            return None
        data = data.get(key)
    return None if data == "" else data


def items(data: object, *path: str) -> list[Any]:
    """Return the list at `path`, or an empty one."""
    value = at(data, *path)
    return value if isinstance(value, list) else []


def shown(value: object) -> str:
    """Return a user's value for a message: quoted, and cut where it is long."""
    text = str(value)
    return f'"{text[:_SHOWN]}…"' if len(text) > _SHOWN else f'"{text}"'


def _type_name(value: object) -> str:
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float):
        return "a number"
    if value is None:
        return "null"
    return "a string" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"


# ── Fields: each says what it accepts, and the same in OpenAPI ────────────────────────────────────────────────


class _Spoken(fields.Field[Any]):
    """What every field says in our words."""

    default_error_messages = {"null": "must not be null", "required": "is required"}  # noqa: RUF012 -- marshmallow's


class Text(_Spoken, fields.String):
    """A string; `pattern` must match the whole of it, and `hint` says that in words after "must"."""

    def __init__(
        self,
        *,
        pattern: str | None = None,
        hint: str = "",
        longest: int | None = None,
        choices: Sequence[str] = (),
        default: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.pattern, self.hint, self.longest = pattern, hint, longest
        self.choices, self.default = tuple(choices), default

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str):
            quotes = ": put it in quotes" if isinstance(value, int | float) else ""
            raise ValidationError(f"must be a string, not {_type_name(value)}{quotes}")
        if self.longest and len(value) > self.longest:
            raise ValidationError(f"must have at most {self.longest:,} characters, not {len(value):,}")
        if self.choices and value not in self.choices:
            raise ValidationError(
                f"must be {', '.join(self.choices[:-1])} or {self.choices[-1]}, not {shown(value)}"
                f"{nearest(value, self.choices)}"
            )
        if self.pattern and not kubernetes.matches(self.pattern, value):
            raise ValidationError(f"{shown(value)} must {self.hint}")
        return value

    def openapi(self) -> OpenApi:
        optional = self.data_key is not None and not self.required  # an element of a list has no key
        said: OpenApi = {"type": "string"}
        if self.pattern:
            # An empty string is an absent field, to the API server too.
            said["pattern"] = f"^$|{self.pattern}" if optional else self.pattern
        if self.required:
            said["minLength"] = 1
        if self.longest:
            said["maxLength"] = self.longest
        if self.choices:
            said["enum"] = [*self.choices, *([""] if optional else [])]
        if self.default is not None:
            said["default"] = self.default
        return said


class Flag(_Spoken, fields.Boolean):
    """true or false, and nothing that looks like it."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if isinstance(value, bool):
            return value
        raise ValidationError(f"must be true or false, not {_type_name(value)}")

    def openapi(self) -> OpenApi:
        return {"type": "boolean"}


class Number(_Spoken, fields.Integer):
    """A whole number of so many bits, not below `least`."""

    def __init__(self, *, bits: int = 32, least: int | None = None, **more: Any) -> None:
        super().__init__(strict=True, **more)
        self.bits, self.least = bits, least

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
            raise ValidationError(f"must be a whole number, not {_type_name(value)}")
        if not -(2 ** (self.bits - 1)) <= value < 2 ** (self.bits - 1):
            raise ValidationError(f"must fit into {self.bits} bits")
        if self.least is not None and value < self.least:
            raise ValidationError(f"must be at least {self.least}")
        return int(value)

    def openapi(self) -> OpenApi:
        least = {} if self.least is None else {"minimum": self.least}
        return {"type": "integer", "format": f"int{self.bits}", **least}


class IntOrString(_Spoken, fields.Field[Any]):
    """A whole number, or a string; a Kubernetes quantity where `quantity` says so."""

    def __init__(self, *, quantity: bool = False, **more: Any) -> None:
        super().__init__(**more)
        self.quantity = quantity

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValidationError(f"must be a whole number or a string, not {_type_name(value)}")
        if self.quantity and isinstance(value, str) and not kubernetes.matches(kubernetes.QUANTITY, value):
            raise ValidationError(f'{shown(value)} must be a quantity, such as "500m", 2 or "1Gi"')
        return value


class Items(_Spoken, fields.List[Any]):
    """A list, of at least `least` and at most `most` elements, none twice where they are to be `unique`.

    `key`: the field by which the API server tells elements apart (for lists that only we write).
    """

    def __init__(
        self,
        inner: Any,
        *,
        least: int = 0,
        most: int | None = None,
        unique: bool = False,
        key: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(inner, **more)
        self.least, self.most, self.unique, self.key = least, most, unique, key

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> list[Any]:  # noqa: ARG002
        if not isinstance(value, list):
            raise ValidationError(f'must be a list, not {_type_name(value)}: write "- " before each element')
        if len(value) < self.least:
            raise ValidationError(f"must have at least {self.least} element{'s' * (self.least > 1)}")
        if self.most is not None and len(value) > self.most:
            raise ValidationError(f"must have at most {self.most:,} elements, not {len(value):,}")
        found: list[Any] = []
        errors: dict[Any, Any] = {}
        for index, element in enumerate(value):
            try:
                found.append(self.inner.deserialize(element, **kwargs))
            except ValidationError as error:
                errors[index] = error.messages
                if len(errors) == _ERRORS_MOST:
                    break
        if self.unique and not errors:
            first = {element: index for index, element in reversed(list(enumerate(found)))}
            errors = {
                index: [f"{shown(element)} is in the list twice"]
                for index, element in enumerate(found)
                if first[element] != index
            }
        if errors:
            raise ValidationError(errors)
        return found

    def openapi(self) -> OpenApi:
        said: OpenApi = {"type": "array", "items": openapi(self.inner)}
        if self.least:
            said["minItems"] = self.least
        if self.most is not None:
            said["maxItems"] = self.most
        if self.unique:
            said["x-kubernetes-list-type"] = "set"
        if self.key:
            said |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}
        return said


class Entries(_Spoken, fields.Dict):
    """A map from strings to values of one type, or of any."""

    def __init__(self, inner: fields.Field[Any] | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.entry = inner

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValidationError(f"must be an object, not {_type_name(value)}")
        errors: dict[Any, Any] = {}
        found: dict[str, Any] = {}
        for key, entry in value.items():
            if entry is None and self.entry is not None:
                continue  # the API server drops it too
            try:
                found[key] = self.entry.deserialize(entry) if self.entry else entry
            except ValidationError as error:
                errors[key] = error.messages
                if len(errors) == _ERRORS_MOST:
                    break
        if errors:
            raise ValidationError(errors)
        return found

    def openapi(self) -> OpenApi:
        if self.entry is None:
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        return {"type": "object", "additionalProperties": openapi(self.entry)}


class Part(_Spoken, fields.Nested):
    """An object with a schema of its own, given as a dataclass of ours or as a Kubernetes type's name."""

    def __init__(self, what: type | str, **more: Any) -> None:
        self.what = what
        super().__init__(lambda: schema(what), **more)

    def openapi(self) -> OpenApi:
        if isinstance(self.what, str):
            return kubernetes.inlined({"$ref": self.what})
        return object_openapi(self.what)


def openapi(field: Any) -> OpenApi:
    """Return a field's OpenAPI schema, its description included, nothing referred to."""
    said: OpenApi = field.openapi()
    if "description" in field.metadata:
        said["description"] = field.metadata["description"]
    return said


def object_openapi(what: type) -> OpenApi:
    """Return the OpenAPI schema of a dataclass of ours."""
    made = schema(what)
    said: OpenApi = {
        "type": "object",
        "properties": {key: openapi(field) for key, field in made.by_key.items()},
    }
    if required := [key for key, field in made.by_key.items() if field.required]:
        said["required"] = required
    if what.__doc__ and not what.__doc__.startswith(what.__name__ + "("):
        said["description"] = " ".join(what.__doc__.split())
    if rules := [
        {"rule": rule.cel, "message": rule.message}
        for rule in (*made.rules_, *getattr(what, "TRANSITIONS", ()))
        if rule.cel
    ]:
        said["x-kubernetes-validations"] = rules
    return said


# ── Declaring the fields of a dataclass ───────────────────────────────────────────────────────────────────────


def _declare(made: Callable[..., fields.Field[Any]], doc: str, required: bool, default: Any) -> Any:
    what = doc.replace("{", "{{").replace("}", "}}")  # marshmallow formats its messages
    made_field = made(
        required=required,
        error_messages={"required": f"is required ({what})"},
        metadata={"description": doc},
    )
    if required:
        return dataclasses.field(metadata={"field": made_field})
    if default == {}:
        return dataclasses.field(metadata={"field": made_field}, default_factory=dict)
    return dataclasses.field(metadata={"field": made_field}, default=default)


def text(
    doc: str, *, required: bool = False, default: str | None = None, of: type[Text] = Text, **limits: Any
) -> Any:
    """Declare a string, limited as `Text` says. Empty counts as absent, and absent is None where allowed."""
    return _declare(lambda **more: of(default=default, **limits, **more), doc, required, default)


def flag(doc: str) -> Any:
    """Declare a boolean that is false where absent."""
    return _declare(Flag, doc, required=False, default=False)


def number(doc: str, *, default: int | None = 0, bits: int = 32) -> Any:
    """Declare a whole number that is not negative."""
    return _declare(lambda **more: Number(bits=bits, least=0, **more), doc, required=False, default=default)


def texts(doc: str, inner: Text | None = None, **limits: Any) -> Any:
    """Declare a list of strings, limited as `Items` says: an empty tuple where absent."""
    return _declare(lambda **more: Items(inner or Text(), **limits, **more), doc, required=False, default=())


def string_map(doc: str, *, required: bool = False) -> Any:
    """Declare a map of strings to strings: an empty one where absent."""
    return _declare(lambda **more: Entries(Text(), **more), doc, required, default={})


def free(doc: str) -> Any:
    """Declare an object of any content: an empty one where absent."""
    return _declare(Entries, doc, required=False, default={})


def part(what: type | str, doc: str, *, required: bool = False, default: object = None) -> Any:
    """Declare an object: a dataclass of ours (None where absent), or a Kubernetes type by name, as JSON."""
    return _declare(lambda **more: Part(what, **more), doc, required, default)


def parts(what: type | str, doc: str, **limits: Any) -> Any:
    """Declare a list of objects, limited as `Items` says: an empty tuple where absent."""
    return _declare(lambda **more: Items(Part(what), **limits, **more), doc, required=False, default=())


def entries(what: type, doc: str) -> Any:
    """Declare a map of strings to objects of ours: an empty one where absent."""
    return _declare(lambda **more: Entries(Part(what), **more), doc, required=False, default={})


# ── Schemas ───────────────────────────────────────────────────────────────────────────────────────────────────


class Strict(Schema):
    """The base of every schema: null is absent, unknown is left out, nothing is converted."""

    class Meta:
        unknown = EXCLUDE

    # Their names end in an underscore so that a field of a manifest can never be mistaken for them.
    what_: ClassVar[type | None] = None
    rules_: ClassVar[tuple[Rule, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.by_key: dict[str, Any] = {field.data_key or name: field for name, field in self.fields.items()}

    @pre_load
    def _absent(self, data: Any, **_: Any) -> Any:
        if not isinstance(data, Mapping):
            example = ": write {name: …}" if isinstance(data, str) and "name" in self.by_key else ""
            raise ValidationError(f"must be an object, not {_type_name(data)}{example}")
        return {key: value for key, value in data.items() if not self._is_absent(key, value)}

    def _is_absent(self, key: str, value: object) -> bool:
        # Kubernetes' own types tell an empty string from an absent field; ours do not.
        return value is None or (value == "" and bool(self.what_) and isinstance(self.by_key.get(key), Text))

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _rules(self, _: Any, original: Any, **__: Any) -> None:
        errors: dict[Any, Any] = {}
        for rule in self.rules_:
            for path, message in rule.offences(original):
                branch = errors
                for key in path:
                    branch = branch.setdefault(key, {})
                branch.setdefault("_schema", []).append(message)
        if errors:
            raise ValidationError(errors)

    @post_load
    def _value(self, data: dict[str, Any], **_: Any) -> Any:
        if self.what_ is None:
            return {self.fields[name].data_key: value for name, value in data.items()}
        return self.what_(**{name: tuple(v) if isinstance(v, list) else v for name, v in data.items()})


@cache
def schema(what: type | str) -> Strict:
    """Return the schema of a dataclass of ours, or of a Kubernetes type by its name."""
    if isinstance(what, str):
        definition = kubernetes.definitions()[what]
        made: dict[str, Any] = {
            f"f{index}": _kubernetes_field(name, prop, required=name in definition.get("required", ()))
            for index, (name, prop) in enumerate(definition.get("properties", {}).items())
        }
        return cast("type[Strict]", type(what, (Strict,), made))()
    made = {}
    for declared in dataclasses.fields(what):
        if "field" not in declared.metadata:
            continue  # not for users to write
        made[declared.name] = declared.metadata["field"]
        made[declared.name].data_key = camel(declared.name)
    made |= {"what_": what, "rules_": getattr(what, "RULES", ())}
    return cast("type[Strict]", type(what.__name__, (Strict,), made))()


def camel(name: str) -> str:
    """Return the manifest's name of a Python field: `registry_tls` is `registryTLS`."""
    first, *rest = name.split("_")
    return first + "".join(part.upper() if part in ("tls", "rt") else part.capitalize() for part in rest)


def _kubernetes_field(name: str | None, prop: Mapping[str, Any], *, required: bool = False) -> fields.Field[Any]:
    more: dict[str, Any] = {
        "data_key": name,
        "required": required,
        "error_messages": {"required": "is required"},
    }
    match prop:
        case {"$ref": "Quantity" | "IntOrString" as reference}:
            return IntOrString(quantity=reference == "Quantity", **more)
        case {"$ref": reference}:
            return Part(reference, **more)
        case {"type": "array"}:
            return Items(_kubernetes_field(None, prop["items"]), **more)
        case {"type": "object", "additionalProperties": inner}:
            return Entries(_kubernetes_field(None, inner), **more)
        case {"type": "boolean"}:
            return Flag(**more)
        case {"type": "integer"}:
            return Number(bits=64 if prop.get("format") == "int64" else 32, **more)
        case {"type": "string"}:
            return Text(**more)
    raise NotImplementedError(f"{name}: {prop}")  # a newer kubernetes.json: the tests load every definition


# ── Judging ───────────────────────────────────────────────────────────────────────────────────────────────────


def load(what: type[V], data: object) -> tuple[V | None, list[Finding]]:
    """Return the frozen value of `data`, or None, and every error and warning with its path."""
    made = schema(cast("Any", what))
    warnings = [
        Finding(path=spell(path), message=_ignored(what, path, known), severity=Severity.WARNING)
        for path, known in islice(_unknown(made, data), _ERRORS_MOST)
    ]
    try:
        return cast("V", made.load(cast("Any", data))), warnings
    except ValidationError as error:
        errors = [Finding(path=spell(path), message=message) for path, message in _flat(error.messages)]
        return None, errors + warnings


def _ignored(what: type, path: Path, known: Iterable[str] | None) -> str:
    """Return why something is dropped, and what it may have been meant to be: in another place, or spelt so."""
    if known is None:
        return 'is empty, so the API server drops it: write "" for an empty text'
    name = str(path[-1])
    here = path[:-1]
    homes = [home for home in _homes(what).get(name, []) if home[: len(here)] == here or here[: len(home)] == home]
    if len(homes) == 1:
        return f"is not a known field here; it belongs in {spell(homes[0])}: is it indented wrongly?"
    return f"is not a known field{nearest(name, known)}"


@cache
def _homes(what: type) -> dict[str, list[Path]]:
    """Return where each field name of ours has its place, but for those inside lists."""
    found: dict[str, list[Path]] = {}
    waiting: list[tuple[type, Path]] = [(what, ())]
    while waiting:
        here, path = waiting.pop()
        for key, field in schema(here).by_key.items():
            if isinstance(field, Part) and isinstance(field.what, type) and key not in ("metadata", "status"):
                waiting.append((field.what, (*path, key)))
            if path:
                found.setdefault(key, []).append(path)
    return found


def spell(path: Path) -> str:
    """Return a path as people read it: `spec.moduleLoader.container.kernelMappings[2].regexp`."""
    found = ""
    for key in path:
        if isinstance(key, int):
            found += f"[{key}]"
        elif not key or not key.isidentifier():
            found += f"[{shown(key)}]"
        else:
            found += f".{key[:_SHOWN]}" if found else key[:_SHOWN]
    return found


def _flat(messages: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    if isinstance(messages, Mapping):
        for key, below in messages.items():
            yield from _flat(below, path if key == "_schema" else (*path, key))
    else:
        for message in messages:
            yield path, message


def _unknown(field: Any, data: object, path: Path = ()) -> Iterator[tuple[Path, Iterable[str] | None]]:
    """Yield what the API server would drop: names that are not known (and those that are), and empty map entries."""
    if isinstance(field, Part):
        field = schema(field.what)
    if isinstance(field, Strict) and isinstance(data, Mapping):
        for key, value in data.items():
            if key in field.by_key:
                yield from _unknown(field.by_key[key], value, (*path, key))
            else:
                yield (*path, key), field.by_key
    elif isinstance(field, Items) and isinstance(data, list):
        for index, element in enumerate(data):
            yield from _unknown(field.inner, element, (*path, index))
    elif isinstance(field, Entries) and isinstance(data, Mapping):
        for key, entry in data.items():
            if entry is None and field.entry is not None:
                yield (*path, key), None
            yield from _unknown(field.entry, entry, (*path, key))
