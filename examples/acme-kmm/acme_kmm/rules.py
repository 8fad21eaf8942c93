"""What the card can do, and a Module may therefore ask for: `kmm validate` and the operator tell what is found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kmm.contract import Finding, Manifest, Severity

from acme_kmm import params
from acme_kmm.driver import NAME

CARD = "feature.node.kubernetes.io/pci-0200_acce.present"
"""The label by which Node Feature Discovery marks nodes with a card."""

QUEUES = 256
"""How many a card has, for itself and all of its functions together."""

_POWERS = ("1", "2", "4", "8", "16", "32", "64")
_PARAMETERS = "spec.moduleLoader.container.modprobe.parameters"
_PARAMS = "spec.devicePlugin.params"


def judge(module: Manifest) -> Iterator[Finding]:
    """Yield what is wrong with a Module, its driver merged in. Those of other drivers are not ours to judge."""
    spec = module["spec"]
    if spec.get("driver") != NAME:
        return
    if CARD not in (spec.get("selector") or {}):
        message = f'should have {CARD}: "true": a node without a card cannot load the driver'
        yield Finding(path="spec.selector", message=message, severity=Severity.WARNING)
    queues, wrong = _queues(_at(spec, "moduleLoader", "container", "modprobe", "parameters") or [])
    # Another renderer that a user has chosen has parameters of its own.
    ours = _at(spec, "devicePlugin", "renderer") == NAME
    given = (_at(spec, "devicePlugin", "params") if ours else None) or {}
    wrong += [Finding(path=f"{_PARAMS}.{name}", message=message) for name, message in params.problems(given)]
    yield from wrong
    functions = given.get("virtualFunctions", 0)
    if not wrong and queues * (1 + functions) > QUEUES:
        most = QUEUES // queues - 1
        message = f"must be at most {most} with queues={queues}: a card has {QUEUES} queues for all of its functions"
        yield Finding(path=f"{_PARAMS}.virtualFunctions", message=message)


def _queues(parameters: list[str]) -> tuple[int, list[Finding]]:
    """Return how many queues a function gets, and what is wrong with what is said of it."""
    queues, wrong = 1, []
    for index, parameter in enumerate(parameters):
        for word in parameter.split():
            name, _, value = word.partition("=")
            if name != "queues":
                continue
            if value in _POWERS:
                queues = int(value)
            else:
                message = f"queues must be one of {', '.join(_POWERS)}"
                wrong.append(Finding(path=f"{_PARAMETERS}[{index}]", message=message))
    return queues, wrong


def _at(value: Any, *path: str) -> Any:  # noqa: ANN401 -- JSON is Any
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
