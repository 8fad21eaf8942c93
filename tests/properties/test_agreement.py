"""What `kmm validate` and the API server say of 10,000 Modules by chance."""

from __future__ import annotations

from collections import Counter

import pytest
from apiserver_judge import complaints, openapi
from generate import modules

from kmm.admission import judge
from kmm.api.module import KernelMapping, Modprobe, Module, ModuleLoaderContainer, ModuleSpec, Template, Words
from kmm.api.schema import Text, load, schema
from kmm.catalog import Catalog

COUNT = 10_000


@pytest.fixture(scope="module")
def generated():
    return list(modules(seed=20_261_122, count=COUNT, schema=openapi("Module")))


def test_no_module_by_chance_makes_the_judgement_stumble(generated):
    catalog = Catalog()
    verdicts = Counter(bool(judge(module, catalog).errors) for module in generated)
    print(f"accepted {verdicts[False]:,}, refused {verdicts[True]:,}")
    assert min(verdicts.values()) > COUNT / 10


def test_validation_and_the_definition_agree_outside_the_documented_table(generated, monkeypatch):
    # docs/validation.md's table: what these two fields and the rules without CEL check of themselves.
    for beyond in (Template, Words):
        monkeypatch.setattr(beyond, "_deserialize", Text._deserialize)
    monkeypatch.setattr(type(schema(ModuleLoaderContainer)), "rules_", ())
    verdicts: Counter[tuple[bool, bool]] = Counter()
    broken: Counter[str] = Counter()
    for module in generated:
        ours = [each for each in load(Module, module)[1] if each.severity.value == "error"]
        theirs = complaints(module)
        verdicts[bool(ours), bool(theirs)] += 1
        assert bool(ours) == bool(theirs), (module, ours, theirs)
        broken.update(rule.message for rule in RULES if any(rule.message in each for each in theirs))
    print(f"accepted by both {verdicts[False, False]:,}, refused by both {verdicts[True, True]:,}; broken: {broken}")
    assert min(verdicts[False, False], verdicts[True, True]) > COUNT / 10
    assert set(broken) == {rule.message for rule in RULES}, "each rule is broken by some Module"


RULES = (*ModuleSpec.RULES, *Modprobe.RULES, *KernelMapping.RULES)
