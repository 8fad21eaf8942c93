"""ManagedClusterModule: a Module for many clusters, built and signed on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kmm.api.metadata import LABEL_LONGEST, ObjectMeta
from kmm.api.module import Condition, ModuleSpec
from kmm.api.schema import number, part, parts, string_map, text


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedClusterModuleSpec:
    """What to load on which clusters."""

    module_spec: ModuleSpec = part(ModuleSpec, "Specification of the Module on each cluster", required=True)
    spoke_namespace: str | None = text("Namespace of the Module on each cluster", longest=LABEL_LONGEST)
    selector: Mapping[str, str] = string_map(
        "Labels of ManagedClusters, all of which a cluster must have to get the Module", required=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedClusterModuleStatus:
    """How many clusters have it."""

    observed_generation: int = number("Generation of the specification that this was observed for", bits=64)
    number_desired: int = number("Clusters that are to get the Module")
    number_applied: int = number("Clusters that have it")
    number_degraded: int = number("Clusters to which it could not be applied")
    conditions: tuple[Condition, ...] = parts(Condition, "The state, by aspect", key="type")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedClusterModule:
    """Loads a kernel module on the nodes of many clusters."""

    metadata: ObjectMeta = part(ObjectMeta, "What Kubernetes keeps about the object", required=True)
    spec: ManagedClusterModuleSpec = part(ManagedClusterModuleSpec, "What to load on which clusters", required=True)
    status: ManagedClusterModuleStatus | None = part(ManagedClusterModuleStatus, "How many clusters have it")
