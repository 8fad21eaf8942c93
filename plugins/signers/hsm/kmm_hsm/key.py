"""Keys as a Module's `params` or the operator's configuration write them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kmm.contract import Manifest, SignRequest
from kmm.image_signing.job import need_image
from kmm.job import is_name, refuse_unknown
from kmm.oci import reference
from kmm_hsm.uri import TokenKey

OWN_FIELDS = (*("module", "token", "serial", "label", "id", "pinSecret", "image", "env", "volumes", "volumeMounts"),)
"""What a Module's `params` say of a key of its own."""
SHARED_FIELDS = (*OWN_FIELDS, "certSecret", "registrySecret", "insecureRegistries", "repositories", "namespaces")
"""What the operator's configuration says of one that Modules may use by its name."""

_LONGEST = 255
_MOUNTS_MOST = 20
_ID = re.compile(r"([0-9A-Fa-f]{2}){1,64}")
_PASSPHRASE = "KBUILD_SIGN_PIN"  # noqa: S105 -- the variable that the command reads one from
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_VOLUME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OURS = re.compile(r"pin|cert|authorities|temporary|registry-[0-9]+")
# Whoever may write a Module, and not a pod, must not reach a node or an account by it.
_SOURCES = ("configMap", "emptyDir", "persistentVolumeClaim", "secret")
_PLACES = ("/dev", "/proc", "/run/kmm", "/run/secrets", "/sys", "/tmp")  # noqa: S108 -- where nothing is mounted


@dataclass(frozen=True, slots=True, kw_only=True)
class HsmKey:
    """A key. `pin_secret`: its PIN under `pin`; `cert_secret`: its certificate, empty for the one in the token.

    `registry_secret`: credentials of the operator's for registries; `insecure`: even for those whose identity is not
    checked; `repositories`: those that it is for, and what is below them, or none for all.
    `image`: empty for the usual one. `namespaces`: those that may use it, of one that Modules share.
    """

    key: TokenKey
    pin_secret: str
    cert_secret: str = ""
    registry_secret: str = ""
    insecure: bool = False
    repositories: Sequence[str] = ()
    image: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[Manifest] = ()
    mounts: Sequence[Manifest] = ()
    namespaces: Sequence[str] = ()

    @property
    def secrets(self) -> Sequence[str]:
        """Return the names of all Secrets that its pod needs."""
        named = (self.pin_secret, self.cert_secret, self.registry_secret, *self._in_volumes())
        return tuple(dict.fromkeys(filter(None, named)))

    def _in_volumes(self) -> Iterator[str]:
        mounted = {each["name"] for each in self.mounts}
        for volume in self.volumes:
            projected = volume.get("projected")
            sources = projected.get("sources") if isinstance(projected, Mapping) else ()
            listed = (
                [each.get("secret") for each in sources if isinstance(each, Mapping)]
                if isinstance(sources, list | tuple)
                else ()
            )
            for source in (volume.get("secret"), *listed):
                if volume["name"] in mounted and isinstance(source, Mapping) and source.get("optional") is not True:
                    name = source.get("secretName", source.get("name"))
                    yield str(name) if is_name(name) else ""

    def refuse_registries(self, request: SignRequest) -> None:
        """Raise ValueError for images that a Module may not have the operator's credentials used for."""
        if not self.registry_secret:
            return
        if not self.insecure:
            for what, tls in (("unsignedImageRegistryTLS", request.unsigned_tls), ("registryTLS", request.push_tls)):
                if tls.insecure or tls.skip_verify:
                    raise ValueError(
                        f"{what}: the operator's credentials are not sent to a registry whose identity is not "
                        "checked: take insecure and insecureSkipTLSVerify off"
                    )
        for image in filter(None, (request.unsigned_image, request.image) if self.repositories else ()):
            named = reference.parse(image).repository
            if not any(f"{named}/".startswith(f"{each}/") for each in self.repositories):
                raise ValueError(
                    f"the operator's credentials are not for {named}: they are for what is below "
                    f"{', '.join(self.repositories)}"
                )


def read_key(given: object, module: str, where: str, *, shared: bool) -> HsmKey:
    """Read a key. `module`: the path of the library, where it is not said. `where`: what users call `given`.

    `shared`: it is of the operator's configuration. Raises ValueError, which says what is wrong.
    """
    fields = _map(given, where)
    refuse_unknown(fields, SHARED_FIELDS if shared else OWN_FIELDS, where)
    texts = {name: _text(fields, name, where) for name in ("module", "token", "serial", "label", "id")}
    library = texts["module"] or module
    if not library:
        raise ValueError(
            f"{where}.module: is required: the path of the token's PKCS#11 library in the image that signs"
        )
    if not library.startswith("/"):
        raise ValueError(f"{where}.module: must be an absolute path")
    if not texts["token"] and not texts["serial"]:
        raise ValueError(f"{where}.token: is required: the token's label (or serial, its number)")
    if not texts["label"] and not texts["id"]:
        raise ValueError(f"{where}.label: is required: the key's label (or id, in hexadecimal)")
    if texts["id"] and not _ID.fullmatch(texts["id"]):
        raise ValueError(f'{where}.id: must be hexadecimal, such as "01"')
    secrets = {name: _secret(fields, name, where) for name in ("pinSecret", "certSecret", "registrySecret")}
    if not secrets["pinSecret"]:
        raise ValueError(f"{where}.pinSecret: is required: the name of a Secret with the key `pin`")
    volumes = _volumes(fields.get("volumes", ()), f"{where}.volumes", shared=shared)
    return HsmKey(
        key=TokenKey(
            module=library,
            token=texts["token"],
            serial=texts["serial"],
            label=texts["label"],
            id=bytes.fromhex(texts["id"]),
        ),
        pin_secret=secrets["pinSecret"],
        cert_secret=secrets["certSecret"],
        registry_secret=secrets["registrySecret"],
        insecure=_flag(fields, "insecureRegistries", where),
        repositories=_repositories(fields.get("repositories", ()), f"{where}.repositories"),
        image=need_image(fields["image"], f"{where}.image") if "image" in fields else "",
        env=_env(fields.get("env", {}), f"{where}.env"),
        volumes=volumes,
        mounts=_mounts(fields.get("volumeMounts", ()), volumes, f"{where}.volumeMounts"),
        namespaces=_namespaces(fields.get("namespaces", ()), f"{where}.namespaces"),
    )


def _map(given: object, where: str) -> Manifest:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: must be an object")  # noqa: TRY004 -- as what is wrong in it
    return given


def _text(fields: Manifest, name: str, where: str) -> str:
    found = fields.get(name, "")
    if not isinstance(found, str) or len(found) > _LONGEST or not found.isprintable():
        raise ValueError(
            f"{where}.{name}: must be a text of at most {_LONGEST} characters, in quotes where it is a number"
        )
    return found


def _secret(fields: Manifest, name: str, where: str) -> str:
    found = fields.get(name, "")
    if found != "" and not is_name(found):
        raise ValueError(f"{where}.{name}: must be the name of a Secret")
    return str(found)


def _flag(fields: Manifest, name: str, where: str) -> bool:
    found = fields.get(name, False)
    if not isinstance(found, bool):
        raise ValueError(f"{where}.{name}: must be true or false")  # noqa: TRY004 -- as the others
    return found


def _list(given: object, where: str) -> Sequence[Any]:
    if not isinstance(given, list | tuple) or len(given) > _MOUNTS_MOST:
        raise ValueError(f"{where}: must be a list of at most {_MOUNTS_MOST}")
    return given


def _namespaces(given: object, where: str) -> Sequence[str]:
    if not isinstance(given, list | tuple) or not all(map(is_name, given)):
        raise ValueError(f"{where}: must be a list of namespaces")
    return tuple(given)


def _repositories(given: object, where: str) -> Sequence[str]:
    found = []
    for each in _list(given, where):
        name = each.removesuffix("/") if isinstance(each, str) else ""
        # With a path, or a registry alone is read as an image of Docker Hub.
        if not name or not reference.parse(f"{name}/a").domain:
            raise ValueError(f"{where}: must be repositories with their registry, such as registry.example.com/team/")
        found.append(name)
    return tuple(found)


def _env(given: object, where: str) -> Mapping[str, str]:
    found = _map(given, where)
    if _PASSPHRASE in found:
        raise ValueError(f"{where}: {_PASSPHRASE} is not for here, where others read it: the PIN is in the pinSecret")
    for name, value in found.items():
        if not _VARIABLE.fullmatch(str(name)) or not isinstance(value, str):
            raise ValueError(
                f"{where}: must be names of variables with texts, such as {{SOFTHSM2_CONF: /etc/hsm.conf}}"
            )
    return found


def _volumes(given: object, where: str, *, shared: bool) -> Sequence[Manifest]:
    found = [_map(each, where) for each in _list(given, where)]
    for each in found:
        name = each.get("name")
        if not isinstance(name, str) or not _VOLUME.fullmatch(name) or _OURS.fullmatch(name):
            raise ValueError(
                f"{where}: each needs a name, and pin, cert, authorities, temporary and registry-0 are ours"
            )
        if not shared and (others := sorted(each.keys() - {"name", *_SOURCES})):
            raise ValueError(f"{where}: {others[0][:100]} is for keys of the operator's configuration alone")
    return tuple(found)


def _mounts(given: object, volumes: Sequence[Manifest], where: str) -> Sequence[Manifest]:
    found = [_map(each, where) for each in _list(given, where)]
    named = {each["name"] for each in volumes}
    for each in found:
        if each.get("name") not in named:
            raise ValueError(f"{where}: each needs the name of one of the volumes")
        path = each.get("mountPath")
        if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{where}: each needs a mountPath, absolute and without ..")
        if path.rstrip("/") == "" or any(f"{path}/".startswith(f"{each}/") for each in _PLACES):
            raise ValueError(f"{where}: nothing is mounted at {path[:100]}")
    return tuple(found)
