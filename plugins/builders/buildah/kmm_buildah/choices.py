"""What an administrator and a Module may choose about a build: read, checked and put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kmm.contract import Settings, SettingsError
from kmm.job import JOB_OPTIONS, JobOptions, is_name, job_options, refuse_unknown
from kmm.oci import reference

IMAGE = "quay.io/containers/buildah:v1.43.1"
"""That of the containers project, built with each release of buildah."""

_SELINUX_TYPE = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """How a build runs. `authorities`: a ConfigMap of the Module's namespace; `cache`: a repository for layers."""

    image: str = IMAGE
    privileged: bool = False
    host_users: bool = True
    selinux_type: str = ""
    authorities: str = ""
    cache: str = ""
    job: JobOptions = field(default_factory=JobOptions)


def of_settings(settings: Settings) -> Choices:
    """Return what the operator's configuration chooses. Raises SettingsError, naming the option."""
    options = settings.only(*_OPTIONS, *JOB_OPTIONS)
    image = settings.images.get("buildah", IMAGE)
    if not _is_image(image):
        raise SettingsError(f"RELATED_IMAGES_BUILDAH: must be an image, such as {IMAGE}")
    try:
        return _chosen(Choices(image=image), options, _OPTIONS, "plugins.options.buildah")
    except ValueError as error:
        raise SettingsError(str(error)) from None


def of_module(choices: Choices, params: Mapping[str, Any], where: str) -> Choices:
    """Return `choices` with what a Module's params choose. Raises ValueError, naming the param."""
    refuse_unknown(params, (*_PARAMS, *JOB_OPTIONS), where)
    return _chosen(choices, params, _PARAMS, where)


def _chosen(choices: Choices, given: Mapping[str, Any], known: Mapping[str, _Choice], where: str) -> Choices:
    for key, (name, fits, what) in known.items():
        if key in given:
            if not fits(given[key]):
                raise ValueError(f"{where}.{key}: must be {what}")
            choices = replace(choices, **{name: given[key]})
    return replace(choices, job=job_options(given, choices.job, where))


def _is_image(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(reference.parse(value))
    except reference.ReferenceError:
        return False


def _is_repository(value: object) -> bool:
    if not isinstance(value, str) or not _is_image(value):
        return False
    parsed = reference.parse(value)
    return bool(parsed.domain) and parsed.repository == value


def _is_selinux_type(value: object) -> bool:
    return isinstance(value, str) and _SELINUX_TYPE.fullmatch(value) is not None


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


_Choice = tuple[str, Callable[[object], bool], str]
_PARAMS: Mapping[str, _Choice] = {
    "caConfigMap": ("authorities", is_name, "the name of a ConfigMap"),
    "cache": ("cache", _is_repository, "a repository with its registry and no tag, such as registry:5000/cache"),
}
_OPTIONS: Mapping[str, _Choice] = {
    **_PARAMS,
    "hostUsers": ("host_users", _is_flag, "true or false"),
    "image": ("image", _is_image, f"an image, such as {IMAGE}"),
    "privileged": ("privileged", _is_flag, "true or false"),
    "seLinuxType": ("selinux_type", _is_selinux_type, "an SELinux type, such as container_engine_t"),
}
