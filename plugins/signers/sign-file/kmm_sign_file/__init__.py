"""Signs with a key from a Secret: a Job that runs `kmm sign-image`, as nobody in particular and with no rights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kmm.contract import Finding, Kind, Manifest, Progress, Settings, Signer, SignRequest
from kmm.image_signing.job import HASHES, SIGN_PARAMS, Key, SignOptions, sign_job, sign_options, sign_params
from kmm.job import (
    JOB,
    SECRETS,
    Mounted,
    observe_job,
    refuse_unknown,
    secret_files_mount,
    sign_sections,
)

__all__ = ["HASHES", "SignFile", "kmm_signers", "kmm_validate_module"]

_NAME = "sign-file"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignFile:
    """Renders one Job."""

    options: SignOptions = field(default_factory=SignOptions)
    name: str = _NAME
    owns: tuple[Kind, ...] = (JOB,)
    requires: tuple[str, ...] = ("key_secret", "cert_secret")

    def render(self, request: SignRequest) -> Sequence[Manifest]:
        """Return the Job. The core adds its name and labels. Raises ValueError for what a Module asks wrongly."""
        refuse_unknown(request.params, SIGN_PARAMS, "sign.params")
        options = sign_params(request.params, self.options, "sign.params")
        own = [request.push_secret] if request.push_secret else []
        key = Key(
            arguments=(
                f"--key={SECRETS}/{request.key_secret}/key",
                f"--cert={SECRETS}/{request.cert_secret}/cert",
                f"--passphrase-file={SECRETS}/{request.key_secret}/passphrase",
            ),
            mounted=tuple(_mounted(request)),
            credentials=tuple(dict.fromkeys([*own, *request.pull_secrets])),
        )
        return [sign_job(request, options, key, _NAME)]

    def observe(self, objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
        """Say how far the Job has come, and why it failed."""
        return observe_job(objects, pods)


def kmm_signers(settings: Settings) -> list[Signer]:
    """Offer it, under the name `sign-file`.

    Options: `image`, `runAsUser`, `caConfigMap`, `hash`, `modulesLimitGiB`, `activeDeadlineSeconds`, `resources`.
    """
    return [SignFile(options=sign_options(settings, _NAME))]


def kmm_validate_module(module: Manifest) -> list[Finding]:
    """Judge the `sign` sections that ask for this signer by its name."""
    return list(_findings(module))


def _findings(module: Manifest) -> Iterator[Finding]:
    for path, sign in sign_sections(module, _NAME):
        given = sign.get("params")
        params = given if isinstance(given, Mapping) else {}
        try:
            refuse_unknown(params, SIGN_PARAMS, "params")
            sign_params(params, SignOptions(), "params")
        except ValueError as error:
            yield Finding(path=f"{path}.params", message=str(error))


def _mounted(request: SignRequest) -> Iterator[Mounted]:
    wanted: dict[str, list[str]] = {}
    for secret, keys in ((request.key_secret, ("key", "passphrase")), (request.cert_secret, ("cert",))):
        wanted.setdefault(secret or "", []).extend(keys)
    for number, (secret, parts) in enumerate(wanted.items()):
        files = {key: key for key in parts}
        yield secret_files_mount(f"secret-{number}", secret, files, f"{SECRETS}/{secret}")
