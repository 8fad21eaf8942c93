from __future__ import annotations

from typing import Any

import pytest
from kmm.contract import Severity

from acme_kmm import kmm_validate_module
from acme_kmm.rules import CARD

PARAMETERS = "spec.moduleLoader.container.modprobe.parameters"


def module(parameters: list[str] | None = None, **spec: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON
    """Return a Module as the operator hands it over: with its driver merged in."""
    modprobe = {"moduleName": "acme_nic", "parameters": ["queues=8"] if parameters is None else parameters}
    merged = {"driver": "acme", "selector": {CARD: "true"}, "moduleLoader": {"container": {"modprobe": modprobe}}}
    return {"apiVersion": "kmm.sigs.x-k8s.io/v1beta1", "kind": "Module", "metadata": {}, "spec": {**merged, **spec}}


def split(functions: object, port: object = 8085) -> dict[str, Any]:
    return {"renderer": "acme", "params": {"virtualFunctions": functions, "healthPort": port}}


def found(judged: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each.path, each.message) for each in kmm_validate_module(judged)]


def test_a_module_that_the_card_can_do_is_right() -> None:
    assert found(module()) == []
    assert found(module(devicePlugin=split(31))) == []
    assert found(module([], devicePlugin=split(63))) == []
    assert found(module(["queues=64 mode=fast"], devicePlugin={"container": {"image": "i"}})) == []


def test_modules_of_other_drivers_are_not_judged() -> None:
    assert found(module(["queues=7"], driver="other", selector={})) == []
    assert found({"spec": {"selector": {}}}) == []


def test_parameters_of_another_renderer_are_not_ours_to_judge() -> None:
    assert found(module(devicePlugin={"renderer": "daemonset", "params": {"virtualFunctions": 900}})) == []


def test_nodes_without_a_card_are_warned_of() -> None:
    (finding,) = kmm_validate_module(module(selector={"zone": "a"}))
    assert (finding.path, finding.severity) == ("spec.selector", Severity.WARNING)


@pytest.mark.parametrize("word", ["queues=7", "queues=128", "queues=", "queues", "queues=08", "queues=eight"])
def test_queues_are_what_the_card_has(word: str) -> None:
    path = f"{PARAMETERS}[1]"
    assert found(module(["mode=fast", word])) == [(path, "queues must be one of 1, 2, 4, 8, 16, 32, 64")]


@pytest.mark.parametrize("functions", [-1, 64, "4", True, 1.5, None])
def test_functions_are_as_many_as_the_card_has(functions: object) -> None:
    path = "spec.devicePlugin.params.virtualFunctions"
    assert found(module(devicePlugin=split(functions))) == [(path, "must be a whole number from 0 to 63")]


def test_functions_share_the_queues_of_the_card() -> None:
    message = "must be at most 3 with queues=64: a card has 256 queues for all of its functions"
    judged = module(["queues=64"], devicePlugin=split(4))
    assert found(judged) == [("spec.devicePlugin.params.virtualFunctions", message)]


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = {"healthPort": 80, "virtualFunction": 1}
    judged = module(["queues=7"], devicePlugin={"renderer": "acme", "params": wrong}, selector={})
    assert [path.removeprefix("spec.") for path, _ in found(judged)] == [
        "selector",
        PARAMETERS.removeprefix("spec.") + "[0]",
        "devicePlugin.params.healthPort",
        "devicePlugin.params.virtualFunction",
    ]
