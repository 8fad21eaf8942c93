"""What drivers promise: with them, a Module of a few lines is valid, and a user's word is the last."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from kmm.admission import judge, line
from kmm.catalog import Catalog, build_catalog
from kmm.conformance.contract import Contract, broken, hold
from kmm.conformance.subject import Subject
from kmm.contract import Driver
from kmm.runtime.kinds import MODULE

_OTHER: Mapping[type, Any] = {str: "set-by-the-user", int: 7, float: 7.5, list: ["set-by-the-user"]}


class DriverContract(Contract):
    """A vendor's Module defaults: what `kmm_drivers` offers."""

    field: ClassVar[str] = "drivers"
    noun: ClassVar[str] = "driver"

    @pytest.fixture
    def driver(self, subject: Subject, offer: str) -> Driver:
        """The driver, as the operator has it."""
        found: Driver = subject.offered(self.field, offer)
        return found

    @pytest.fixture
    def spec(self) -> Mapping[str, Any]:
        """What a user writes beside `driver`: a selector, where a subclass does not say."""
        return {"selector": {"node-role.kubernetes.io/worker": ""}}

    @pytest.fixture
    def catalog(self, subject: Subject) -> Catalog:
        """What merges it: without the plugin's own validation, whose rules a guessed Module may break."""
        plugins = [replace(each, validate_module=None) for each in subject.catalog.plugins]
        return build_catalog(plugins)

    def test_the_merged_module_is_valid(self, driver: Driver, spec: Mapping[str, Any], catalog: Catalog) -> None:
        """A Module that names the driver, and has a selector, is valid once its defaults are merged in."""
        module = {
            "apiVersion": MODULE.api_version,
            "kind": MODULE.kind,
            "metadata": {"name": "conformance", "namespace": "drivers"},
            "spec": {**copy.deepcopy(dict(spec)), "driver": driver.name},
        }
        hold(line(each) for each in judge(module, catalog).errors)

    def test_what_a_user_sets_stands(self, driver: Driver, spec: Mapping[str, Any], catalog: Catalog) -> None:
        """Whatever a user sets, of all that the driver has a default for, is in the merged Module as it was set."""
        for path, users in _leaves(driver.spec):
            written = _merged(copy.deepcopy(dict(spec)), path, users)
            whole = catalog.whole_spec({**written, "driver": driver.name})
            if _at(whole, path) != users:
                broken(f"{'.'.join(path)} is set to {users!r}, and merged to {_at(whole, path)!r:.200}")
        whole = catalog.whole_spec({**copy.deepcopy(dict(spec)), "driver": driver.name})
        for key, users in spec.items():
            if not _within(users, whole.get(key)):
                broken(f"{key} is set to {users!r:.200}, and merged to {whole.get(key)!r:.200}")


def _leaves(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path of each default, and something else of its type."""
    for key, below in value.items():
        if isinstance(below, Mapping) and below:
            yield from _leaves(below, (*path, key))
        elif isinstance(below, bool):
            yield (*path, key), not below
        elif type(below) in _OTHER:
            yield (*path, key), _OTHER[type(below)]


def _merged(spec: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    *way, last = path
    branch = spec
    for key in way:
        branch = branch.setdefault(key, {})
    branch[last] = value
    return spec


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _within(users: Any, merged: Any) -> bool:
    if isinstance(users, Mapping) and isinstance(merged, Mapping):
        return all(_within(below, merged.get(key)) for key, below in users.items())
    return bool(users == merged)
