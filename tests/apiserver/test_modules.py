"""Our own kinds on both servers: accepted without a warning, and judged as `kmm validate` judges."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml
from apiserver.samples import GROUP, a_module
from generate import modules as generated_modules

from kmm.admission import judge
from kmm.api.crd import custom_resource_definition
from kmm.api.kinds import KINDS
from kmm.api.module import Module, ModuleLoaderContainer, Template, Words
from kmm.api.schema import Text, load, schema
from kmm.catalog import Catalog

COUNT = 400
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.yaml"))


def test_our_definitions_stand_as_they_were_sent(api, definitions):
    for kind in KINDS:
        wanted = custom_resource_definition(kind)
        body = api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{wanted['metadata']['name']}").body
        for key, value in wanted["spec"].items():
            if key != "names":
                assert body["spec"][key] == value, (kind.kind, key)
        status = {each["type"]: each["status"] for each in body["status"]["conditions"]}
        assert status == {"NamesAccepted": "True", "Established": "True"}, "structural, within the budget for CEL"


def test_modules_by_chance_are_judged_alike(api, modules, monkeypatch):
    """What docs/validation.md's table says that only `kmm validate` and the admission function see is left out."""
    for beyond in (Template, Words):
        monkeypatch.setattr(beyond, "_deserialize", Text._deserialize)
    monkeypatch.setattr(type(schema(ModuleLoaderContainer)), "rules_", ())
    root = custom_resource_definition(KINDS[0])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    verdicts = Counter()
    for module in generated_modules(seed=7, count=COUNT, schema=root):
        body = {**module, "metadata": {"name": "m"}}
        ours = [each for each in load(Module, body)[1] if each.severity.value == "error"]
        answer = api.post(modules, body, dryRun="All", fieldValidation="Ignore")
        assert answer.code in (201, 400, 422), answer.body
        assert bool(ours) == (answer.code != 201), (module, ours, answer.body)
        verdicts[answer.code] += 1
    print(f"{COUNT} Modules: {dict(verdicts)}")
    assert min(verdicts[201], verdicts[422]) > COUNT / 10


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_accepted_by_all(api, definitions, namespace, path):
    for body in yaml.safe_load_all(path.read_text()):
        if not body or not str(body.get("apiVersion", "")).endswith("kmm.sigs.x-k8s.io/v1beta1"):
            continue
        kind = next(each for each in KINDS if each.kind == body["kind"])
        body["metadata"].pop("namespace", None)
        where = f"namespaces/{namespace}/" if kind.namespaced else ""
        target = f"/apis/{body['apiVersion']}/{where}{kind.plural}"
        answer = api.post(target, body, dryRun="All", fieldValidation="Strict")
        accepted = not judge(body, Catalog()).errors
        assert (answer.code == 201) or not accepted, answer.body


MISTAKES = {
    "no mapping": ({"moduleLoader": {"container": {"modprobe": {"moduleName": "m"}, "kernelMappings": []}}}, True),
    "no selector": ({"selector": None}, True),
    "both literal and regexp": (
        {
            "moduleLoader": {
                "container": {
                    "modprobe": {"moduleName": "m"},
                    "kernelMappings": [{"literal": "a", "regexp": "b", "containerImage": "x"}],
                }
            }
        },
        True,
    ),
    "a module name with a dash first": (
        {
            "moduleLoader": {
                "container": {
                    "modprobe": {"moduleName": "-m"},
                    "kernelMappings": [{"regexp": "b", "containerImage": "x"}],
                }
            }
        },
        True,
    ),
    "a bad regexp": (
        {
            "moduleLoader": {
                "container": {
                    "modprobe": {"moduleName": "m"},
                    "kernelMappings": [{"regexp": "(", "containerImage": "x"}],
                }
            }
        },
        False,
    ),
    "a toleration without a key but Equal": ({"tolerations": [{"operator": "Equal", "effect": "NoSchedule"}]}, False),
    "an empty string for what is absent": ({"imageRepoSecret": None, "tolerations": []}, False),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen_by_all_who_can_see_it(api, modules, mistake):
    change, refused = MISTAKES[mistake]
    answer = api.post(modules, a_module(**change), dryRun="All")
    assert (answer.code != 201) is refused, answer.body
    if refused:
        assert judge(a_module(**change), Catalog()).errors


def test_version_is_set_for_ever_or_never(api, modules):
    api.post(modules, a_module())
    change = {"spec": {"moduleLoader": {"container": {"version": "1"}}}}
    answer = api.patch(f"{modules}/m", change)
    assert answer.code == 422
    assert "version" in answer.message


def test_every_kind_of_ours_can_be_listed(api, definitions):
    for kind in KINDS:
        assert api.get(f"/apis/{kind.api_version}/{kind.plural}").body["kind"] == f"{kind.kind}List"
    assert GROUP
