from __future__ import annotations

from kmm.contract import ModuleRef, Record
from prometheus_client import REGISTRY

from acme_kmm import kmm_observe


def record(action: str, driver: str, reason: str = "") -> Record:
    module = ModuleRef(namespace="drivers", name="nic")
    return Record(
        at_s=1.0, action=action, kind="", namespace="drivers", name="nic", module=module, driver=driver, reason=reason
    )


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"{name}_total", labels) or 0.0


def test_what_is_done_for_our_driver_is_counted() -> None:
    before = value("acme_driver_actions", action="Create")
    kmm_observe(record("Create", "acme"))
    assert value("acme_driver_actions", action="Create") == before + 1


def test_what_is_told_of_it_is_counted_by_its_reason() -> None:
    before = value("acme_driver_events", reason="LoadFailed")
    kmm_observe(record("Announce", "acme", "LoadFailed"))
    assert value("acme_driver_events", reason="LoadFailed") == before + 1


def test_what_is_done_for_others_is_not() -> None:
    before = value("acme_driver_actions", action="Replace")
    kmm_observe(record("Replace", "other"))
    kmm_observe(record("Replace", ""))
    assert value("acme_driver_actions", action="Replace") == before
