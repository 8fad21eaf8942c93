"""Builds a Module's image with OpenShift's own builds: a Build, whose pod OpenShift makes and answers for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kmm.contract import (
    INPUTS_ANNOTATION,
    Builder,
    BuildRequest,
    Finding,
    Kind,
    Manifest,
    Progress,
    Settings,
    SettingsError,
    Severity,
)
from kmm.job import (
    JOB_OPTIONS,
    JobOptions,
    build_sections,
    job_options,
    job_params,
    need_argument,
    placement,
    secret_mounts,
    without_empty,
)
from kmm.oci import reference
from kmm_openshift_build.phase import observe

# Whoever makes a Build needs the right to its strategy too.
BUILD = Kind(api_version="build.openshift.io/v1", kind="Build", plural="builds", creating=("docker",))

_NAME = "openshift-build"
# The account that OpenShift makes in each namespace, with the right to push to the namespace's own images.
_ACCOUNT = "builder"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenShiftBuild:
    """Renders one Build. `ignores`: what OpenShift configures for the whole cluster, and a Build has no field for."""

    options: JobOptions = field(default_factory=JobOptions)
    name: str = _NAME
    owns: tuple[Kind, ...] = (BUILD,)
    requires: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ("base_tls", "push_tls", "builder_tag")

    def render(self, request: BuildRequest) -> Sequence[Manifest]:
        """Return the Build. The core adds its name and labels. Raises ValueError for what a Module asks wrongly."""
        options = job_params(request.params, self.options, "build.params")
        credentials = {"name": request.push_secret} if request.push_secret else None
        strategy = {
            "pullSecret": credentials if _pulls_with_it(request) else None,
            "buildArgs": list(_arguments(request)),
            "volumes": list(_volumes(request)),
        }
        spec = {
            "serviceAccount": _ACCOUNT,
            "source": {"type": "Dockerfile", "dockerfile": request.dockerfile},
            "strategy": {"type": "Docker", "dockerStrategy": without_empty(strategy)},
            "output": _output(request, credentials),
            "resources": options.resources,
            "completionDeadlineSeconds": options.deadline_s,
            "nodeSelector": placement(request)["nodeSelector"],
            # The authorities of the cluster's proxy, where it has one.
            "mountTrustedCA": True,
        }
        return [{"apiVersion": BUILD.api_version, "kind": BUILD.kind, "spec": without_empty(spec)}]

    def observe(self, objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
        """Say how far the Build has come, and why it failed."""
        return observe(objects, pods)


def kmm_builders(settings: Settings) -> list[Builder]:
    """Offer it, under the name `openshift-build`. Options: `activeDeadlineSeconds`, `resources`."""
    given = settings.only(*JOB_OPTIONS)
    try:
        return [OpenShiftBuild(options=job_options(given, JobOptions(), f"plugins.options.{_NAME}"))]
    except ValueError as error:
        raise SettingsError(str(error)) from None


def kmm_validate_module(module: Manifest) -> list[Finding]:
    """Judge the `build` sections that ask for this builder by its name."""
    return list(_findings(module))


def _findings(module: Manifest) -> Iterator[Finding]:
    for path, build in build_sections(module, _NAME):
        params = build.get("params")
        try:
            job_params(params if isinstance(params, Mapping) else {}, JobOptions(), "params")
        except ValueError as error:
            yield Finding(path=f"{path}.params", message=str(error))
        for key, instead in _INSTEAD.items():
            if build.get(key):
                message = f"is not used: a Build of OpenShift's has no field for it; {instead}"
                yield Finding(path=f"{path}.{key}", message=message, severity=Severity.WARNING)


_INSTEAD = {
    "baseImageRegistryTLS": "the cluster's image.config.openshift.io says how registries are reached",
    "kanikoParams": "only the builder kaniko reads it",
}


def _arguments(request: BuildRequest) -> Iterator[Manifest]:
    for arg in request.args:
        need_argument(arg)
        yield {"name": arg.name, "value": arg.value}


def _pulls_with_it(request: BuildRequest) -> bool:
    """Whether the Module's credentials are what is pulled with too.

    For a registry they take the place of the nodes' own, with which alone the driver toolkit can be pulled.
    """
    pushed_to = _host(request.image) if request.image else ""
    return not any(pushed_to in ("", _host(each)) for each in request.base_images)


def _host(image: str) -> str:
    try:
        return reference.parse(image).host
    except reference.ReferenceError:
        return ""


def _volumes(request: BuildRequest) -> Iterator[Manifest]:
    """Yield the build's Secrets as volumes of RUN: they are in no layer."""
    for each in secret_mounts(request.secrets):
        yield {
            "name": each.volume["name"],
            "source": {"type": "Secret", "secret": each.volume["secret"]},
            "mounts": [{"destinationPath": each.mount["mountPath"]}],
        }


def _output(request: BuildRequest, credentials: Manifest | None) -> Manifest:
    if request.image is None:
        return {}
    labels = [{"name": INPUTS_ANNOTATION, "value": request.inputs}] if request.inputs else []
    output = {
        "to": {"kind": "DockerImage", "name": request.image},
        "pushSecret": credentials,
        "imageLabels": labels,
    }
    return without_empty(output)
