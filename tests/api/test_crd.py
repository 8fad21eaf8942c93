from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml
from apiserver_judge import complaints, openapi

from kmm.api.crd import custom_resource_definition
from kmm.api.kinds import KINDS
from kmm.api.module import Modprobe, ModuleSpec
from kmm.embedded.structure import program

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def walk(schema, path=""):
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from walk(below, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}[]")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
class TestEachDefinition:
    def test_names_scope_and_subresource(self, kind):
        crd = custom_resource_definition(kind)
        (version,) = crd["spec"]["versions"]
        assert crd["metadata"]["name"] == f"{kind.plural}.{kind.group}"
        assert version["subresources"] == {"status": {}}
        assert version["name"] == "v1beta1"
        assert {"Ready", "Age"} <= {column["name"] for column in version["additionalPrinterColumns"]}

    def test_every_field_of_ours_has_a_type_and_a_description(self, kind):
        for path, schema in walk(openapi(kind.kind)):
            assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
            assert "$ref" not in schema, path
            if path and not path.endswith("[]") and "volumeClaimTemplate" not in path:
                assert schema.get("description") or path == ".metadata", path

    def test_nothing_but_params_keeps_unknown_fields(self, kind):
        for path, schema in walk(openapi(kind.kind)):
            if "x-kubernetes-preserve-unknown-fields" in schema:
                assert path.endswith(".params")

    def test_it_is_structural(self, kind):
        for path, schema in walk(openapi(kind.kind)):
            assert not ("properties" in schema and "additionalProperties" in schema), path
            if schema.get("type") == "array":
                assert "items" in schema, path
            if schema.get("x-kubernetes-list-type") == "map":
                (key,) = schema["x-kubernetes-list-map-keys"]
                assert key in schema["items"]["required"], path

    def test_kubectl_apply_can_keep_it_in_its_annotation(self, kind):
        assert len(json.dumps(custom_resource_definition(kind))) < 262_144

    def test_every_rule_compiles(self, kind):
        for _, schema in walk(openapi(kind.kind)):
            for rule in schema.get("x-kubernetes-validations", ()):
                program(rule["rule"])


def test_short_names_and_odd_plural():
    named = {kind.kind: custom_resource_definition(kind)["spec"]["names"] for kind in KINDS}
    assert named["PreflightValidation"]["shortNames"] == ["pfv"]
    assert named["PreflightValidationOCP"]["shortNames"] == ["pfvo"]
    assert named["PreflightValidationOCP"]["plural"] == "preflightvalidationsocp"


def test_what_users_look_up_with_kubectl_explain_is_there():
    field = openapi("Module")
    for step in ["spec", "devicePlugin", "container", "env"]:
        field = field["properties"][step]
    assert "fieldRef" in field["items"]["properties"]["valueFrom"]["properties"]


def test_limits_and_defaults_are_in_the_schema():
    container = openapi("Module")["properties"]["spec"]["properties"]["moduleLoader"]["properties"]["container"]
    mappings = container["properties"]["kernelMappings"]
    assert (mappings["minItems"], mappings["maxItems"]) == (1, 1024)
    assert mappings["items"]["properties"]["regexp"]["maxLength"] == 1024
    assert container["properties"]["modprobe"]["properties"]["dirName"]["default"] == "/opt"
    assert container["properties"]["imagePullPolicy"]["enum"] == ["Always", "IfNotPresent", "Never", ""]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_api_server_would_accept_our_examples(path):
    checked = [each for each in yaml.safe_load_all(path.read_text()) if each["kind"] in {k.kind for k in KINDS}]
    assert checked
    for manifest in checked:
        assert complaints(manifest) == []


def with_version(version):
    container = {"modprobe": {"moduleName": "a"}, "kernelMappings": [{"literal": "6", "containerImage": "a"}]}
    if version is not None:
        container["version"] = version
    return {"kind": "Module", "spec": {"selector": {}, "moduleLoader": {"container": container}}}


@pytest.mark.parametrize("old", [None, "", "1", "2"])
@pytest.mark.parametrize("new", [None, "", "1", "2"])
def test_version_may_change_but_neither_come_nor_go(old, new):
    (rule,) = ModuleSpec.TRANSITIONS
    allowed = bool(old) == bool(new)
    assert rule.allowed(with_version(old)["spec"], with_version(new)["spec"]) == allowed
    assert bool(complaints(with_version(new), with_version(old))) == (not allowed)


def test_version_stays_even_where_the_loader_comes_or_goes():
    (rule,) = ModuleSpec.TRANSITIONS
    bare = {"kind": "Module", "spec": {"selector": {}, "driver": "acme"}}
    versioned = with_version("1")
    versioned["spec"]["driver"] = "acme"
    assert not rule.allowed(bare["spec"], versioned["spec"])
    assert complaints(versioned, bare)
    assert rule.allowed(bare["spec"], with_version(None)["spec"])
    assert not complaints(with_version(None), bare)


def test_a_rule_and_its_cel_judge_alike_with_and_without_a_driver():
    modprobes = [
        {},
        {"moduleName": ""},
        {"moduleName": "a"},
        {"rawArgs": {"load": ["x"]}},
        {"rawArgs": {"load": ["x"], "unload": ["y"]}},
    ]
    for modprobe in modprobes:
        for order in ({}, {"modulesLoadingOrder": ["a", "b"]}, {"modulesLoadingOrder": ["b", "a"]}):
            for driver in ({}, {"driver": ""}, {"driver": "acme"}):
                manifest = copy.deepcopy(with_version(None))
                manifest["spec"] |= driver
                manifest["spec"]["moduleLoader"]["container"]["modprobe"] = {**modprobe, **order}
                said = [
                    *(each for rule in ModuleSpec.RULES for each in rule.offences(manifest["spec"])),
                    *(each for rule in Modprobe.RULES for each in rule.offences({**modprobe, **order})),
                ]
                assert bool(said) == bool(complaints(manifest)), manifest


def test_a_device_plugin_and_its_cel_are_judged_alike_with_and_without_a_driver():
    plugins = [
        {},
        {"params": {"a": 1}},
        {"container": {}},
        {"container": {"image": ""}},
        {"container": {"image": "a"}},
    ]
    for plugin in plugins:
        for driver in ({}, {"driver": ""}, {"driver": "acme"}):
            manifest = copy.deepcopy(with_version(None))
            manifest["spec"] |= {"devicePlugin": plugin, **driver}
            said = [each for rule in ModuleSpec.RULES for each in rule.offences(manifest["spec"])]
            assert bool(said) == bool(complaints(manifest)), manifest
            assert bool(said) == (not driver.get("driver") and plugin != plugins[-1])
