"""The Job that runs `kmm sign-image`, as nobody in particular and with no rights: what signers share of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kmm.contract import Manifest, Settings, SettingsError, SignRequest
from kmm.job import (
    JOB_OPTIONS,
    JobOptions,
    Mounted,
    authorities_mount,
    is_name,
    job,
    job_options,
    literal,
    placement,
    secret_files_mount,
    without_empty,
)
from kmm.oci import reference
from kmm.oci.credentials import SECRET_KEYS

HASHES = ("sha224", "sha256", "sha384", "sha512")
"""As kmm.signing.digest has them, which the operator need not load."""
SIGN_PARAMS = ("hash", "modulesLimitGiB", *JOB_OPTIONS)
"""What a Module's `sign.params` may hold for any of these signers."""
SIGN_OPTIONS = ("image", "runAsUser", "caConfigMap", *SIGN_PARAMS)
"""What the operator's configuration may hold for any of them."""
TEMPORARY = "/tmp"  # noqa: S108 -- the pod's own

_USER = 65532
_USER_LARGEST = (1 << 31) - 1
_REGISTRIES, _AUTHORITIES = "/run/kmm/registries", "/run/kmm/authorities"
_TERMINATION_LOG = "/dev/termination-log"  # where containers have it that name no other
# It ends before the Job's deadline ends it, so as to say what took so long.
_SPARE_S = 15
_LIMIT_LARGEST_GIB = 1024
# 100 MB are needed, 80 MB more for what `xz -9` has packed; the rest is for what is written and not on the disk yet.
_RESOURCES = {"requests": {"memory": "128Mi"}, "limits": {"memory": "512Mi"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOptions:
    """What is configured. `image`: the operator's; `user`: None where the cluster chooses who its pods run as.

    `authorities`: a ConfigMap of the Job's namespace, or none. `limit_gib`: of all modules together, unpacked.
    """

    image: str = ""
    user: int | None = _USER
    authorities: str = ""
    hash_name: str = "sha256"
    limit_gib: int = 4
    job: JobOptions = field(default_factory=lambda: JobOptions(resources=_RESOURCES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key, as the command is given it. `credentials`: Secrets for registries, in the order to try them."""

    arguments: Sequence[str]
    mounted: Sequence[Mounted]
    credentials: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


def sign_options(settings: Settings, name: str, *more: str) -> SignOptions:
    """Read SIGN_OPTIONS of a signer's settings, which may have `more` beside. Raises SettingsError."""
    given = settings.only(*SIGN_OPTIONS, *more)
    image = given.get("image", settings.images.get("sign", settings.images.get("operator", "")))
    authorities, user = given.get("caConfigMap"), given.get("runAsUser", _USER)
    if authorities is not None and not is_name(authorities):
        raise SettingsError("caConfigMap: must be a name")
    if user is not None and (type(user) is not int or not 0 < user <= _USER_LARGEST):
        raise SettingsError(
            "runAsUser: must be the number of a user who is not root, or null for the cluster's choice"
        )
    try:
        read = sign_params(given, SignOptions(), f"plugins.options.{name}")
        if image != "":
            need_image(image, "image")
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return replace(read, image=image, user=user, authorities=authorities or "")


def sign_params(given: Mapping[str, Any], otherwise: SignOptions, where: str) -> SignOptions:
    """Return options with what `given` has of SIGN_PARAMS. `where`: what users call it. Raises ValueError."""
    hash_name = given.get("hash", otherwise.hash_name)
    if hash_name not in HASHES:
        raise ValueError(f"{where}.hash: must be one of {', '.join(HASHES)}")
    limit = given.get("modulesLimitGiB", otherwise.limit_gib)
    if type(limit) is not int or not 0 < limit <= _LIMIT_LARGEST_GIB:
        raise ValueError(f"{where}.modulesLimitGiB: must be a whole number from 1 to {_LIMIT_LARGEST_GIB}")
    options = job_options(given, otherwise.job, where)
    return replace(otherwise, hash_name=str(hash_name), limit_gib=limit, job=options)


def need_image(value: object, where: str) -> str:
    """Return the name of an image. Raises ValueError where it is none."""
    if not isinstance(value, str):
        raise ValueError(f"{where}: must be an image")  # noqa: TRY004 -- as what is wrong in it
    reference.parse(value)
    return value


def sign_job(
    request: SignRequest, options: SignOptions, key: Key, name: str, final_codes: Sequence[int] = ()
) -> Manifest:
    """Return the Job. `name`: of its container. Raises ValueError where no image is known to sign with."""
    if not options.image:
        raise ValueError(
            f"no image to sign with is known: set RELATED_IMAGES_SIGN, or plugins.options.{name}.image, to the "
            "operator's own image"
        )
    mounted = [*key.mounted, *_mounted(options, key)]
    arguments = [*key.arguments, *_arguments(request, options, key)]
    env = {"TMPDIR": TEMPORARY, **key.env}
    container: dict[str, Any] = {
        "name": name,
        "image": options.image,
        "command": ["kmm", "sign-image"],
        "args": [literal(each) for each in arguments],
        "env": [{"name": each, "value": literal(value)} for each, value in env.items()],
        "resources": options.job.resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [each.mount for each in mounted],
    }
    who = {} if options.user is None else dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), options.user)
    pod = {
        "securityContext": {"runAsNonRoot": True, **who, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [without_empty(container)],
        **placement(request),
        "volumes": list({each.volume["name"]: each.volume for each in mounted}.values()),
    }
    return job(pod, options.job.deadline_s, final_codes)


def _mounted(options: SignOptions, key: Key) -> Iterator[Mounted]:
    for number, secret in enumerate(key.credentials):
        files = {each: each for each in SECRET_KEYS.values()}
        yield secret_files_mount(f"registry-{number}", secret, files, f"{_REGISTRIES}/{number}")
    if options.authorities:
        yield authorities_mount(options.authorities, _AUTHORITIES)
    # The modules as they are and as they were signed, and the one that exceeds the limit.
    room = {"sizeLimit": f"{2 * options.limit_gib + 2}Gi"}
    yield Mounted(volume={"name": "temporary", "emptyDir": room}, mount={"name": "temporary", "mountPath": TEMPORARY})


def _arguments(request: SignRequest, options: SignOptions, key: Key) -> Iterator[str]:
    yield f"--hash={options.hash_name}"
    yield f"--modules-limit={options.limit_gib}"
    yield f"--timeout={max(1, options.job.deadline_s - _SPARE_S)}"
    yield f"--warnings-file={_TERMINATION_LOG}"
    yield from (f"--docker-config={_REGISTRIES}/{number}" for number in range(len(key.credentials)))
    if options.authorities:
        yield f"--ca={_AUTHORITIES}"
    flags = {
        "--insecure": request.push_tls.insecure,
        "--insecure-skip-tls-verify": request.push_tls.skip_verify,
        "--unsigned-insecure": request.unsigned_tls.insecure,
        "--unsigned-insecure-skip-tls-verify": request.unsigned_tls.skip_verify,
    }
    yield from (flag for flag, wanted in flags.items() if wanted)
    if request.files:
        yield from (f"--file={each}" for each in request.files)
    else:
        yield f"--dir-name={request.dir_name}"
        yield f"--kernel={request.kernel}"
    if request.image:
        yield from ("--", request.unsigned_image, request.image)
    else:
        yield from ("--no-push", "--", request.unsigned_image)
