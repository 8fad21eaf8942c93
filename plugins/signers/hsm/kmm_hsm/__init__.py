"""Signs with a key in a token (PKCS#11): a Job that runs `kmm sign-image`, as nobody and with no rights.

A key of a Module's `params` is used in the Module's namespace, with a PIN from there. A key of the operator's
configuration is used in the operator's, for the namespaces that it lists, and its PIN never leaves that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kmm.contract import (
    Finding,
    Kind,
    Manifest,
    ModuleRef,
    Place,
    Progress,
    Settings,
    SettingsError,
    Severity,
    Signer,
    SignRequest,
    State,
    nearest,
)
from kmm.image_signing.job import SIGN_PARAMS, Key, SignOptions, sign_job, sign_options, sign_params
from kmm.job import JOB, SECRETS, Mounted, observe_job, refuse_unknown, secret_files_mount, sign_sections
from kmm_hsm.key import OWN_FIELDS, HsmKey, read_key

_NAME = "hsm"
# As kmm.signing.source has it, which the operator need not load: a PIN that was refused is not tried again.
_REFUSED_CODE = 3
# What a Job in the operator's namespace may cost is not the Module's to say, either.
_SHARED_PARAMS = ("key", "hash")
_UNKNOWN = "it is not known whether the PIN was tried: if it is right, delete the Job, else change the Secret"
_KILLED = 128  # and more: a signal's number is in an exit code
_PIN, _CERTIFICATE = f"{SECRETS}/pin", f"{SECRETS}/cert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hsm:
    """Renders one Job. `module`: the path of the PKCS#11 library where nobody says it; `keys`: by their names."""

    options: SignOptions = field(default_factory=SignOptions)
    module: str = ""
    keys: Mapping[str, HsmKey] = field(default_factory=dict)
    name: str = _NAME
    owns: tuple[Kind, ...] = (JOB,)
    requires: tuple[str, ...] = ()

    def place(self, module: ModuleRef, params: Mapping[str, Any]) -> Place:
        """Say in whose namespace it signs, and which Secrets it reads there. Raises ValueError."""
        key, shared = self._key(module, params)
        return Place(
            operators=shared,
            secrets=tuple(key.secrets),
            certificate=key.cert_secret,
            alone=key.pin_secret,
        )

    def render(self, request: SignRequest) -> Sequence[Manifest]:
        """Return the Job. The core adds its name and labels. Raises ValueError for what a Module asks wrongly."""
        found, shared = self._key(request.module, request.params)
        options = sign_params(request.params, self.options, "sign.params")
        if found.image:
            options = replace(options, image=found.image)
        if shared and request.cert_secret:
            raise ValueError(
                f'sign.certSecret: the certificate of the key "{request.params["key"]}" is of the operator\'s '
                "configuration: take certSecret off"
            )
        found.refuse_registries(request)
        certificate = found.cert_secret or request.cert_secret or ""
        own = [each for each in (found.registry_secret, request.push_secret) if each]
        key = Key(
            arguments=(
                f"--key={found.key}",
                f"--passphrase-file={_PIN}/pin",
                *([f"--cert={_CERTIFICATE}/cert"] if certificate else []),
            ),
            mounted=tuple(_mounted(found, certificate)),
            credentials=tuple(dict.fromkeys([*own, *request.pull_secrets])),
            env=found.env,
        )
        made = dict(sign_job(request, options, key, _NAME, final_codes=[_REFUSED_CODE]))
        if shared:
            # Where a PIN goes is not the Module's to choose.
            for each in ("nodeSelector", "tolerations"):
                made["spec"]["template"]["spec"].pop(each, None)
        if found.registry_secret:
            made["spec"]["template"]["spec"]["imagePullSecrets"] = [{"name": found.registry_secret}]
        return [made]

    def observe(self, objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
        """Say how far the Job has come, and why it failed: for good, where a PIN was refused, or may have been."""
        found = observe_job(objects, pods)
        if found.state is not State.FAILED or found.final:
            return found
        codes = list(_codes(pods))
        if _REFUSED_CODE in codes:  # an old API server drops what the Job says of it
            return replace(found, final=True)
        if codes and all(type(code) is int and 0 <= code < _KILLED for code in codes):
            return found
        return replace(found, final=True, message=f"{found.message}; {_UNKNOWN}")

    def _key(self, module: ModuleRef, params: Mapping[str, Any]) -> tuple[HsmKey, bool]:
        """Return the key that `params` ask for, and whether it is of the operator's configuration."""
        if "key" not in params:
            own = {name: value for name, value in params.items() if name not in SIGN_PARAMS}
            return read_key(own, self.module, "sign.params", shared=False), False
        refuse_unknown(params, _SHARED_PARAMS, "sign.params (with a key of the operator's configuration)")
        name = params["key"]
        found = self.keys.get(name) if isinstance(name, str) else None
        # To whoever may not use it, it is not there: which keys there are is not everybody's to know.
        usable = [each for each, key in self.keys.items() if module.namespace in key.namespaces]
        if found is None or module.namespace not in found.namespaces:
            shown = str(name)[:100]
            known = ", ".join(sorted(usable)) or "none"
            raise ValueError(
                f'sign.params.key: the namespace {module.namespace} may use no key "{shown}"{nearest(shown, usable)} '
                f"(it may use: {known}): plugins.options.{_NAME}.keys.*.namespaces lists those that may"
            )
        return found, True


def kmm_signers(settings: Settings) -> list[Signer]:
    """Offer it, under the name `hsm`.

    Options: `keys`, `module`, and as all signers `image`, `runAsUser`, `caConfigMap`, `hash`,
    `activeDeadlineSeconds`, `resources`.
    """
    options = sign_options(settings, _NAME, "keys", "module")
    module, keys = settings.options.get("module", ""), settings.options.get("keys", {})
    if not isinstance(module, str) or (module and not module.startswith("/")):
        raise SettingsError("module: must be the absolute path of a PKCS#11 library")
    if not isinstance(keys, Mapping):
        raise SettingsError("keys: must be an object: keys by their names")
    try:
        read = {str(name): read_key(each, module, f"keys.{name}", shared=True) for name, each in keys.items()}
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return [Hsm(options=options, module=module, keys=read)]


def kmm_validate_module(module: Manifest) -> list[Finding]:
    """Judge the `sign` sections that ask for this signer by its name."""
    return list(_findings(module))


def _findings(module: Manifest) -> Iterator[Finding]:
    for path, sign in sign_sections(module, _NAME):
        if sign.get("keySecret"):
            message = f"is not used by the signer {_NAME}: the key is in a token"
            yield Finding(path=f"{path}.keySecret", message=message, severity=Severity.WARNING)
        given = sign.get("params")
        params = given if isinstance(given, Mapping) else {}
        if not params:
            continue  # those of the other section
        try:
            if "key" in params:
                refuse_unknown(params, _SHARED_PARAMS, "params (with a key of the operator's configuration)")
                if not isinstance(params["key"], str):
                    raise ValueError("params.key: must be the name of a key")  # noqa: TRY301 -- as the others
            else:
                refuse_unknown(params, ("key", *OWN_FIELDS, *SIGN_PARAMS), "params")
                own = {name: value for name, value in params.items() if name not in SIGN_PARAMS}
                # The configuration, which is not known here, may name the library.
                read_key(own, "/", "params", shared=False)
            sign_params(params, SignOptions(), "params")
        except ValueError as error:
            yield Finding(path=f"{path}.params", message=str(error))


def _codes(pods: Sequence[Manifest]) -> Iterator[object]:
    """Yield what the containers of pods have ended with: None where that is not known."""
    for pod in pods:
        statuses = _map(pod, "status").get("containerStatuses")
        for each in statuses if isinstance(statuses, list | tuple) else ():
            yield _map(_map(each, "state"), "terminated").get("exitCode")


def _map(parent: object, name: str) -> Manifest:
    found = parent.get(name) if isinstance(parent, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _mounted(key: HsmKey, certificate: str) -> Iterator[Mounted]:
    yield secret_files_mount("pin", key.pin_secret, {"pin": "pin"}, _PIN)
    if certificate:
        yield secret_files_mount("cert", certificate, {"cert": "cert"}, _CERTIFICATE)
    volumes = {each["name"]: each for each in key.volumes}
    for each in key.mounts:
        yield Mounted(volume=volumes[each["name"]], mount=each)
