"""PreflightValidation and PreflightValidationOCP: whether every Module is ready for a coming kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kmm.api.metadata import ObjectMeta
from kmm.api.module import PATTERN_LONGEST, Condition
from kmm.api.schema import entries, flag, number, part, parts, text


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightValidationSpec:
    """The kernel to check for."""

    kernel_version: str = text(
        "Kernel version that all Modules are checked against", required=True, longest=PATTERN_LONGEST
    )
    push_built_image: bool = flag("Also push the images that are built for the check")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightValidationOCPSpec:
    """The OpenShift release to check for."""

    release_image: str = text("OpenShift release image whose kernel all Modules are checked against", required=True)
    use_rt_kernel: bool = flag("Check the release's real-time kernel instead of its standard one")
    push_built_image: bool = flag("Also push the images that are built for the check")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleVerification:
    """How far the check of one Module has come."""

    verification_status: str = text("Whether the Module is ready", required=True, choices=("True", "False"))
    verification_stage: str = text(
        "What was checked last", required=True, choices=("Image", "Build", "Sign", "Requeued", "Done")
    )
    status_reason: str | None = text("Why, for a person")
    last_transition_time: str | None = text("When this last changed")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightValidationStatus:
    """What was found."""

    observed_generation: int = number("Generation of the specification that this was observed for", bits=64)
    conditions: tuple[Condition, ...] = parts(Condition, "The state, by aspect", key="type")
    cr_statuses: Mapping[str, ModuleVerification] = entries(ModuleVerification, "The state, by Module")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightValidation:
    """Checks whether every Module is ready for a kernel that no node runs yet."""

    metadata: ObjectMeta = part(ObjectMeta, "What Kubernetes keeps about the object", required=True)
    spec: PreflightValidationSpec = part(PreflightValidationSpec, "The kernel to check for", required=True)
    status: PreflightValidationStatus | None = part(PreflightValidationStatus, "What was found")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightValidationOCP:
    """Checks whether every Module is ready for the kernel of an OpenShift release."""

    metadata: ObjectMeta = part(ObjectMeta, "What Kubernetes keeps about the object", required=True)
    spec: PreflightValidationOCPSpec = part(PreflightValidationOCPSpec, "The release to check for", required=True)
    status: PreflightValidationStatus | None = part(PreflightValidationStatus, "What was found")
