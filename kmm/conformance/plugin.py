"""What every plugin promises, whatever it offers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from kmm.conformance.child import answer
from kmm.conformance.contract import Contract, broken, unjudged
from kmm.conformance.subject import Subject, load
from kmm.core.reasons import Reason

_IMPORT_S = 0.2
_TRIES = 3  # the first may have to compile it
_UNKNOWN = "conformanceTestsThis"
_OF_SETTINGS = (Reason.BAD_SETTINGS, Reason.HOOK_RAISED)
_OFFERING = ("registries", "builders", "signers", "device_plugins", "drivers", "base_images")


class PluginContract(Contract):
    """The plugin as a whole: how it is imported, and what it makes of its settings."""

    def test_it_is_not_refused(self, subject: Subject) -> None:
        """The operator takes it: its hooks are known, and what they return is what the contract says."""
        refusal = subject.refusal
        if refusal and (refusal.reason not in _OF_SETTINGS or subject.settings.options):
            broken(f"{refusal.reason}: {refusal.message}")

    def test_it_works_without_settings(self, subject: Subject) -> None:
        """It works where the configuration has nothing for it: settings are optional."""
        refusal = load(subject.name, {}).refusal
        if refusal and refusal.reason in _OF_SETTINGS:
            broken(f"without settings: {refusal.message}")
        if refusal:
            unjudged("it is refused without that")

    def test_it_refuses_unknown_settings_by_name(self, subject: Subject) -> None:
        """A setting that it does not know is refused with a SettingsError that names it, as `Settings.only` does."""
        if subject.refusal or load(subject.name, {}).refusal:
            unjudged("it is refused without that")
        if not any(subject.offers(field) for field in _OFFERING):
            unjudged("no hook of it is given settings")
        refusal = load(subject.name, {**subject.settings.options, _UNKNOWN: True}).refusal
        if refusal is None:
            broken(f'the setting "{_UNKNOWN}" is taken without a word')
        if refusal.reason != Reason.BAD_SETTINGS or _UNKNOWN not in refusal.message:
            broken(f'the setting "{_UNKNOWN}" is refused with {refusal.reason}: {refusal.message}')

    def test_nothing_is_started_by_its_import(self, subject: Subject) -> None:
        """To import it starts nothing, not for a moment: no thread, no process, no connection."""
        if subject.refusal and subject.refusal.reason not in _OF_SETTINGS:
            unjudged("it is refused")
        found = imported(subject.value, 0)
        left = [f"{len(each)} {what}" for what, each in found["started"].items() if each]
        if left:
            broken(f"after its import there are {' and '.join(left)} more")
        if found["began"]:
            broken(f"its import starts {' and '.join(found['began'])}")

    def test_its_import_is_quick(self, subject: Subject) -> None:
        """To import it costs less than 200 ms of CPU, beside what the operator has imported already."""
        if subject.refusal and subject.refusal.reason not in _OF_SETTINGS:
            unjudged("it is refused")
        costs = []
        for number in range(_TRIES):
            costs.append(imported(subject.value, number)["cpuS"])
            if costs[-1] < _IMPORT_S:
                return
        broken(f"its import costs {min(costs) * 1000:.0f} ms of CPU")


@cache
def imported(value: str, number: int) -> Mapping[str, Any]:
    """Return what a process of its own says of the import: the `number`-th of them."""
    del number
    found: Mapping[str, Any] = answer("importing", {"value": value}, {})
    return found
