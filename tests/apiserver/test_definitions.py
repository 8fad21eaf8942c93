"""CustomResourceDefinitions: registered at run time, then judged by like Kubernetes' own kinds."""

from __future__ import annotations

import pytest
from apiserver.client import TABLE, eventually
from apiserver.conftest import register
from apiserver.samples import DEFINITIONS, a_definition, objects_of

THING = {
    "type": "object",
    "required": ["n"],
    "properties": {
        "n": {"type": "integer", "minimum": 1, "maximum": 9},
        "e": {"type": "string", "enum": ["a", "b"]},
        "p": {"type": "string", "pattern": "^x+$", "minLength": 2, "maxLength": 5},
        "l": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
        "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "m": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {
                "type": "object",
                "required": ["k"],
                "properties": {"k": {"type": "string"}, "v": {"type": "string"}},
            },
        },
        "d": {"type": "string", "default": "given"},
        "o": {"type": "object", "properties": {"x": {"type": "string", "default": "y"}}},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "i": {"x-kubernetes-int-or-string": True},
        "z": {"type": "string", "nullable": True},
        "t": {"type": "string", "format": "date-time"},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "b": {"type": "integer", "format": "int32"},
    },
    "x-kubernetes-validations": [
        {"rule": "!has(self.e) || self.e != 'b' || self.n > 5", "message": "b needs more than 5"},
        {"rule": "self.n >= oldSelf.n", "message": "n only grows"},
    ],
}


@pytest.fixture(scope="module")
def thing(api):
    register(api, a_definition("Thing", THING, subresources={"status": {}}))


@pytest.fixture
def things(thing, api, namespace):
    path = objects_of("Thing", namespace)
    # A definition that is new takes a moment until it takes objects.
    eventually(lambda: api.post(path, a_thing(), dryRun="All").code == 201)
    return path


def a_thing(name="x", **spec):
    return {
        "apiVersion": "thing.example.com/v1",
        "kind": "Thing",
        "metadata": {"name": name},
        "spec": {"n": 3, **spec},
    }


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({}, {}),
        ({"n": 5.0}, {"n": 5}),
        ({"o": {}}, {"o": {"x": "y"}}),
        ({"o": None, "d": None, "z": None}, {"z": None}),
        ({"d": "own"}, {"d": "own"}),
        ({"any": {"a": 1, "b": None, "c": {"d": []}}}, {"any": {"a": 1, "b": None, "c": {"d": []}}}),
        ({"i": "5"}, {"i": "5"}),
        ({"i": 5}, {"i": 5}),
        ({"t": "2026-01-01T00:00:00Z"}, {"t": "2026-01-01T00:00:00Z"}),
        ({"map": {"a": None, "b": "c"}}, {"map": {"b": "c"}}),
        ({"unknown": {"a": 1}, "o": {"x": "1", "y": 2}}, {"o": {"x": "1"}}),
        ({"m": [{"k": "a", "w": 1}, {"k": "b"}]}, {"m": [{"k": "a"}, {"k": "b"}]}),
        ({"n": 6, "e": "b"}, {"n": 6, "e": "b"}),
    ],
)
def test_objects_are_pruned_and_given_their_defaults(api, things, said, kept):
    answer = api.post(things, a_thing(**said))
    assert answer.code == 201, answer.body
    assert answer.body["spec"] == {"n": 3, "d": "given", **kept}


UNCHECKED = (
    "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the "
    "existing errors to complete validation"
)


@pytest.mark.parametrize(
    ("said", "complaint", "reason", "rules"),
    [
        ({"n": None}, "spec.n: Required value", "Required", False),
        ({"n": 0}, "spec.n: Invalid value: 0: spec.n in body should be greater than or equal to 1", "Invalid", True),
        ({"n": 10}, "spec.n: Invalid value: 10: spec.n in body should be less than or equal to 9", "Invalid", True),
        (
            {"n": "a"},
            'spec.n: Invalid value: "string": spec.n in body must be of type integer: "string"',
            "TypeInvalid",
            False,
        ),
        ({"e": "c"}, 'spec.e: Unsupported value: "c": supported values: "a", "b"', "NotSupported", False),
        ({"e": "b"}, "spec: Invalid value: b needs more than 5", "Invalid", True),
        ({"p": "yy"}, "spec.p: Invalid value: \"yy\": spec.p in body should match '^x+$'", "Invalid", True),
        ({"p": "x"}, 'spec.p: Invalid value: "x": spec.p in body should be at least 2 chars long', "Invalid", True),
        ({"p": "xxxxxx"}, "spec.p: Too long: may not be more than 5 bytes", "TooLong", False),
        ({"l": ["a", "b", "c"]}, "spec.l: Too many: 3: must have at most 2 items", "TooMany", False),
        ({"l": []}, "spec.l: Invalid value: 0: spec.l in body should have at least 1 items", "Invalid", True),
        ({"s": ["a", "a"]}, 'spec.s[1]: Duplicate value: "a"', "Duplicate", True),
        ({"m": [{"k": "a"}, {"k": "a", "v": "b"}]}, 'spec.m[1]: Duplicate value: {"k":"a"}', "Duplicate", True),
        ({"m": [{"v": "b"}]}, "spec.m[0].k: Required value", "Required", False),
        (
            {"i": True},
            'spec.i: Invalid value: "boolean": spec.i in body must be of type integer,string: "boolean"',
            "TypeInvalid",
            False,
        ),
        (
            {"t": "yesterday"},
            'spec.t: Invalid value: "yesterday": spec.t in body must be of type date-time: "yesterday"',
            "TypeInvalid",
            False,
        ),
        (
            {"map": {"a": 1}},
            'spec.map.a: Invalid value: "integer": spec.map.a in body must be of type string: "integer"',
            "TypeInvalid",
            False,
        ),
        (
            {"l": "a"},
            'spec.l: Invalid value: "string": spec.l in body must be of type array: "string"',
            "TypeInvalid",
            False,
        ),
        (
            {"l": [None]},
            'spec.l[0]: Invalid value: "null": spec.l[0] in body must be of type string: "null"',
            "TypeInvalid",
            False,
        ),
    ],
)
def test_what_is_wrong_is_said_in_the_same_words(api, things, said, complaint, reason, rules):
    answer = api.post(things, a_thing(**said))
    assert (answer.code, answer.body["reason"]) == (422, "Invalid")
    text = complaint if rules else f"[{complaint}, {UNCHECKED}]"
    assert answer.message == f'Thing.thing.example.com "x" is invalid: {text}'
    cause = answer.body["details"]["causes"][0]
    assert cause["reason"] == f"FieldValue{reason}"
    assert f"{cause['field']}: {cause['message']}" == complaint


def test_everything_wrong_is_said_at_once(api, things):
    answer = api.post(things, a_thing(n=0, e="c", p="y"))
    assert {each["field"] for each in answer.body["details"]["causes"]} == {"spec.n", "spec.e", "spec.p", "<nil>"}


def test_a_number_too_large_for_its_format_is_refused(api, things):
    assert api.post(things, a_thing(b=2**31 - 1)).code == 201
    answer = api.post(things, a_thing("y", b=2**31))
    assert answer.code == 422
    assert answer.body["details"]["causes"][0]["field"] in ("spec.b", "<nil>")


def test_a_rule_can_compare_with_what_was(api, things):
    api.post(things, a_thing())
    answer = api.patch(f"{things}/x", {"spec": {"n": 2}})
    assert answer.message == 'Thing.thing.example.com "x" is invalid: spec: Invalid value: n only grows'
    assert api.patch(f"{things}/x", {"spec": {"n": 4}}).code == 200


def test_another_kind_is_refused(api, things):
    answer = api.post(things, {**a_thing(), "kind": "Other"})
    assert (answer.code, answer.message) == (
        422,
        'Other.thing.example.com "x" is invalid: kind: Invalid value: "Other": must be Thing',
    )
    answer = api.post(things, {"metadata": {"name": "x"}, "spec": {"n": 3}})
    assert answer.code == 400
    assert "Object 'Kind' is missing" in answer.message


def test_without_columns_there_are_name_and_age(api, things):
    api.post(things, a_thing())
    said = api.get(things, accept=TABLE).body
    assert [each["name"] for each in said["columnDefinitions"]] == ["Name", "Age"]


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (
            {"properties": {"a": {"type": "string"}}},
            "properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (
            {"type": "object", "properties": {"a": {}}},
            "properties[spec].properties[a].type: Required value: must not be empty for specified object fields",
        ),
        (
            {"type": "object", "x-kubernetes-validations": [{"rule": "self.nope >", "message": "m"}]},
            "properties[spec].x-kubernetes-validations[0].rule: Invalid value: ",
        ),
    ],
)
def test_a_schema_that_is_not_structural_is_refused(api, schema, complaint):
    answer = api.post(DEFINITIONS, a_definition("Bad", schema))
    assert answer.code == 422
    assert f"spec.validation.openAPIV3Schema.{complaint}" in answer.message


def test_a_definition_is_named_after_what_it_defines(api):
    wrong = a_definition("Bad", {"type": "object"})
    wrong["metadata"]["name"] = "others.bad.example.com"
    answer = api.post(DEFINITIONS, wrong)
    assert answer.message == (
        'CustomResourceDefinition.apiextensions.k8s.io "others.bad.example.com" is invalid: metadata.name: Invalid '
        'value: "others.bad.example.com": must be spec.names.plural+"."+spec.group'
    )


def test_a_definition_says_when_it_is_served(api, thing):
    body = api.get(f"{DEFINITIONS}/things.thing.example.com").body
    conditions = {each["type"]: (each["status"], each["reason"]) for each in body["status"]["conditions"]}
    assert conditions["NamesAccepted"] == ("True", "NoConflicts")
    assert conditions["Established"] == ("True", "InitialNamesAccepted")
    assert body["status"]["storedVersions"] == ["v1"]
    assert body["status"]["acceptedNames"]["plural"] == "things"
    assert body["spec"]["names"]["singular"] == "thing"
    assert body["spec"]["names"]["listKind"] == "ThingList"
    assert body["spec"]["conversion"] == {"strategy": "None"}


def test_a_changed_schema_is_judged_by_at_once(api, namespace):
    register(api, a_definition("Changing", {"type": "object", "properties": {"a": {"type": "string"}}}))
    path = objects_of("Changing", namespace)
    body = {
        "apiVersion": "changing.example.com/v1",
        "kind": "Changing",
        "metadata": {"name": "x"},
        "spec": {"a": "b", "c": "d"},
    }
    made = eventually(lambda: found if (found := api.post(path, body)).code == 201 else None)
    assert made.body["spec"] == {"a": "b"}
    changed = a_definition(
        "Changing",
        {"type": "object", "properties": {"a": {"type": "string", "maxLength": 1}, "c": {"type": "string"}}},
    )
    definition = f"{DEFINITIONS}/changings.changing.example.com"
    version = changed["spec"]["versions"][0]
    assert api.patch(definition, {"spec": {"versions": [version]}}).code == 200
    eventually(lambda: api.patch(f"{path}/x", {"spec": {"c": "e"}}, dryRun="All").body["spec"].get("c") == "e")
    eventually(lambda: api.patch(f"{path}/x", {"spec": {"a": "long"}}, dryRun="All").code == 422)


def test_a_definition_takes_its_objects_along(api, namespace):
    register(api, a_definition("Passing", {"type": "object"}))
    path = objects_of("Passing", namespace)
    body = {"apiVersion": "passing.example.com/v1", "kind": "Passing", "metadata": {"name": "x"}, "spec": {}}
    eventually(lambda: api.post(path, body).code == 201)
    definition = f"{DEFINITIONS}/passings.passing.example.com"
    answer = api.delete(definition)
    assert answer.code == 200
    assert answer.body["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    eventually(lambda: api.get(definition).code == 404, "the definition is gone", within_s=90)
    eventually(lambda: api.get(path).code == 404, "it is no longer served", within_s=90)
