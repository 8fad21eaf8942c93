"""What renderers are asked to render, and told to observe: the least, everything, and what is at its limits.

Standard library only: a process in which a renderer is watched imports it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kmm.contract import (
    BuildArg,
    BuildRequest,
    DevicePluginRequest,
    ModuleRef,
    SecretFiles,
    SignRequest,
    Tls,
)

NAMESPACE = "kmm-conformance"
HOST = "registry.example.com"
KERNEL = "6.1.0-18-amd64"
SAID = "ld: cannot find -lacme: it is this that went wrong"
"""The last word of a container that fails."""

_LONG_KERNEL = "6.1.0-0.deb11.21-cloud-amd64-with-a-suffix-of-its-own-that-is-quite-long+"
_LONG = [f"{'n' * 200}.{'n' * 51}{last}" for last in "ab"]  # 253 characters, which is what a name may have
_NODES = {"node-role.kubernetes.io/worker": ""}
_TOLERATIONS = ({"key": "acme.example.com/nic", "operator": "Exists", "effect": "NoSchedule"},)


@dataclass(frozen=True, slots=True)
class Sample:
    """A request, and what it is called in messages."""

    name: str
    request: Any


def samples(field: str, requires: Sequence[str], params: Mapping[str, Any]) -> Sequence[Sample]:
    """Return what is asked of an offer of a kind, made anew each time. `requires`, `params`: of its Modules."""
    return list(_SAMPLES[field](frozenset(requires), params))


def _builds(requires: frozenset[str], params: Mapping[str, Any]) -> Iterator[Sample]:
    least = BuildRequest(
        module=ModuleRef(namespace=NAMESPACE, name="acme-nic"),
        kernel=KERNEL,
        architecture="amd64",
        dockerfile="FROM scratch\n",
        dockerfile_config_map="dockerfile",
        dockerfile_key="dockerfile",
        image=f"{HOST}/acme/nic:{KERNEL}",
        params=dict(params),
    )
    everything = dataclasses.replace(
        least,
        architecture="arm64",
        args=(
            BuildArg(name="KERNEL_FULL_VERSION", value=KERNEL),
            BuildArg(name="EMPTY", value=""),
            BuildArg(name="ODD", value="a b=$(HOME) $$ 'c' \"d\"\n-e"),
        ),
        secrets=(SecretFiles(name="build-token", keys=("token",)), SecretFiles(name="firmware", keys=("a", "b"))),
        push_secret="push",  # noqa: S106 -- the name of a Secret
        push_tls=Tls(insecure=True),
        base_tls=Tls(skip_verify=True),
        node_selector=dict(_NODES),
        tolerations=tuple(map(dict, _TOLERATIONS)),
        builder_tag="v1.0.0",
        inputs="0123456789abcdef" * 4,
    )
    limits = dataclasses.replace(
        everything,
        module=ModuleRef(namespace="n" * 20, name="m" * 30),
        kernel=_LONG_KERNEL,
        dockerfile_config_map=_LONG[0],
        dockerfile_key="Dockerfile",
        secrets=tuple(SecretFiles(name=each, keys=("key",)) for each in _LONG),
        push_secret=_LONG[0],
    )
    yield Sample("the least", _with(requires, least, everything))
    yield Sample("everything", everything)
    yield Sample("a build without a push", dataclasses.replace(everything, image=None))
    yield Sample("names at their limits", limits)


def _signatures(requires: frozenset[str], params: Mapping[str, Any]) -> Iterator[Sample]:
    least = SignRequest(
        module=ModuleRef(namespace=NAMESPACE, name="acme-nic"),
        kernel=KERNEL,
        unsigned_image=f"{HOST}/acme/nic:{KERNEL}-unsigned",
        image=f"{HOST}/acme/nic:{KERNEL}",
        dir_name="/opt",
        params=dict(params),
    )
    everything = dataclasses.replace(
        least,
        files=(f"/opt/lib/modules/{KERNEL}/acme.ko", f"/opt/lib/modules/{KERNEL}/extra/*.ko"),
        key_secret="key",  # noqa: S106 -- the name of a Secret
        cert_secret="cert",  # noqa: S106 -- likewise
        certificate="0123456789abcdef" * 4,
        push_secret="push",  # noqa: S106 -- likewise
        push_tls=Tls(insecure=True),
        unsigned_tls=Tls(skip_verify=True),
        node_selector=dict(_NODES),
        tolerations=tuple(map(dict, _TOLERATIONS)),
    )
    limits = dataclasses.replace(
        everything,
        module=ModuleRef(namespace="n" * 20, name="m" * 30),
        kernel=_LONG_KERNEL,
        key_secret=_LONG[0],
        cert_secret=_LONG[1],
        push_secret=_LONG[0],
    )
    yield Sample("the least", _with(requires, least, everything))
    yield Sample("everything", everything)
    yield Sample("a signature without a push", dataclasses.replace(everything, image=None))
    yield Sample("names at their limits", limits)


def _device_plugins(requires: frozenset[str], params: Mapping[str, Any]) -> Iterator[Sample]:
    least = DevicePluginRequest(
        module=ModuleRef(namespace=NAMESPACE, name="acme-nic"),
        image=f"{HOST}/acme/nic-device-plugin:1",
        node_selector=dict(_NODES),
        params=dict(params),
    )
    everything = dataclasses.replace(
        least,
        image_pull_policy="Always",
        command=("/device-plugin",),
        args=("--resource=acme.example.com/nic",),
        env=({"name": "LEVEL", "value": "debug"},),
        resources={"limits": {"memory": "64Mi"}, "requests": {"cpu": "10m"}},
        volume_mounts=({"name": "settings", "mountPath": "/etc/acme"},),
        volumes=({"name": "settings", "configMap": {"name": "acme"}},),
        init_container={"image": f"{HOST}/acme/nic-init:1", "command": ["/init"]},
        service_account_name="acme",
        pull_secret="pull",  # noqa: S106 -- the name of a Secret
        tolerations=tuple(map(dict, _TOLERATIONS)),
    )
    limits = dataclasses.replace(
        everything,
        module=ModuleRef(namespace="n" * 20, name="m" * 30),
        service_account_name=_LONG[0],
        pull_secret=_LONG[1],
    )
    yield Sample("the least", _with(requires, least, everything))
    yield Sample("everything", everything)
    yield Sample("names at their limits", limits)


_SAMPLES: Mapping[str, Callable[[frozenset[str], Mapping[str, Any]], Iterator[Sample]]] = {
    "builders": _builds,
    "signers": _signatures,
    "device_plugins": _device_plugins,
}


def differing(requires: Sequence[str], params: Mapping[str, Any], field: str) -> Sequence[BuildRequest]:
    """Return two requests to build that differ in one field alone: what a Module may say there, and nothing."""
    least, everything = (each.request for each in samples("builders", requires, params)[:2])
    (declared,) = (each for each in dataclasses.fields(BuildRequest) if each.name == field)
    factory = declared.default_factory
    nothing = declared.default if factory is dataclasses.MISSING else factory()
    return [dataclasses.replace(least, **{field: said}) for said in (getattr(everything, field), nothing)]


def _with(requires: frozenset[str], least: Any, everything: Any) -> Any:
    """Return the least request with what the renderer requires."""
    unset = {name: getattr(everything, name) for name in requires if not getattr(least, name)}
    return dataclasses.replace(least, **unset)


# ── What base images are asked about ──────────────────────────────────────────────────────────────────────────

OS_IMAGES = (
    "",
    "Red Hat Enterprise Linux CoreOS 416.94.202405291527-0 (Plow)",
    "Red Hat Enterprise Linux CoreOS 9.6.20250513-0 (Plow)",
    "CentOS Stream CoreOS 417.9.202409182219-0",
    "Fedora CoreOS 38.20230609.3.0",
    "Red Hat Enterprise Linux 9.4 (Plow)",
    "Debian GNU/Linux 12 (bookworm)",
    "Ubuntu 24.04.1 LTS",
    "SUSE Linux Enterprise Server 15 SP6",
    "Flatcar Container Linux by Kinvolk 3975.2.0 (Oklo)",
    "Talos (v1.7.0)",
    "\x00\n\N{ROCKET} 1.2.3",
    "CoreOS " + "1." * 5_000,
    " (" * 5_000,
)
"""What nodes say that they run."""

_TAGS = [{"name": "416.94.202405291527-0", "from": {"kind": "DockerImage", "name": f"{HOST}/toolkit@sha256:0"}}]
_SEEN = [{"tag": "latest", "items": [{"dockerImageReference": f"{HOST}/toolkit:1"}]}]
LISTS: Sequence[Mapping[str, Any]] = (
    {},
    {"metadata": None, "spec": None, "status": None, "data": None},
    {"metadata": {"name": "toolkit"}, "spec": {"tags": _TAGS}, "status": {"tags": _SEEN}},
    {"metadata": {"name": "toolkit"}, "spec": {"tags": [*_TAGS, None, 1, {}, {"name": 5}]}, "status": []},
    {"metadata": {"name": "toolkit"}, "data": {"24.04": f"{HOST}/headers:24.04", "": "", "list": "- a: 1"}},
)
"""Objects that may list images."""

RELEASES = (
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"KERNEL_VERSION": "5.14.0-427.el9.x86_64", "RT_KERNEL_VERSION": "5.14.0-427.el9.x86_64+rt"}',
    b'{"KERNEL_VERSION": ["5.14.0"], "RT_KERNEL_VERSION": 5}',
    f"{KERNEL}\n".encode(),
)
"""What release files may hold."""


# ── What the cluster says of it ───────────────────────────────────────────────────────────────────────────────


def states(objects: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Yield what may be seen of rendered objects and their pods: what it is called, the objects, the pods."""
    yield "just created", [dict(each) for each in objects], []
    yield "running", [_seen(each, _RUNNING) for each in objects], [_pod({"phase": "Running"})]
    yield "done", [_seen(each, _DONE) for each in objects], [_pod({"phase": "Succeeded"})]
    yield failed(objects)


def failed(objects: Sequence[Mapping[str, Any]]) -> tuple[str, list[Any], list[Any]]:
    """Return how a task that failed is seen."""
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": SAID}}
    pod = _pod({"phase": "Failed", "containerStatuses": [{"name": "task", "state": ended}]})
    return "failed", [_seen(each, _FAILED) for each in objects], [pod]


_RUNNING: Mapping[str, Any] = {
    "Job": {"active": 1},
    "Build": {"phase": "Running"},
    "DaemonSet": {"desiredNumberScheduled": 2, "numberAvailable": 1},
}
_DONE: Mapping[str, Any] = {
    "Job": {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]},
    "Build": {"phase": "Complete"},
    "DaemonSet": {"desiredNumberScheduled": 2, "numberAvailable": 2},
}
_FAILED: Mapping[str, Any] = {
    "Job": {"failed": 1, "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]},
    "Build": {"phase": "Failed", "reason": "DockerBuildFailed", "logSnippet": SAID},
    "DaemonSet": {"desiredNumberScheduled": 2, "numberAvailable": 0},
}
TASKS = ("Job", "Build")
"""Kinds of objects that end, and whose failure is known here."""


def _seen(manifest: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
    return {**manifest, "status": status.get(str(manifest.get("kind")), {})}


def _pod(status: Mapping[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "task-x7k2p"}, "status": {**status}}
