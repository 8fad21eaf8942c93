"""Plugins that break one rule each break that rule, and no other."""

from __future__ import annotations

import pytest
from conformance.running import WRONG, conformance

from kmm.conformance import (
    BaseImagesContract,
    BuilderContract,
    DevicePluginContract,
    DriverContract,
    ObservationContract,
    PluginContract,
    RegistryContract,
    SignerContract,
    ValidationContract,
)
from kmm.conformance.contract import rules

ALL = [
    PluginContract,
    BuilderContract,
    SignerContract,
    DevicePluginContract,
    RegistryContract,
    DriverContract,
    BaseImagesContract,
    ValidationContract,
    ObservationContract,
]
RULES = {name.removeprefix("test_").replace("_", "-") for contract in ALL for name in rules(contract)}
OF_HOOKS = (PluginContract, ValidationContract, ObservationContract)
AS_A_WHOLE = {name.removeprefix("test_").replace("_", "-") for contract in OF_HOOKS for name in rules(contract)}
RULES_OF = {
    contract.noun: {name.removeprefix("test_").replace("_", "-") for name in rules(contract)} for contract in OF_HOOKS
}
NOUNS = {contract.noun for contract in OF_HOOKS}
# Together, as a process costs more than what is asked in it.
GROUPS = {"makers": ["makers"], "the rest": ["good", "registries", "drivers", "toolkits", *sorted(AS_A_WHOLE)]}


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_each_breaks_the_rule_it_is_called_after_and_no_other(group, tmp_path):
    found = conformance(tmp_path, *group)
    assert found.code == 1, found.out + found.err
    expected = {}
    for claimed in found.broken():
        plugin, _, of = claimed.partition(", ")
        name = plugin if of in NOUNS else of.rpartition(" ")[2]
        expected[claimed] = [name] if name in RULES_OF.get(of, RULES) else []
    assert found.broken() == expected, found.out
    assert set(group) <= {claimed.partition(",")[0] for claimed in expected}


def test_there_is_one_for_each_rule():
    written = "".join(path.read_text() for path in [*WRONG.glob("*.py"), *WRONG.glob("*/*.txt")])
    assert {rule for rule in RULES if f'"{rule}"' not in written and f"\n{rule} = " not in written} == set()
