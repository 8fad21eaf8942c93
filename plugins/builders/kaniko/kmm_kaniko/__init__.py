"""Builds images with kaniko: a Job whose container unpacks the base image over itself, and needs no privilege."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
)
from kmm.job import (
    JOB,
    JOB_OPTIONS,
    JobOptions,
    Mounted,
    authorities_mount,
    build_sections,
    docker_config_mount,
    dockerfile_mount,
    is_name,
    job,
    job_options,
    job_params,
    literal,
    need_argument,
    observe_job,
    placement,
    secret_mounts,
    without_empty,
)
from kmm.oci import reference
from kmm.oci.reference import Reference

IMAGE = "ghcr.io/osscontainertools/kaniko:v1.28.3"
"""The maintained fork: the original project was archived in 2025."""

_NAME = "kaniko"
_CONTEXT = "/workspace"
# Whatever is below kaniko's own folder is in no layer.
_CONFIG = "/kaniko/.docker"
_OWN_AUTHORITIES, _AUTHORITIES = "/kaniko/ssl/certs", "/kaniko/ssl/kmm"
# What CRI-O withholds as well: a Dockerfile that builds on OpenShift builds here.
_NOT_NEEDED = ("AUDIT_WRITE", "MKNOD", "NET_RAW", "SYS_CHROOT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kaniko:
    """Renders one Job. `image`: the executor's; `authorities`: a ConfigMap of the Module's namespace, or none."""

    image: Reference = field(default_factory=lambda: reference.parse(IMAGE))
    authorities: str = ""
    options: JobOptions = field(default_factory=JobOptions)
    name: str = _NAME
    owns: tuple[Kind, ...] = (JOB,)
    requires: tuple[str, ...] = ()

    def render(self, request: BuildRequest) -> Sequence[Manifest]:
        """Return the Job. The core adds its name and labels. Raises ValueError for what a Module asks wrongly."""
        options = job_params(request.params, self.options, "build.params")
        mounted = [*self._mounted(request), *secret_mounts(request.secrets)]
        trusted = [{"name": "SSL_CERT_DIR", "value": f"{_OWN_AUTHORITIES}:{_AUTHORITIES}"}]
        container: dict[str, Any] = {
            "name": "kaniko",
            "image": str(_tagged(self.image, request.builder_tag)),
            "args": [literal(each) for each in arguments(request)],
            "env": trusted if self.authorities else [],
            "resources": options.resources,
            "securityContext": {
                "capabilities": {"drop": list(_NOT_NEEDED)},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [each.mount for each in mounted],
        }
        pod = {
            "containers": [without_empty(container)],
            **placement(request),
            # There is nothing to save, and what comes after it waits for its end.
            "terminationGracePeriodSeconds": 1,
            "volumes": [each.volume for each in mounted],
        }
        return [job(pod, options.deadline_s)]

    def observe(self, objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
        """Say how far the Job has come, and why it failed."""
        return observe_job(objects, pods)

    def _mounted(self, request: BuildRequest) -> Iterator[Mounted]:
        yield dockerfile_mount(request, _CONTEXT)
        if request.push_secret:
            yield docker_config_mount(request.push_secret, _CONFIG)
        if self.authorities:
            yield authorities_mount(self.authorities, _AUTHORITIES)


def arguments(request: BuildRequest) -> Iterator[str]:
    """Yield kaniko's arguments: flags that every release since 1.0 has, as a Module may name any.

    Raises ValueError for a build argument that would be another one, or none.
    """
    # It may not recognise a container without a service account's token as one.
    yield from ("--force", "--log-format=text")
    yield f"--context=dir://{_CONTEXT}"
    yield f"--dockerfile={_CONTEXT}/Dockerfile"
    yield f"--destination={request.image}" if request.image else "--no-push"
    flags = {
        "--insecure": request.push_tls.insecure,
        "--skip-tls-verify": request.push_tls.skip_verify,
        "--insecure-pull": request.base_tls.insecure,
        "--skip-tls-verify-pull": request.base_tls.skip_verify,
    }
    yield from (flag for flag, wanted in flags.items() if wanted)
    if request.inputs:
        yield f"--label={INPUTS_ANNOTATION}={request.inputs}"
    for arg in request.args:
        need_argument(arg)
        yield f"--build-arg={arg.name}={arg.value}"


def kmm_builders(settings: Settings) -> list[Builder]:
    """Offer it, under the name `kaniko`. Options: `image`, `caConfigMap`, `activeDeadlineSeconds`, `resources`."""
    given = settings.only("image", "caConfigMap", *JOB_OPTIONS)
    try:
        return [
            Kaniko(
                image=_reference(given.get("image", settings.images.get("build", IMAGE))),
                authorities=_config_map(given.get("caConfigMap")),
                options=job_options(given, JobOptions(), "plugins.options.kaniko"),
            )
        ]
    except ValueError as error:
        raise SettingsError(str(error)) from None


def kmm_validate_module(module: Manifest) -> list[Finding]:
    """Judge the `build` sections that ask for this builder by its name."""
    return list(_findings(module))


def _findings(module: Manifest) -> Iterator[Finding]:
    for path, build in build_sections(module, _NAME):
        try:
            job_params(_map(build.get("params")), JobOptions(), "params")
        except ValueError as error:
            yield Finding(path=f"{path}.params", message=str(error))
        tag = _map(build.get("kanikoParams")).get("tag")
        try:
            reference.parse(IMAGE).with_tag(tag if tag and isinstance(tag, str) else "latest")
        except reference.ReferenceError as error:
            yield Finding(path=f"{path}.kanikoParams.tag", message=str(error))


def _tagged(image: Reference, tag: str | None) -> Reference:
    try:
        return image.with_tag(tag) if tag else image
    except reference.ReferenceError as error:
        raise ValueError(f"build.kanikoParams.tag: {error}") from None


def _map(value: object) -> Manifest:
    return value if isinstance(value, Mapping) else {}


def _reference(image: object) -> Reference:
    if not isinstance(image, str):
        raise SettingsError(f"image: must be an image, such as {IMAGE}")
    try:
        return reference.parse(image)
    except reference.ReferenceError as error:
        raise SettingsError(f"image: {error}") from None


def _config_map(name: object) -> str:
    if name is not None and not is_name(name):
        raise SettingsError("plugins.options.kaniko.caConfigMap: must be the name of a ConfigMap")
    return str(name or "")
