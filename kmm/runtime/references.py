"""The ConfigMaps and Secrets that Modules refer to: watched by their metadata, read by name when they changed.

Of a Secret only names of keys and digests are kept, never a value.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kmm.api.module import KernelMapping, ModuleLoaderContainer
from kmm.catalog import Catalog
from kmm.contract import Kind, Place
from kmm.core import names
from kmm.core.choice import signer_of
from kmm.core.loader_daemonset import service_account
from kmm.core.place import places, secret_key
from kmm.core.view import Operator, SecretFacts, Subject
from kmm.job import is_name
from kmm.runtime.kinds import CONFIG_MAP, SECRET, SERVICE_ACCOUNT, path_of, trim_version
from kmm.runtime.store import Item, Store
from kmm.runtime.transport import NotFound, Transport, Unreachable
from kmm.runtime.watch import Source, Watch

_NAMESPACES = 20  # with more of them, one watch of all is cheaper
_DOCKERFILE = ("dockerfile", "Dockerfile")
_EVERYWHERE = ""
_DER_BEGINS = b"\x30"
_PEM = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----([^-]*)-----END")


@dataclass(frozen=True, slots=True, kw_only=True)
class Referred:
    """What a Module refers to, as far as it exists.

    `dockerfiles`: with their key, by ConfigMap. `hidden`: the names of all Secrets that the Module itself names, also
    of those that are gone: tasks may quote them. `pull_secrets`: the names of those that registries are asked with,
    in the order to try them; `access` stands for their contents. `alone`: whether one of them is read by one task
    at a time.
    """

    dockerfiles: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, SecretFacts] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    pull_secrets: tuple[str, ...] = ()
    access: str = ""
    alone: bool = False


class References:
    """Follows what Modules refer to. `changed` hears the namespace of each change."""

    def __init__(
        self,
        transport: Transport,
        operator: Operator,
        catalog: Catalog,
        lock: threading.RLock,
        changed: Callable[[str], None],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._operator, self._signer = operator, signer_of(catalog, operator)
        self._transport, self._lock, self._changed, self._failed = transport, lock, changed, failed
        self._watches: dict[tuple[Kind, str], Watch[str]] = {}
        self._wanted: dict[str, set[tuple[Kind, str]]] = {}
        self._contents: dict[tuple[Kind, str, str], tuple[int, Any]] = {}

    def follow(self, subject: Subject) -> bool:
        """Follow what a Module refers to; return whether all of it has been listed."""
        wanted = {(kind, subject.ref.namespace) for kind, _ in referred(subject, self._operator)}
        wanted |= {(SECRET, namespace) for namespace, place in self._places(subject) if place.secrets}
        if (SERVICE_ACCOUNT, subject.ref.namespace) in wanted:
            wanted.add((SECRET, subject.ref.namespace))  # those that it names
        with self._lock:
            if wanted:
                self._wanted[subject.uid] = wanted
            else:
                self._wanted.pop(subject.uid, None)
            self._adjust()
            return all(self._store_of(*each) is not None for each in wanted)

    def forget(self, uid: str) -> None:
        """Follow no longer what a Module refers to that is gone."""
        with self._lock:
            if self._wanted.pop(uid, None):
                self._adjust()

    def read(self, subject: Subject) -> Referred:
        """Return what a Module refers to.

        Raises:
            ApiError, Unreachable: one of them cannot be read.
        """
        found: dict[Kind, dict[str, Any]] = {CONFIG_MAP: {}, SECRET: {}, SERVICE_ACCOUNT: {}}
        for kind, name in referred(subject, self._operator):
            found[kind][name] = self._content(kind, subject.ref.namespace, name)
        elsewhere: set[str] = set()
        alone = False
        for namespace, place in self._places(subject):
            alone = alone or bool(place.alone)
            for name in place.secrets:
                key = secret_key(namespace, name, subject.ref)
                found[SECRET][key] = self._content(SECRET, namespace, name)
                if namespace != subject.ref.namespace:
                    elsewhere.add(key)
        hidden = tuple(name for name in found[SECRET] if name not in elsewhere)
        pull = dict.fromkeys(_image_repo_secret(subject) if found[SERVICE_ACCOUNT] else ())
        for names_ in found[SERVICE_ACCOUNT].values():
            pull |= dict.fromkeys(names_ or ())
        secrets: dict[str, SecretFacts | None] = found[SECRET]
        for name in pull:
            secrets.setdefault(name, self._content(SECRET, subject.ref.namespace, name))
        return Referred(
            dockerfiles={name: each for name, each in found[CONFIG_MAP].items() if each},
            secrets={name: each for name, each in secrets.items() if each},
            hidden=hidden,
            alone=alone,
            pull_secrets=tuple(pull),
            access=names.digest(
                subject.ref.namespace, _image_repo_secret(subject), [[name, _seen(secrets[name])] for name in pull]
            )
            if pull
            else "",
        )

    def _places(self, subject: Subject) -> Iterator[tuple[str, Place]]:
        return places(subject, self._signer, self._operator)

    def followers(self, namespace: str) -> frozenset[str]:
        """Return the uids of the Modules that refer to something in a namespace."""
        with self._lock:
            return frozenset(
                uid for uid, wanted in self._wanted.items() if any(where == namespace for _, where in wanted)
            )

    def unsynced(self) -> list[str]:
        """Return what has not been listed yet."""
        with self._lock:
            return [
                f"{kind.plural} in {namespace or 'all namespaces'}"
                for (kind, namespace), watch in self._watches.items()
                if not watch.store.synced.is_set()
            ]

    def stop(self) -> None:
        """Follow nothing any more."""
        with self._lock:
            for watch in self._watches.values():
                watch.stop()

    def _heard(self, before: Item[str] | None, after: Item[str] | None) -> None:
        for each in {each.namespace for each in (before, after) if each}:
            self._changed(each)

    def _content(self, kind: Kind, namespace: str, name: str) -> Any:
        with self._lock:
            store = self._store_of(kind, namespace)
        if store is None:
            raise Unreachable(f"the {kind.plural} of {namespace} are not listed yet")
        item = store.get(namespace, name)
        key = (kind, namespace, name)
        if item is None:
            self._contents.pop(key, None)
            return None
        known = self._contents.get(key)
        if known is None or known[0] != item.version:
            try:
                body = self._transport.ask("GET", path_of(kind, namespace, name)).read()
            except NotFound:
                return None
            known = (item.version, _READ[kind](body))
            self._contents[key] = known
        return known[1]

    def _store_of(self, kind: Kind, namespace: str) -> Store[str] | None:
        """Return a store that has all of that kind and namespace; None where none has listed them yet."""
        found = (self._watches.get((kind, each)) for each in (_EVERYWHERE, namespace))
        return next((watch.store for watch in found if watch and watch.store.synced.is_set()), None)

    def _adjust(self) -> None:
        """Start the watches that are missing, stop those that nobody wants."""
        every: set[tuple[Kind, str]] = {each for wanted in self._wanted.values() for each in wanted}
        for kind in {kind for kind, _ in every}:
            if len({namespace for each, namespace in every if each == kind}) > _NAMESPACES:
                every = {each for each in every if each[0] != kind} | {(kind, _EVERYWHERE)}
        for kind, namespace in every - self._watches.keys():
            store: Store[str] = Store(self._lock)
            store.heard.append(self._heard)
            source = Source(path=path_of(kind, namespace), trim=trim_version, metadata_only=True)
            watch = self._watches[kind, namespace] = Watch(self._transport, source, store, self._failed)
            watch.start()
        for kind, namespace in self._watches.keys() - every:
            follower = self._watches.get((kind, _EVERYWHERE))
            if follower and namespace and not follower.store.synced.is_set():
                continue  # it goes once the other one knows all that it knows
            self._watches.pop((kind, namespace)).stop()
            for key in [each for each in self._contents if each[:2] == (kind, namespace)]:
                del self._contents[key]


def referred(subject: Subject, operator: Operator) -> Iterator[tuple[Kind, str]]:
    """Yield what builds and signatures of a Module need, each once."""
    loader = subject.spec.module_loader if subject.spec else None
    container = loader.container if loader else None
    if container is None:
        return
    parts: tuple[ModuleLoaderContainer | KernelMapping, ...] = (container, *container.kernel_mappings)
    found: dict[tuple[Kind, str | None], None] = {}
    if loader and any(part.build or part.sign for part in parts):  # only such images are asked for
        account = service_account(subject, loader.service_account_name, names.LOADER, operator) or "default"
        found[SERVICE_ACCOUNT, account] = None
        found |= {(SECRET, name): None for name in _image_repo_secret(subject)}
    for part in parts:
        if part.build:
            found[CONFIG_MAP, part.build.dockerfile_config_map.name] = None
            found |= {(SECRET, each.name): None for each in part.build.secrets}
        if part.sign:
            found |= {(SECRET, each.name): None for each in (part.sign.cert_secret, part.sign.key_secret) if each}
    yield from ((kind, name) for kind, name in found if name)


def _seen(secret: SecretFacts | None) -> str:
    return secret.digest if secret else ""


def _image_repo_secret(subject: Subject) -> tuple[str, ...]:
    secret = subject.spec.image_repo_secret if subject.spec else None
    return (secret.name,) if secret and secret.name else ()


def facts(data: Mapping[str, str], kind: str = "", uid: str = "") -> SecretFacts:
    """Return what may be known of a Secret of a type."""
    digest = names.digest(data, kind) if kind not in ("", "Opaque") else names.digest(data)
    return SecretFacts(
        keys=tuple(sorted(data)),
        digest=digest,
        certificate=_fingerprint(data.get("cert")),
        sealed=names.digest(data, uid),
    )


def _fingerprint(encoded: str | None) -> str:
    """Return the sha256 of a certificate, DER or PEM (of several the first), or an empty text.

    As kmm.signing.certificate has it, which signers record: two that differ would sign again and again.
    """
    if not encoded:
        return ""
    try:
        der = base64.b64decode(encoded)
        if not der.startswith(_DER_BEGINS) and (found := _PEM.search(der)):
            der = base64.b64decode(found[1])
    except ValueError:
        return ""
    return hashlib.sha256(der).hexdigest()


def _dockerfile(data: Mapping[str, str]) -> tuple[str, str] | None:
    return next(((key, data[key]) for key in _DOCKERFILE if key in data), None)


_READ: dict[Kind, Callable[[Mapping[str, Any]], Any]] = {
    CONFIG_MAP: lambda body: _dockerfile(body.get("data") or {}),
    SECRET: lambda body: facts(body.get("data") or {}, str(body.get("type") or ""), body["metadata"].get("uid", "")),
    SERVICE_ACCOUNT: lambda body: tuple(
        each["name"] for each in body.get("imagePullSecrets") or () if is_name(each.get("name"))
    ),
}
