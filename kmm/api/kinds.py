"""The kinds that users write, and how the API server shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kmm.api.managedclustermodule import ManagedClusterModule
from kmm.api.metadata import GROUP, HUB_GROUP, VERSION
from kmm.api.module import Module
from kmm.api.preflight import PreflightValidation, PreflightValidationOCP


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    doc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKind:
    """One kind. `model`: the dataclass of a whole object."""

    model: type[Any]
    plural: str
    group: str = GROUP
    namespaced: bool = False
    short_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()

    @property
    def kind(self) -> str:
        """What `kind:` says."""
        return self.model.__name__

    @property
    def api_version(self) -> str:
        """What `apiVersion:` says."""
        return f"{self.group}/{VERSION}"


_READY = Column(
    name="Ready",
    path='.status.conditions[?(@.type=="Ready")].status',
    doc="Whether all is as the specification wants",
)
_REASON = Column(name="Reason", path='.status.conditions[?(@.type=="Ready")].reason', doc="Why, in one word")
_AGE = Column(name="Age", path=".metadata.creationTimestamp", type="date")

KINDS = (
    ApiKind(
        model=Module,
        plural="modules",
        namespaced=True,
        columns=(
            _READY,
            _REASON,
            Column(
                name="Nodes",
                path=".status.moduleLoader.nodesMatchingSelectorNumber",
                type="integer",
                doc="Nodes that the Module targets",
            ),
            Column(
                name="Desired",
                path=".status.moduleLoader.desiredNumber",
                type="integer",
                doc="Those of them whose kernel has a mapping",
            ),
            Column(
                name="Loaded",
                path=".status.moduleLoader.availableNumber",
                type="integer",
                doc="Those of them where the kernel module is loaded",
            ),
            Column(
                name="Device-Plugins",
                path=".status.devicePlugin.availableNumber",
                type="integer",
                wide=True,
                doc="Nodes where the device plugin runs",
            ),
            Column(name="Version", path=".spec.moduleLoader.container.version", wide=True),
            _AGE,
        ),
    ),
    ApiKind(
        model=PreflightValidation,
        plural="preflightvalidations",
        short_names=("pfv",),
        columns=(Column(name="Kernel", path=".spec.kernelVersion"), _READY, _REASON, _AGE),
    ),
    ApiKind(
        model=PreflightValidationOCP,
        plural="preflightvalidationsocp",
        short_names=("pfvo",),
        columns=(Column(name="Release", path=".spec.releaseImage"), _READY, _REASON, _AGE),
    ),
    ApiKind(
        model=ManagedClusterModule,
        plural="managedclustermodules",
        group=HUB_GROUP,
        columns=(
            _READY,
            _REASON,
            Column(
                name="Desired",
                path=".status.numberDesired",
                type="integer",
                doc="Clusters that are to get the Module",
            ),
            Column(name="Applied", path=".status.numberApplied", type="integer", doc="Clusters that have it"),
            Column(
                name="Degraded",
                path=".status.numberDegraded",
                type="integer",
                doc="Clusters to which it could not be applied",
            ),
            _AGE,
        ),
    ),
)

KIND_BY_NAME = {kind.kind: kind for kind in KINDS}
