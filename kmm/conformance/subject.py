"""The plugin under test: found among the installed ones, and loaded as the operator would, alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kmm.catalog import Catalog, Plugin, Refusal
from kmm.config import read_config
from kmm.contract import Settings
from kmm.errors import ConfigError
from kmm.loader import Installed, find, load_catalog

if TYPE_CHECKING:
    from kmm.conformance.contract import Contract


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A plugin. `value`: what its entry point names; `plugin`: as it was loaded with `settings`, or its `refusal`."""

    name: str
    distribution: str
    version: str
    value: str
    settings: Settings
    catalog: Catalog
    plugin: Plugin | None = None
    refusal: Refusal | None = None

    def offers(self, field: str) -> Sequence[str]:
        """Return the names of what it offers of a kind."""
        return [each.name for each in getattr(self.plugin, field, ())]

    def hook(self, field: str) -> Any:
        """Return a hook of it that offers nothing."""
        found = getattr(self.plugin, field, None)
        if self.refusal:
            pytest.fail(f"{self.name} is refused: {self.refusal.reason}: {self.refusal.message}", pytrace=False)
        if found is None:
            pytest.fail(f"{self.name} has no hook for {field}", pytrace=False)
        return found

    def offered(self, field: str, name: str) -> Any:
        """Return what it offers by that name."""
        found = [each for each in getattr(self.plugin, field, ()) if each.name == name]
        if self.refusal:
            pytest.fail(f"{self.name} is refused: {self.refusal.reason}: {self.refusal.message}", pytrace=False)
        if not found:
            known = ", ".join(self.offers(field)) or "none"
            pytest.fail(f'{self.name} offers no "{name}" among its {field}: {known}', pytrace=False)
        return found[0]


def load(name: str, options: Mapping[str, Any]) -> Subject:
    """Load a plugin, whatever the configuration allows, and no other distribution's. Raises UsageError."""
    return _load(name, json.dumps(options))


@cache
def _load(name: str, options: str) -> Subject:
    installed = _find(name)
    settings = Settings(options=json.loads(options))
    catalog = load_catalog(["*"], lambda _: settings, [installed.distribution])
    return Subject(
        name=name,
        distribution=str(installed.distribution.metadata["Name"]),
        version=installed.distribution.version,
        value=installed.value,
        settings=settings,
        catalog=catalog,
        plugin=next((each for each in catalog.plugins if each.name == name), None),
        refusal=next((each for each in catalog.refusals if each.name == name), None),
    )


def asked(config: pytest.Config, contract: type[Contract]) -> Sequence[tuple[str, ...]]:
    """Return what --kmm-plugin asks of a class of rules: plugins and the names of their offers. Raises UsageError."""
    names = list(dict.fromkeys(config.option.kmm_plugin))
    if not names:
        raise pytest.UsageError("--kmm-plugin NAME says which plugin is asked: `kmm plugins` lists those installed")
    if contract.hook:
        return [
            (name,) for name in names if getattr(load(name, options_of(config, name)).plugin, contract.hook, None)
        ]
    if not contract.field:
        return [(_find(name).name,) for name in names]
    return [(name, offer) for name in names for offer in load(name, options_of(config, name)).offers(contract.field)]


def options_of(config: pytest.Config, plugin: str) -> Mapping[str, Any]:
    """Return the options of a plugin that --kmm-config gives. Raises UsageError."""
    path = config.option.kmm_config
    if not path:
        return {}
    try:
        return read_config({}, Path(path)).plugins.options.get(plugin, {})
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


def _find(name: str) -> Installed:
    try:
        return find(name)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
