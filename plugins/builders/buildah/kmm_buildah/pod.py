"""The pod of a build. Its containers run one after the other on a storage that they share.

`pull` has the credentials, and gets the base images; `build` has the Dockerfile and the build's Secrets, and no
credentials, since it runs what a Dockerfile says; `push` has the credentials again, and so has `index`, which puts
several architectures together. With a cache, buildah needs the credentials while it builds: then there is no `pull`,
and what keeps RUN from them is buildah's chroot alone. RUN therefore cannot change its root: who can, leaves any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from typing import Any

from kmm.contract import INPUTS_ANNOTATION, BuildRequest, Manifest, SecretFiles, Tls
from kmm.job import (
    SECRETS,
    Mounted,
    authorities_mount,
    dockerfile_mount,
    literal,
    need_argument,
    placement,
    secret_mounts,
    without_empty,
)
from kmm.oci import reference
from kmm_buildah.architectures import images
from kmm_buildah.choices import Choices
from kmm_buildah.dockerfile import base_images, secrets_as_files

_STEP = files("kmm_buildah").joinpath("step.sh").read_text(encoding="utf-8")
_BUILT = "localhost/kmm-built"
_SECRET_KEY = re.compile(r"[-._A-Za-z0-9]+")
# As docker has it: what names no registry is on Docker Hub, whatever the builder's image thinks.
_REGISTRIES = 'unqualified-search-registries = ["docker.io"]'
# The user `build` of buildah's images, for whom they set subordinate ids aside.
_USER = 1000
# Where /etc/passwd says that they are at home: buildah's own processes do not all heed $HOME.
_HOME, _HOME_OF_ROOT = "/home/build", "/root"
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 -- the container's own
_AUTHORITIES, _PULLED = "/kmm/ca", "/kmm/pulled"
_UNCONFINED = {"type": "Unconfined"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One container: what `step.sh` is told, and what it has mounted beside what all have."""

    name: str
    args: Sequence[str]
    mounted: Sequence[Mounted] = ()


def pod(request: BuildRequest, choices: Choices) -> dict[str, Any]:
    """Return the specification of the pod. Raises ValueError for arguments or Secrets that cannot be meant."""
    shared = [authorities_mount(choices.authorities, _AUTHORITIES)] if choices.authorities else []
    home = _HOME_OF_ROOT if choices.privileged else _HOME
    env = {"HOME": home, "REGISTRIES": _registries(request, choices)}
    if choices.privileged and not choices.host_users:
        env["OWN_USERS_ONLY"] = "true"
    volumes: dict[str, Manifest] = {}
    containers: list[Manifest] = []
    for step in _steps(request, choices, home):
        own = [_folder(f"own-{step.name}", path) for path in (home, *_TEMPORARY)]
        mounted = [*shared, *own, *step.mounted]
        volumes |= {each.volume["name"]: each.volume for each in mounted}
        container = {
            "name": step.name,
            "image": choices.image,
            "command": ["/bin/sh", "-c", _STEP, "kmm"],
            "args": [literal(each) for each in step.args],
            "env": [{"name": name, "value": literal(value)} for name, value in env.items()],
            "workingDir": home,
            "resources": choices.job.resources,
            "securityContext": _security(choices),
            "volumeMounts": [each.mount for each in mounted],
        }
        containers.append(without_empty(container))
    return {
        "initContainers": containers[:-1],
        "containers": containers[-1:],
        **placement(request),
        # There is nothing to save, and what comes after it waits for its end.
        "terminationGracePeriodSeconds": 1,
        "hostUsers": None if choices.host_users else False,
        "volumes": list(volumes.values()),
    }


def _steps(request: BuildRequest, choices: Choices, home: str) -> Iterator[_Step]:
    for each in request.args:
        need_argument(each)
    args = {each.name: each.value for each in request.args}
    credentials = [_credentials(request.push_secret)] if request.push_secret else []
    storage = _folder("storage", "/kmm/storage")
    cached = _is_cached(request, choices)
    bases = base_images(request.dockerfile, args, request.architecture)
    pulled: list[Mounted] = []
    if credentials and bases and not cached:
        flags = _registry_flags(request.base_tls, choices)
        mounted = [storage, _folder("pulled", _PULLED), *credentials]
        yield _Step(name="pull", args=["pull", *flags, "--", *bases], mounted=mounted)
        pulled = [_folder("pulled", _PULLED, read_only=True)]
    build = [
        "build",
        "--isolation=chroot",
        "--cap-drop=CAP_SYS_CHROOT",
        "--pull=missing",
        "--file=/kmm/dockerfile/Dockerfile",
        f"--tag={_BUILT}",
        *([f"--label={INPUTS_ANNOTATION}={request.inputs}"] if request.inputs else []),
        *(["--layers", f"--cache-from={choices.cache}", f"--cache-to={choices.cache}"] if cached else []),
        *_registry_flags(request.base_tls, choices),
        *(f"--build-arg={name}={value}" for name, value in args.items()),
        *_secret_flags(request.secrets, secrets_as_files(request.dockerfile)),
        f"{home}/context",
    ]
    mounted = [storage, *pulled, dockerfile_mount(request, "/kmm/dockerfile"), *secret_mounts(request.secrets)]
    yield _Step(name="build", args=build, mounted=[*mounted, *(credentials if cached else [])])
    if request.image is not None:
        flags = _registry_flags(request.push_tls, choices)
        parts = images(request)
        pushed = parts.get(request.architecture, request.image)
        push = ["push", *flags, _BUILT, f"docker://{_text(pushed)}"]
        yield _Step(name="push", args=push, mounted=[storage, *credentials])
        if parts:
            index = ["index", *flags, "--", request.image, *chain.from_iterable(parts.items())]
            yield _Step(name="index", args=index, mounted=credentials)


def _is_cached(request: BuildRequest, choices: Choices) -> bool:
    """Whether the cache is used: not for layers that may hold Secrets, whose changes it would not notice.

    Nor where its credentials would be sent with less care than the image is pushed with: it is reached as the base
    images are.
    """
    careful = _verified(request.base_tls) or not _verified(request.push_tls)
    return bool(choices.cache) and not request.secrets and careful


def _secret_flags(secrets: Sequence[SecretFiles], as_files: frozenset[str]) -> Iterator[str]:
    """Yield what makes Secrets readable in RUN, which has them where the container has them.

    Where `RUN --mount=type=secret` wants a file there can be no folder: who asks for that has the file alone.
    Raises ValueError for keys that no Secret can have.
    """
    for each in secrets:
        folder = f"{SECRETS}/{each.name}"
        for key in each.keys:
            if not _SECRET_KEY.fullmatch(key):
                raise ValueError(f"build.secrets: {key[:80]!r} is the key of no Secret")
            name = each.name if len(each.keys) == 1 else f"{each.name}.{key}"
            yield f"--secret=id={name},src={folder}/{key}"
        if each.name not in as_files:
            yield f"--volume={folder}:{folder}:ro"


def _registry_flags(tls: Tls, choices: Choices) -> list[str]:
    """Return how buildah is to reach registries. To plain HTTP it goes where it need not verify and HTTPS fails."""
    flags = [] if _verified(tls) else ["--tls-verify=false"]
    return [*flags, f"--cert-dir={_AUTHORITIES}"] if choices.authorities else flags


def _verified(tls: Tls) -> bool:
    return not (tls.insecure or tls.skip_verify)


def _registries(request: BuildRequest, choices: Choices) -> str:
    """Return the registries.conf. What is so of the pushed image's registry is so of a cache in it."""
    if not choices.cache or request.image is None or _verified(request.push_tls):
        return _REGISTRIES
    host = reference.parse(choices.cache).host
    if host != reference.parse(request.image).host:
        return _REGISTRIES
    return f'{_REGISTRIES}\n[[registry]]\nlocation = "{host}"\ninsecure = true'


def _security(choices: Choices) -> Manifest:
    """Return as little privilege as buildah works with.

    It makes a user namespace of its own, in which it is root. `newuidmap` needs SETUID and SETGID for that and has
    them as file capabilities (a privilege escalation, in Kubernetes' words), and the runtimes' seccomp and AppArmor
    profiles forbid such namespaces and the mounts in them.
    """
    selinux = {"seLinuxOptions": {"type": choices.selinux_type}} if choices.selinux_type else {}
    if choices.privileged:
        # Its root is writable, since buildah as root keeps locks in /etc/containers.
        return {"privileged": True, "runAsUser": 0, "runAsGroup": 0, **selinux}
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": True,
        "capabilities": {"drop": ["ALL"], "add": ["SETGID", "SETUID"]},
        "seccompProfile": _UNCONFINED,
        "appArmorProfile": _UNCONFINED,
        **selinux,
    }


def _folder(name: str, path: str, *, read_only: bool = False) -> Mounted:
    mount = {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}
    return Mounted(volume={"name": name, "emptyDir": {}}, mount=mount)


def _credentials(secret: str) -> Mounted:
    """Return a Secret of either docker type as a folder. Without it, a push that is refused says more than no pod."""
    return Mounted(
        volume={"name": "credentials", "secret": {"secretName": secret, "optional": True}},
        mount={"name": "credentials", "mountPath": "/kmm/credentials", "readOnly": True},
    )


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError(f"{value[:80]!r} holds a NUL character, which no argument of a command can")
    return value
