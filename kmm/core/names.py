"""Names, labels and annotations: strings that users, dashboards and the Go operator's objects depend on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from kmm.api.metadata import LABEL_LONGEST, PREFIX

MODULE_NAME = f"{PREFIX}module.name"
KERNEL = f"{PREFIX}kernel-version.full"
ROLE = f"{PREFIX}role"
TARGET_KERNEL = f"{PREFIX}target-kernel"
JOB_TYPE = f"{PREFIX}job-type"
LAST_HASH = f"{PREFIX}last-hash"
APPLIED_GENERATION = f"{PREFIX}applied-generation"
VERBATIM_KERNEL = f"{PREFIX}kernel"
ATTEMPT = f"{PREFIX}attempt"
INPUTS = f"{PREFIX}inputs"
PROVIDER = f"{PREFIX}provider"
MODULE_NAMESPACE = f"{PREFIX}module.namespace"  # of what is in the operator's, on behalf of a Module elsewhere
MODULE_UID = f"{PREFIX}module-uid"  # likewise, as it has no owner
ALONE = f"{PREFIX}alone"  # stands for the Secret that a task reads alone, and for what it holds; its pods' label, too
ALONE_WITH = f"{PREFIX}alone-with"  # the name of that Secret, which is where the task is
OBJECTS = f"{PREFIX}objects"  # how many make an attempt, where it is more than one
HELD_BY_THE_GO_OPERATOR = f"{PREFIX}node-labeler"  # its finalizer on pods
CERTIFICATE = f"{PREFIX}certificate"

LOADER = "module-loader"
DEVICE_PLUGIN = "device-plugin"

_NAME_KEPT = 40
_READY = re.compile(rf"{re.escape(PREFIX)}(?!version-module\.).+\.(ready|device-plugin-ready)")


def ready_label(namespace: str, name: str) -> str:
    """Return the label of nodes on which a Module's driver is loaded."""
    return f"{PREFIX}{namespace}.{name}.ready"


def device_plugin_ready_label(namespace: str, name: str) -> str:
    """Return the label of nodes on which a Module's device plugin is ready."""
    return f"{PREFIX}{namespace}.{name}.device-plugin-ready"


def older_labels(name: str) -> tuple[str, str] | None:
    """Return the two labels without a namespace, or None where they could spell another Module's label."""
    if "." in name:
        return None
    return f"{PREFIX}{name}.ready", f"{PREFIX}{name}.device-plugin-ready"


def is_ready_label(label: str) -> bool:
    """Whether a node's label is one of those that say that something of a Module is ready."""
    return _READY.fullmatch(label) is not None


def fits(label: str) -> bool:
    """Whether a label's name is short enough for the API server."""
    return len(label.rpartition("/")[2]) <= LABEL_LONGEST


def canonical(value: Any) -> bytes:
    """Return the one way to write a JSON value, for hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(*values: Any, length: int = 64) -> str:
    """Return `length` hex digits of the sha256 of JSON values."""
    return hashlib.sha256(canonical(values)).hexdigest()[:length]


def daemon_set_name(module: str, uid: str, role: str, kernel: str, version: str | None) -> str:
    """Return the one name that this DaemonSet can have, so that a late create can never double it."""
    middle = "" if role == LOADER else f"{DEVICE_PLUGIN}-"
    return f"{_cut(module)}-{middle}{digest(uid, role, kernel, version, length=10)}"


def task_name(module: str, job_type: str, inputs: str, attempt: int) -> str:
    """Return the name of one attempt at a build or a signature, at most 63 characters."""
    return f"{_cut(module)}-{job_type}-{digest(inputs, attempt, length=10)}"


def _cut(name: str) -> str:
    return name[:_NAME_KEPT].rstrip("-.")


def kernel_label_values(kernels: Iterable[str]) -> Mapping[str, str]:
    """Return the label value of each kernel in a cluster, no two the same and each at most 63 characters."""
    return _kernel_label_values(frozenset(kernels))


def is_label_of(label: str, kernel: str) -> bool:
    """Whether a label's value is, in whatever cluster, that of a kernel."""
    plain = _plain_label(kernel)
    return label in (plain, _with_hash(kernel, plain))


@lru_cache(maxsize=16)
def _kernel_label_values(kernels: frozenset[str]) -> Mapping[str, str]:
    plain = {kernel: _plain_label(kernel) for kernel in kernels}
    count: dict[str, int] = {}
    for value in plain.values():
        count[value] = count.get(value, 0) + 1
    hashed = {kernel: _with_hash(kernel, value) for kernel, value in plain.items()}
    spelt = set(hashed.values())  # a kernel's own name may spell what another one is cut to
    labels = {
        kernel: value
        if count[value] == 1 and 0 < len(value) <= LABEL_LONGEST and value not in spelt
        else hashed[kernel]
        for kernel, value in plain.items()
    }
    return MappingProxyType(labels)


def _plain_label(kernel: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", kernel.removesuffix("+"))
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$", "", safe)


def _with_hash(kernel: str, value: str) -> str:
    suffix = "-" + hashlib.sha256(kernel.encode("utf-8", "replace")).hexdigest()[:8]
    return (value[: LABEL_LONGEST - len(suffix)] + suffix).lstrip("-._")
