"""What Kubernetes keeps about every object, and names within its limits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kmm.api.schema import number, shown, string_map, text
from kmm.contract import Finding

GROUP = "kmm.sigs.x-k8s.io"
HUB_GROUP = "hub.kmm.sigs.x-k8s.io"
VERSION = "v1beta1"
PREFIX = "kmm.node.kubernetes.io/"

NAME_LONGEST = 253
LABEL_LONGEST = 63
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
"""What objects are named: it leaves no room for the path of another."""
_SUBDOMAIN = re.compile(NAME_PATTERN)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMeta:
    """The part of an object's metadata that is ours to read."""

    name: str | None = text("Name of the object")
    generate_name: str | None = text("Beginning of a name that the API server completes")
    namespace: str | None = text("Namespace of the object")
    labels: Mapping[str, str] = string_map("Labels of the object")
    annotations: Mapping[str, str] = string_map("Annotations of the object")
    uid: str | None = text("Identity of the object, never used twice")
    resource_version: str | None = text("Version of the stored object")
    generation: int = number("Version of its specification", bits=64)
    creation_timestamp: str | None = text("When it was created")
    deletion_timestamp: str | None = text("When its deletion was asked for")


# What else `kubectl get -o yaml` shows in metadata.
NOT_READ = ("deletionGracePeriodSeconds", "finalizers", "managedFields", "ownerReferences", "selfLink")


def is_label_value(value: str) -> bool:
    """Whether a label can have this value."""
    return len(value) <= LABEL_LONGEST and _LABEL_VALUE.fullmatch(value) is not None


def is_label_key(key: str) -> bool:
    """Whether a label can have this key."""
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= NAME_LONGEST and _SUBDOMAIN.fullmatch(prefix)):
        return False
    return bool(name) and is_label_value(name)


def name_findings(metadata: ObjectMeta, *, namespaced: bool) -> Iterator[Finding]:
    """Yield what is wrong with an object's name and namespace."""
    # The API server appends five characters to generateName.
    name = f"{metadata.generate_name}12345" if metadata.name is None and metadata.generate_name else metadata.name
    where = "metadata.generateName" if metadata.name is None and metadata.generate_name else "metadata.name"
    if name is None:
        yield Finding(path=where, message="is required: every object has a name")
    elif len(name) > NAME_LONGEST:
        yield Finding(path=where, message=f"must have at most {NAME_LONGEST} characters, not {len(name):,}")
    elif not _SUBDOMAIN.fullmatch(name):
        yield Finding(
            path=where,
            message=f"{shown(metadata.name or metadata.generate_name)} must be lower-case letters, digits, dashes "
            "and dots, with a letter or digit at both ends of each part between dots",
        )
    namespace = metadata.namespace
    if namespace is not None and not namespaced:
        yield Finding(path="metadata.namespace", message="must be absent: this kind belongs to no namespace")
    elif namespace is not None and not is_namespace(namespace):
        yield Finding(path="metadata.namespace", message=f"{shown(namespace)} {NAMESPACE_RULE}")


NAMESPACE_RULE = (
    f"must be at most {LABEL_LONGEST} lower-case letters, digits and dashes, with a letter or digit at both ends"
)


def is_namespace(name: str) -> bool:
    """Whether a namespace can have this name."""
    return len(name) <= LABEL_LONGEST and _NAMESPACE.fullmatch(name) is not None
