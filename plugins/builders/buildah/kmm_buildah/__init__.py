"""Builds a Module's image with buildah, in a Job: what it pulls, builds and pushes, each in its own container."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kmm.contract import Builder, BuildRequest, Finding, Kind, Manifest, Progress, Settings, Severity
from kmm.job import JOB, build_sections, job
from kmm_buildah.architectures import apart, observe
from kmm_buildah.choices import Choices, of_module, of_settings
from kmm_buildah.pod import pod

_NAME = "buildah"


@dataclass(frozen=True, slots=True)
class Buildah:
    """Renders one Job, or one for each architecture of an image that is for several.

    `ignores`: a tag of kaniko's is none of buildah's.
    """

    choices: Choices = field(default_factory=Choices)
    name: str = _NAME
    owns: tuple[Kind, ...] = (JOB,)
    requires: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ("builder_tag",)

    def render(self, request: BuildRequest) -> Sequence[Manifest]:
        """Return the Jobs. The core adds names and labels. Raises ValueError for what a Module asks wrongly."""
        choices = of_module(self.choices, request.params, "build.params")
        return [job(pod(each, choices), choices.job.deadline_s) for each in apart(request)]

    def observe(self, objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
        """Say how far the Jobs have come, and why they failed."""
        return observe(objects, pods)


def kmm_builders(settings: Settings) -> list[Builder]:
    """Offer it, under the name `buildah`. Its options are in the README."""
    return [Buildah(of_settings(settings))]


def kmm_validate_module(module: Manifest) -> list[Finding]:
    """Judge the `build` sections that ask for this builder by its name."""
    return list(_findings(module))


def _findings(module: Manifest) -> Iterator[Finding]:
    for path, build in build_sections(module, _NAME):
        try:
            of_module(Choices(), _map(build.get("params")), "params")
        except ValueError as error:
            yield Finding(path=f"{path}.params", message=str(error))
        if build.get("kanikoParams"):
            message = "only the builder kaniko reads it, this one is buildah"
            yield Finding(path=f"{path}.kanikoParams", message=message, severity=Severity.WARNING)


def _map(value: object) -> Manifest:
    return value if isinstance(value, Mapping) else {}
