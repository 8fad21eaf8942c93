"""What is wrong with rendered objects, rule by rule: pure functions, each of which yields what it finds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kmm.api.metadata import LABEL_LONGEST, NAME_LONGEST, PREFIX, is_label_key, is_label_value, is_namespace
from kmm.contract import Kind

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_ENVIRONMENTS = ("env", "buildArgs")  # the latter of OpenShift's Builds
# Fields that refer to a Secret, in the kinds that are known.
_OF_SECRETS = (
    "secret",
    "secretRef",
    "secretKeyRef",
    "nodePublishSecretRef",
    "pushSecret",
    "pullSecret",
    "sourceSecret",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """What a renderer made of a request. `made`: as it was returned; `error`: what was raised instead.

    `changed`: whether the request was another one afterwards.
    """

    sample: str
    request: Any
    made: Any = None
    error: str = ""
    changed: bool = False

    @property
    def objects(self) -> Sequence[Any]:
        """The objects as JSON has them; none where JSON cannot have them, or they are no list."""
        if not isinstance(self.made, list | tuple) or list(_unwritable(self.made, "")):
            return []
        found: list[Any] = json.loads(json.dumps(self.made))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What a renderer may render. `words`: all texts that it is given, among which are the names of Secrets."""

    namespace: str
    owns: Collection[Kind]
    words: Collection[str] = field(default_factory=frozenset)


def unwritable(rendering: Rendering, allowed: Allowed) -> Iterator[str]:
    """Yield what JSON cannot write."""
    del allowed
    if isinstance(rendering.made, list | tuple):
        yield from _unwritable(rendering.made, "")


def _unwritable(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            if not isinstance(key, str):
                yield f"{path or 'an object'} has the key {key!r}, which is no string"
            yield from _unwritable(below, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, below in enumerate(value):
            yield from _unwritable(below, f"{path}[{index}]")
    elif not isinstance(value, str | bool | int | float | None):
        yield f"{path} is of type {type(value).__name__}"
    elif isinstance(value, float) and value - value != 0:
        yield f"{path} is {value}"


def foreign(rendering: Rendering, allowed: Allowed) -> Iterator[str]:
    """Yield the objects that are of none of the kinds that are owned."""
    known = {(kind.api_version, kind.kind) for kind in allowed.owns}
    for each in rendering.objects:
        kind = (each.get("apiVersion"), each.get("kind")) if isinstance(each, Mapping) else None
        if kind is None:
            yield f"{each!r:.80} is no object"
        elif kind not in known:
            owned = " and ".join(f"{kind.api_version} {kind.kind}" for kind in allowed.owns)
            yield f"{kind[0]} {kind[1]} is rendered, and only {owned} is in owns"


def misnamed(rendering: Rendering, allowed: Allowed) -> Iterator[str]:
    """Yield names and labels that the API server does not take."""
    del allowed
    for each in _maps(rendering.objects):
        name = _map(each, "metadata").get("name", "x")
        if not is_name(name):
            yield f'metadata.name: "{name!s:.80}" is no name'
        for path, metadata in _metadata(each):
            for key, value in _map(metadata, "labels").items():
                if not is_label_key(key) or not isinstance(value, str) or not is_label_value(value):
                    yield f'{path}.labels: "{key}: {value!s:.80}" is no label, which has {LABEL_LONGEST} characters'
        for path, pod in _pods(each):
            yield from _misnamed_parts(pod, path)


def is_name(value: object) -> bool:
    """Whether an object can have that name."""
    return isinstance(value, str) and len(value) <= NAME_LONGEST and bool(_SUBDOMAIN.fullmatch(value))


def _misnamed_parts(pod: Mapping[str, Any], path: str) -> Iterator[str]:
    for what, keys in (("container", _CONTAINERS), ("volume", ("volumes",))):
        names = [part.get("name") for key in keys for part in _maps(pod.get(key))]
        for name in names:
            if not isinstance(name, str) or not is_namespace(name):  # the same limits
                yield (
                    f'{path}: the {what} "{name!s:.80}": must be at most {LABEL_LONGEST} lower-case letters, digits '
                    "and dashes"
                )
            elif names.count(name) > 1:
                yield f'{path}: several of its {what}s are named "{name}"'


def usurped(rendering: Rendering, allowed: Allowed) -> Iterator[str]:
    """Yield what is the core's to say: its labels and annotations, owners, and another namespace."""
    for each in _maps(rendering.objects):
        namespace = _map(each, "metadata").get("namespace", allowed.namespace)
        if namespace != allowed.namespace:
            yield f'metadata.namespace: "{namespace!s:.80}": the core puts it where the Module is'
        for path, metadata in _metadata(each):
            if "ownerReferences" in metadata:
                yield f"{path}.ownerReferences: the owner is the Module, as the core says"
            for part in ("labels", "annotations"):
                for key in _map(metadata, part):
                    if key.startswith((PREFIX, f"beta.{PREFIX}")):
                        yield f"{path}.{part}: {key} is the core's"


def unknown_secrets(rendering: Rendering, allowed: Allowed) -> Iterator[str]:
    """Yield Secrets that are made, or referred to by a name that nobody gave."""
    for each in _maps(rendering.objects):
        if each.get("kind") == "Secret":
            yield "a Secret is rendered: what is in it is not known here"
        for name in _secret_names(each):
            if name not in allowed.words:
                yield f'the Secret "{name!s:.80}" is referred to, and the request names none like it'


def _secret_names(value: Any) -> Iterator[Any]:
    for key, below in _below(value):
        if key == "secretName":
            yield below
        elif key in _OF_SECRETS and isinstance(below, Mapping) and "name" in below:
            yield below["name"]
        elif key == "imagePullSecrets":
            yield from (each.get("name") for each in _maps(below))
        yield from _secret_names(below)


def exposed_secrets(rendering: Rendering, allowed: Allowed) -> Iterator[str]:
    """Yield Secrets that reach a container through its environment, and so perhaps its arguments."""
    del allowed
    for each in _maps(rendering.objects):
        yield from _exposed(each, "")


def _exposed(value: Any, path: str) -> Iterator[str]:
    """Yield them wherever they are: not every kind in which something runs has containers."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            here = f"{path}.{key}".strip(".")
            if key in _ENVIRONMENTS:
                for variable in _maps(below):
                    if "secretKeyRef" in _map(variable, "valueFrom"):
                        yield f"{here} has the Secret's key in {variable.get('name')}: mount it"
            if key == "envFrom" and any("secretRef" in source for source in _maps(below)):
                yield f"{here} has a Secret as its environment: mount it"
            yield from _exposed(below, here)
    elif isinstance(value, list | tuple):
        for index, below in enumerate(value):
            yield from _exposed(below, f"{path}[{index}]")


Finder = Callable[[Rendering, Allowed], Iterator[str]]
ALL: Sequence[Finder] = (unwritable, foreign, misnamed, usurped, unknown_secrets, exposed_secrets)


def words(value: Any) -> Iterator[str]:
    """Yield all texts in a value."""
    if isinstance(value, str):
        yield value
    for _, below in _below(value):
        yield from words(below)


def _below(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from (("", each) for each in value)


def _metadata(manifest: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the metadata of an object and of its templates, and where they are."""
    for key, below in _below(manifest):
        here = f"{path}.{key}".strip(".")
        if key == "metadata" and isinstance(below, Mapping):
            yield here, below
        else:
            yield from _metadata(below, here)


def _pods(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the specifications of pods in an object, and where they are."""
    if isinstance(value, Mapping) and isinstance(value.get("containers"), list):
        yield path, value
        return
    for key, below in _below(value):
        yield from _pods(below, f"{path}.{key}".strip("."))


def _maps(value: Any) -> Iterator[Mapping[str, Any]]:
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list | tuple) else iter(())


def _map(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}
