"""Signs with a key from a Secret: a Job that runs `kmm sign-image`, as nobody in particular and with no rights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kmm.contract import Finding, Kind, Manifest, Progress, Settings, SettingsError, Signer, SignRequest
from kmm.job import (
    JOB,
    JOB_OPTIONS,
    SECRETS,
    JobOptions,
    Mounted,
    authorities_mount,
    is_name,
    job,
    job_options,
    literal,
    observe_job,
    placement,
    refuse_unknown,
    secret_files_mount,
    sign_sections,
    without_empty,
)
from kmm.oci import reference
from kmm.oci.credentials import SECRET_KEYS

HASHES = ("sha224", "sha256", "sha384", "sha512")
"""As kmm.signing.digest has them, which the operator need not load."""

_NAME = "sign-file"
_USER = 65532
_USER_LARGEST = (1 << 31) - 1
_REGISTRIES, _AUTHORITIES, _TEMPORARY = "/run/kmm/registries", "/run/kmm/authorities", "/tmp"  # noqa: S108 -- the pod's own
_TERMINATION_LOG = "/dev/termination-log"  # where containers have it that name no other
# It ends before the Job's deadline ends it, so as to say what took so long.
_SPARE_S = 15
_PARAMS = ("hash", "modulesLimitGiB", *JOB_OPTIONS)
_LIMIT_GIB, _LIMIT_LARGEST_GIB = 4, 1024
# 100 MB are needed, 80 MB more for what `xz -9` has packed; the rest is for what is written and not on the disk yet.
_OPTIONS = JobOptions(resources={"requests": {"memory": "128Mi"}, "limits": {"memory": "512Mi"}})


@dataclass(frozen=True, slots=True, kw_only=True)
class SignFile:
    """Renders one Job. `image`: the operator's; `user`: None where the cluster chooses who its pods run as.

    `authorities`: a ConfigMap of the Module's namespace, or none. `limit_gib`: of all modules together, unpacked.
    """

    image: str = ""
    user: int | None = _USER
    authorities: str = ""
    hash_name: str = "sha256"
    limit_gib: int = _LIMIT_GIB
    options: JobOptions = _OPTIONS
    name: str = _NAME
    owns: tuple[Kind, ...] = (JOB,)
    requires: tuple[str, ...] = ("key_secret", "cert_secret")

    def render(self, request: SignRequest) -> Sequence[Manifest]:
        """Return the Job. The core adds its name and labels. Raises ValueError for what a Module asks wrongly."""
        refuse_unknown(request.params, _PARAMS, "sign.params")
        hash_name, limit_gib = _params(request.params, self.hash_name, self.limit_gib, "sign.params")
        options = job_options(request.params, self.options, "sign.params")
        if not self.image:
            raise ValueError(
                "no image to sign with is known: set RELATED_IMAGES_SIGN, or plugins.options.sign-file.image, to the "
                "operator's own image"
            )
        mounted = list(self._mounted(request, limit_gib))
        arguments = self._arguments(request, hash_name, limit_gib, options.deadline_s)
        container: dict[str, Any] = {
            "name": "sign-file",
            "image": self.image,
            "command": ["kmm", "sign-image"],
            "args": [literal(each) for each in arguments],
            "env": [{"name": "TMPDIR", "value": _TEMPORARY}],
            "resources": options.resources,
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [each.mount for each in mounted],
        }
        who = {} if self.user is None else dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), self.user)
        pod = {
            "securityContext": {"runAsNonRoot": True, **who, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [without_empty(container)],
            **placement(request),
            "volumes": [each.volume for each in mounted],
        }
        return [job(pod, options.deadline_s)]

    def observe(self, objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
        """Say how far the Job has come, and why it failed."""
        return observe_job(objects, pods)

    def _mounted(self, request: SignRequest, limit_gib: int) -> Iterator[Mounted]:
        wanted: dict[str, list[str]] = {}
        for secret, keys in ((request.key_secret, ("key", "passphrase")), (request.cert_secret, ("cert",))):
            wanted.setdefault(secret or "", []).extend(keys)
        for number, (secret, parts) in enumerate(wanted.items()):
            files = {key: key for key in parts}
            yield secret_files_mount(f"secret-{number}", secret, files, f"{SECRETS}/{secret}")
        for number, secret in enumerate(_credentials(request)):
            files = {key: key for key in SECRET_KEYS.values()}
            yield secret_files_mount(f"registry-{number}", secret, files, f"{_REGISTRIES}/{number}")
        if self.authorities:
            yield authorities_mount(self.authorities, _AUTHORITIES)
        # The modules as they are and as they were signed, and the one that exceeds the limit.
        room = {"sizeLimit": f"{2 * limit_gib + 2}Gi"}
        yield Mounted(
            volume={"name": "temporary", "emptyDir": room}, mount={"name": "temporary", "mountPath": _TEMPORARY}
        )

    def _arguments(self, request: SignRequest, hash_name: str, limit_gib: int, deadline_s: int) -> Iterator[str]:
        yield f"--key={SECRETS}/{request.key_secret}/key"
        yield f"--cert={SECRETS}/{request.cert_secret}/cert"
        yield f"--passphrase-file={SECRETS}/{request.key_secret}/passphrase"
        yield f"--hash={hash_name}"
        yield f"--modules-limit={limit_gib}"
        yield f"--timeout={max(1, deadline_s - _SPARE_S)}"
        yield f"--warnings-file={_TERMINATION_LOG}"
        yield from (f"--docker-config={_REGISTRIES}/{number}" for number in range(len(_credentials(request))))
        if self.authorities:
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


def kmm_signers(settings: Settings) -> list[Signer]:
    """Offer it, under the name `sign-file`.

    Options: `image`, `runAsUser`, `caConfigMap`, `hash`, `modulesLimitGiB`, `activeDeadlineSeconds`, `resources`.
    """
    given = settings.only("image", "runAsUser", "caConfigMap", *_PARAMS)
    image = given.get("image", settings.images.get("sign", settings.images.get("operator", "")))
    authorities = given.get("caConfigMap")
    user = given.get("runAsUser", _USER)
    if authorities is not None and not is_name(authorities):
        raise SettingsError("caConfigMap: must be a name")
    if user is not None and (type(user) is not int or not 0 < user <= _USER_LARGEST):
        raise SettingsError(
            "runAsUser: must be the number of a user who is not root, or null for the cluster's choice"
        )
    try:
        hash_name, limit_gib = _params(given, "sha256", _LIMIT_GIB, "plugins.options.sign-file")
        options = job_options(given, _OPTIONS, "plugins.options.sign-file")
        if image != "":
            reference.parse(_text(image))
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return [
        SignFile(
            image=image,
            user=user,
            authorities=authorities or "",
            hash_name=hash_name,
            limit_gib=limit_gib,
            options=options,
        ),
    ]


def kmm_validate_module(module: Manifest) -> list[Finding]:
    """Judge the `sign` sections that ask for this signer by its name."""
    return list(_findings(module))


def _findings(module: Manifest) -> Iterator[Finding]:
    for path, sign in sign_sections(module, _NAME):
        params = _map(sign.get("params"))
        try:
            refuse_unknown(params, _PARAMS, "params")
            _params(params, "sha256", _LIMIT_GIB, "params")
            job_options(params, _OPTIONS, "params")
        except ValueError as error:
            yield Finding(path=f"{path}.params", message=str(error))


def _credentials(request: SignRequest) -> tuple[str, ...]:
    """Return the names of the Secrets with credentials, in the order to try them."""
    return tuple(dict.fromkeys([*([request.push_secret] if request.push_secret else []), *request.pull_secrets]))


def _params(given: Mapping[str, Any], hash_name: str, limit_gib: int, where: str) -> tuple[str, int]:
    found = given.get("hash", hash_name)
    if found not in HASHES:
        raise ValueError(f"{where}.hash: must be one of {', '.join(HASHES)}")
    limit = given.get("modulesLimitGiB", limit_gib)
    if type(limit) is not int or not 0 < limit <= _LIMIT_LARGEST_GIB:
        raise ValueError(f"{where}.modulesLimitGiB: must be a whole number from 1 to {_LIMIT_LARGEST_GIB}")
    return str(found), limit


def _map(value: object) -> Manifest:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("image: must be an image")  # noqa: TRY004 -- as what is wrong in it
    return value
