"""A vendor's plugin as its author would write and type it: mypy --strict and pyright accept this file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kmm.contract import (
    Access,
    BaseImages,
    Builder,
    BuildRequest,
    Driver,
    Finding,
    ImageInfo,
    Kind,
    Listing,
    Manifest,
    Progress,
    Record,
    Registry,
    Settings,
    Signer,
    SignRequest,
    State,
    Unavailable,
)

JOB = Kind(api_version="batch/v1", kind="Job", plural="jobs")


@dataclass(frozen=True)
class AcmeBuilder:
    """A frozen dataclass is a renderer: its fields satisfy the protocol's properties."""

    name: str = "acme"
    owns: tuple[Kind, ...] = (JOB,)
    requires: tuple[str, ...] = ("dockerfile",)

    def render(self, request: BuildRequest) -> list[Manifest]:
        return [{"apiVersion": "batch/v1", "kind": "Job", "spec": {"image": request.image}}]

    def observe(self, objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
        return Progress(state=State.RUNNING if objects or pods else State.PENDING)


class AcmeSigner:
    """Class attributes do as well."""

    name = "acme"
    owns = [JOB]
    requires: tuple[str, ...] = ()

    def render(self, request: SignRequest) -> Sequence[Manifest]:
        return [{"apiVersion": "batch/v1", "kind": "Job", "spec": {"files": request.files}}]

    def observe(self, objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
        return Progress(state=State.SUCCEEDED)


class AcmeRegistry:
    name = "acme"
    hosts = ("*.acme.example",)

    def inspect(
        self, image: str, access: Access, deadline_s: float, files: Sequence[str] = (), annotations: bool = False
    ) -> ImageInfo | None:
        if deadline_s < 1:
            raise Unavailable("no time left", retry_after_s=5.0)
        return ImageInfo(digest="sha256:0") if image else None


def kmm_registries(settings: Settings) -> list[Registry]:
    settings.only("mirror")
    return [AcmeRegistry()]


def kmm_builders(settings: Settings) -> list[Builder]:
    return [AcmeBuilder()]


def kmm_signers() -> list[Signer]:
    return [AcmeSigner()]


def kmm_drivers() -> list[Driver]:
    return [Driver(name="acme-nic", spec={"moduleLoader": {"container": {"modprobe": {"moduleName": "acme"}}}})]


class AcmeToolkit:
    """Images of a distribution that nothing in the cluster lists."""

    name = "acme-toolkit"
    argument = "ACME_TOOLKIT"
    listing: Listing | None = None
    release_file = ""

    def images(self, listing: Manifest | None) -> dict[str, str]:
        return {"12": "registry.example.com/acme/toolkit:12"} if listing is None else {}

    def os_version(self, os_image: str) -> str:
        return os_image.removeprefix("Acme Linux ")

    def kernels(self, release: bytes) -> list[str]:
        return [release.decode()]


def kmm_base_images() -> list[BaseImages]:
    return [AcmeToolkit()]


def kmm_validate_module(module: Manifest) -> list[Finding]:
    return [] if module["kind"] == "Module" else [Finding(path="kind", message="must be Module")]


def kmm_observe(record: Record) -> None:
    print(record.at_s, record.action)
