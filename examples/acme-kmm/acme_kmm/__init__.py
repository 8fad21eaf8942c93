"""What kmm-operator has to know of Acme's network cards: the hooks. What they do is in the files beside."""

from __future__ import annotations

from collections.abc import Sequence

from kmm.contract import DevicePlugin, Driver, Finding, Manifest, Record, Settings

from acme_kmm import driver, metrics, rules
from acme_kmm.device_plugin import AcmeDevicePlugin
from acme_kmm.options import read


def kmm_drivers(settings: Settings) -> Sequence[Driver]:
    """Offer the driver: a Module with `driver: acme` is whole with a selector."""
    return [driver.of(read(settings))]


def kmm_device_plugins() -> Sequence[DevicePlugin]:
    """Offer what runs its device plugin. It has no options, so that it takes no settings."""
    return [AcmeDevicePlugin()]


def kmm_validate_module(module: Manifest) -> Sequence[Finding]:
    """Judge Modules with this driver by what the card can do."""
    return list(rules.judge(module))


def kmm_observe(record: Record) -> None:
    """Count what the operator does for Modules with this driver."""
    metrics.count(record)
