from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from kmm.api import kubernetes, schema
from kmm.api.schema import flag, load, number, part, parts, string_map, text, texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """An inner object."""

    value: str = text("A value", required=True)
    load: str | None = text("A name that marshmallow uses itself")
    fields: str | None = text("Another one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """An outer object."""

    name: str | None = text("A name", pattern="^[a-z]+$", hint="be lower-case letters", longest=5)
    policy: str | None = text("A policy", choices=("Always", "Never"))
    directory: str = text("A directory", default="/opt")
    registry_tls: bool = flag("A flag")
    use_rt_kernel: bool = flag("Another flag")
    count: int = number("A count")
    words: tuple[str, ...] = texts("Words", least=1, unique=True)
    labels: Mapping[str, str] = string_map("Labels")
    inner: Inner | None = part(Inner, "An inner object")
    inners: tuple[Inner, ...] = parts(Inner, "Inner objects", most=2)
    env: tuple[Mapping[str, object], ...] = parts("EnvVar", "Variables")


def errors(data: object) -> list[str]:
    return [f"{each.path}: {each.message}" for each in load(Outer, data)[1] if each.severity.value == "error"]


def warnings(data: object) -> list[str]:
    return [f"{each.path}: {each.message}" for each in load(Outer, data)[1] if each.severity.value == "warning"]


def test_an_empty_object_is_all_defaults():
    value, findings = load(Outer, {})
    assert findings == []
    assert value == Outer(name=None, directory="/opt", words=(), labels={}, inner=None, inners=(), env=())


def test_null_and_an_empty_string_are_absent():
    value, findings = load(Outer, {"name": "", "policy": "", "directory": "", "words": None, "inner": None})
    assert findings == []
    assert value == Outer()


def test_an_empty_string_in_a_required_field_is_missing():
    assert errors({"inner": {"value": ""}}) == ["inner.value: is required (A value)"]


def test_an_empty_string_stays_one_in_maps_and_in_kubernetes_own_types():
    value, _ = load(Outer, {"labels": {"a": ""}, "env": [{"name": "A", "value": ""}]})
    assert value is not None
    assert value.labels == {"a": ""}
    assert value.env == ({"name": "A", "value": ""},)


def test_lists_become_tuples_and_objects_values():
    value, _ = load(Outer, {"words": ["a", "b"], "inners": [{"value": "x", "load": "y"}]})
    assert value is not None
    assert value.words == ("a", "b")
    assert value.inners == (Inner(value="x", load="y"),)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"name": 6}, "name: must be a string, not a number: put it in quotes"),
        ({"name": 6.1}, "name: must be a string, not a number: put it in quotes"),
        ({"name": True}, "name: must be a string, not the boolean true: put it in quotes"),
        ({"name": ["a"]}, "name: must be a string, not a list"),
        ({"name": "aB"}, 'name: "aB" must be lower-case letters'),
        ({"name": "ab\n"}, 'name: "ab\n" must be lower-case letters'),
        ({"name": "abcdef"}, "name: must have at most 5 characters, not 6"),
        ({"policy": "always"}, 'policy: must be Always or Never, not "always"; did you mean "Always"?'),
        ({"registryTLS": "yes"}, "registryTLS: must be true or false, not a string"),
        ({"useRTKernel": 1}, "useRTKernel: must be true or false, not a number"),
        ({"count": 5.9}, "count: must be a whole number, not a number"),
        ({"count": "5"}, "count: must be a whole number, not a string"),
        ({"count": True}, "count: must be a whole number, not the boolean true"),
        ({"count": 1 << 31}, "count: must fit into 32 bits"),
        ({"count": -1}, "count: must be at least 0"),
        ({"words": "a"}, 'words: must be a list, not a string: write "- " before each element'),
        ({"words": []}, "words: must have at least 1 element"),
        ({"words": ["a", None]}, "words[1]: must not be null"),
        ({"words": ["a", "b", "a"]}, 'words[2]: "a" is in the list twice'),
        ({"labels": {"a": 1}}, "labels.a: must be a string, not a number: put it in quotes"),
        ({"labels": {"a.b/c": 1}}, 'labels["a.b/c"]: must be a string, not a number: put it in quotes'),
        ({"labels": ["a"]}, "labels: must be an object, not a list"),
        ({"inner": "x"}, "inner: must be an object, not a string"),
        ({"inners": [{"value": "a"}] * 3}, "inners: must have at most 2 elements, not 3"),
        ({"inners": [{"value": "a"}, {}]}, "inners[1].value: is required (A value)"),
        ({"env": [{"value": "x"}]}, "env[0].name: is required"),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": 3}}}]},
            "env[0].valueFrom.fieldRef.fieldPath: ",
        ),
        ([], ": must be an object, not a list"),
        (None, ": must be an object, not null"),
    ],
)
def test_a_wrong_value_is_one_error_with_its_path(data, error):
    (found,) = errors(data)
    assert found.startswith(error)


def test_all_errors_are_told_at_once():
    assert len(errors({"name": 1, "policy": "x", "words": 3, "inner": {"value": 4}, "inners": [{}, {}]})) == 6


def test_an_empty_entry_of_a_map_is_dropped_as_the_api_server_does_and_warned_about():
    value, _ = load(Outer, {"labels": {"a": None, "b": ""}})
    assert value is not None
    assert value.labels == {"b": ""}
    assert warnings({"labels": {"a": None}}) == [
        'labels.a: is empty, so the API server drops it: write "" for an empty text'
    ]


def test_an_unknown_name_is_a_warning_with_the_nearest_one_and_its_path():
    assert warnings(
        {"inner": {"value": "x", "vale": "y"}, "labels": {"any": "x"}, "env": [{"name": "A", "vlue": ""}]}
    ) == [
        'inner.vale: is not a known field; did you mean "value"?',
        'env[0].vlue: is not a known field; did you mean "value"?',
    ]


def test_a_long_value_is_cut_in_the_message():
    (found,) = errors({"policy": "x" * 10_000})
    assert len(found) < 200


def test_the_openapi_schema_says_the_same():
    assert schema.object_openapi(Outer)["properties"] | {"env": None} == {
        "name": {"type": "string", "pattern": "^$|^[a-z]+$", "maxLength": 5, "description": "A name"},
        "policy": {"type": "string", "enum": ["Always", "Never", ""], "description": "A policy"},
        "directory": {"type": "string", "default": "/opt", "description": "A directory"},
        "registryTLS": {"type": "boolean", "description": "A flag"},
        "useRTKernel": {"type": "boolean", "description": "Another flag"},
        "count": {"type": "integer", "format": "int32", "minimum": 0, "description": "A count"},
        "words": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "x-kubernetes-list-type": "set",
            "description": "Words",
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Labels"},
        "inner": schema.object_openapi(Inner) | {"description": "An inner object"},
        "inners": {
            "type": "array",
            "items": schema.object_openapi(Inner),
            "maxItems": 2,
            "description": "Inner objects",
        },
        "env": None,
    }
    assert schema.object_openapi(Inner)["required"] == ["value"]
    assert schema.object_openapi(Inner)["properties"]["value"]["minLength"] == 1


@pytest.mark.parametrize("name", sorted(kubernetes.definitions()))
def test_every_kubernetes_type_has_a_schema(name):
    properties = kubernetes.definitions()[name].get("properties", {})
    assert schema.schema(name).by_key.keys() == properties.keys()
