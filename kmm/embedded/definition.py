"""CustomResourceDefinitions: served from when they are there, with their objects gone before they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kmm.embedded.builtin import CLEANUP
from kmm.embedded.condition import condition, condition_of
from kmm.embedded.controller import Controller
from kmm.embedded.objects import Deletion, now_text
from kmm.embedded.resource import Resource
from kmm.embedded.storage import Event
from kmm.embedded.structure import Structure
from kmm.embedded.table import printer_columns

_KIND = "CustomResourceDefinition"


def resource_of(definition: Mapping[str, Any]) -> Resource:
    """Return what a CustomResourceDefinition defines: its stored version, which is the one that is served."""
    spec = definition["spec"]
    names = spec["names"]
    version = next(each for each in spec["versions"] if each["storage"])
    return Resource(
        kind=names["kind"],
        plural=names["plural"],
        singular=names.get("singular", names["kind"].lower()),
        short_names=tuple(names.get("shortNames", ())),
        categories=tuple(names.get("categories", ())),
        group=spec["group"],
        version=version["name"],
        namespaced=spec["scope"] == "Namespaced",
        structure=Structure(version["schema"]["openAPIV3Schema"], custom=True),
        status="status" in (version.get("subresources") or {}),
        generation=True,
        custom=True,
        selectable=tuple(each["jsonPath"].lstrip(".") for each in version.get("selectableFields", ())),
        columns=printer_columns(version),
    )


class DefinitionController(Controller):
    """Registers what definitions define, and empties it when they go."""

    def seen(self, event: Event) -> None:
        if event.record.resource.kind == _KIND:
            self.enqueue(event.record.name)
        elif event.kind == "DELETED" and event.record.resource.custom:
            resource = event.record.resource
            self.enqueue(f"{resource.plural}.{resource.group}")

    def sync(self, key: str) -> None:
        record = self.storage.get(self.objects.resource(_KIND), "", key)
        plural, _, group = key.partition(".")
        if record is None:
            self.objects.resources.pop((group, plural), None)
            return
        definition = record.read()
        if record.deleting:
            served = self.objects.resources.get((group, plural))
            left = list(self.storage.records(served)) if served else []
            status = definition.get("status") or {}
            if left and not condition_of(status, "Terminating"):
                message = "CustomResource deletion is in progress"
                added = condition("Terminating", "InstanceDeletionInProgress", message, now_text())
                self.objects.set_status(record, {**status, "conditions": [*status.get("conditions", ()), added]})
            for each in left:
                if not each.deleting:
                    self.objects.delete(each, Deletion(policy="Background"))
            if not left or not list(self.storage.records(left[0].resource)):
                self.objects.release(record, CLEANUP)
            return
        resource = resource_of(definition)
        self.objects.resources[resource.key] = resource
        status = definition.get("status") or {}
        if not status.get("conditions"):
            since = now_text()
            status["conditions"] = [
                condition("NamesAccepted", "NoConflicts", "no conflicts found", since),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted", since),
            ]
        stored = status.get("storedVersions") or []
        status["storedVersions"] = stored if resource.version in stored else [*stored, resource.version]
        status["acceptedNames"] = definition["spec"]["names"]
        self.objects.set_status(record, status)
