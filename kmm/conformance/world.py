"""A cluster in this process with an operator in it: what judges rendered objects, and where Modules live."""

from __future__ import annotations

import base64
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kmm.api.crd import custom_resource_definition
from kmm.api.kinds import KIND_BY_NAME
from kmm.api.module import ModuleSpec
from kmm.api.schema import load
from kmm.catalog import Catalog, Plugin, build_catalog
from kmm.config import Config
from kmm.conformance.contract import broken
from kmm.conformance.rendered import Rendering
from kmm.conformance.subject import Subject
from kmm.contract import Access, ImageInfo, Kind, Manifest, ModuleRef, Renderer
from kmm.core import names
from kmm.core.device_plugin import render_device_plugin
from kmm.core.loader_daemonset import DAEMON_SET
from kmm.core.reasons import Reason
from kmm.core.rendered import finished, finished_task, kind_of
from kmm.core.view import Operator
from kmm.core.view import Subject as Judged
from kmm.embedded.cluster import Cluster
from kmm.embedded.kubelet import Pace as KubeletPace
from kmm.errors import KmmError, PluginError
from kmm.job import JOB
from kmm.runtime.app import App, Options
from kmm.runtime.controller import Pace
from kmm.runtime.kinds import CONFIG_MAP, MODULE, NAMESPACE, NODE, POD, SECRET, path_of
from kmm.runtime.probes import Patience
from kmm.runtime.transport import ApiError, NotFound, Transport, connect

_HOST = "images.kmm-conformance.example"
_KERNELS = ("6.1.0-18-amd64", "6.9.0-1-amd64")
_DIGEST = "sha256:" + "0" * 64
_LOOK_S = 0.02
_DEFINITIONS = Kind(
    api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition", plural="customresourcedefinitions"
)
# Where all images are there that a Job has made, and no Job fails, nothing else gets over these.
_FATAL = (Reason.BUILD_FAILED, Reason.SIGN_FAILED, Reason.BUILT_BUT_NOT_FOUND, Reason.RENDERER_FAILED)
_QUICK = Options(
    elect=False,
    pace=Pace(workers=4, node_every_s=0.05, status_every_s=0.05, asking_s=0.1, taken_s=0.2),
    patience=Patience(retry_s=0.2),
)


# ── What an API server takes ──────────────────────────────────────────────────────────────────────────────────


def unknown_to(kubeconfig: Path | str, kinds: Iterable[Kind]) -> list[str]:
    """Return the kinds that an API server does not have."""
    api = connect(Path(kubeconfig), connections=1)
    found = []
    for kind in kinds:
        try:
            api.ask("GET", path_of(kind, "default"), query={"limit": "1"}, timeout_s=30)
        except NotFound:
            found.append(f"{kind.kind} of {kind.api_version}")
    return found


def judged_by(
    kubeconfig: Path | str, field: str, renderer: Renderer[Any], renderings: Sequence[Rendering]
) -> Iterator[str]:
    """Yield what an API server says against rendered objects; nothing is stored."""
    api = connect(Path(kubeconfig), connections=1)
    for rendering in renderings:
        try:
            manifests = list(_finished(field, renderer, rendering))
        except PluginError as error:
            yield f"{rendering.sample}: {error}"
            continue
        for kind, manifest in manifests:
            try:
                query = {"dryRun": "All", "fieldValidation": "Strict"}
                api.ask("POST", path_of(kind, "default"), manifest, query=query, timeout_s=30)
            except KmmError as error:
                yield f"{rendering.sample}: {kind.kind}: {error}"


def _finished(field: str, renderer: Renderer[Any], rendering: Rendering) -> Iterator[tuple[Kind, Manifest]]:
    """Yield rendered objects as the core finishes them, for the namespace `default`. Raises PluginError."""
    ref = ModuleRef(namespace="default", name=rendering.request.module.name)
    spec, _ = load(ModuleSpec, {"selector": {}, "driver": "acme", "devicePlugin": {"container": {"image": "acme"}}})
    subject = Judged(ref=ref, uid="00000000-0000-0000-0000-000000000000", spec=spec)
    if field == "device_plugins":
        # Not what it renders for that specification, but what it has rendered.
        made = render_device_plugin(subject, _Again(renderer, rendering.objects), Operator())
        labels = made["spec"]["selector"]["matchLabels"]
        yield DAEMON_SET, finished(made, subject, "conformance", labels, {})
        return
    labels = {names.MODULE_NAME: ref.name, names.JOB_TYPE: "build", names.TARGET_KERNEL: "6.1.0"}
    for each in rendering.objects:
        yield kind_of(each, renderer.owns), finished_task(each, subject, "conformance", labels, {})


class _Again:
    """A renderer that renders what another one has rendered."""

    def __init__(self, renderer: Renderer[Any], objects: Sequence[Manifest]) -> None:
        self.name, self.owns, self.requires = renderer.name, renderer.owns, renderer.requires
        self.observe = renderer.observe
        self._objects = objects

    def render(self, request: object) -> Sequence[Manifest]:  # noqa: ARG002
        return self._objects


# ── Where Modules live ────────────────────────────────────────────────────────────────────────────────────────


class World:
    """A cluster without nodes: each life brings its own, and a namespace. `patience_s`: for each thing to happen."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._cluster = Cluster(pace=KubeletPace(relist_s=0.05, back_off_s=0.2))
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        self._cluster.__enter__()
        try:
            self.kubeconfig = self._cluster.kubeconfig()
            self._api = connect(self.kubeconfig)
            definition = custom_resource_definition(KIND_BY_NAME["Module"])
            self._api.ask("POST", path_of(_DEFINITIONS), definition)
            self._wait("Modules are known", lambda: self._there(MODULE), dict)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.__exit__(kind, error, trace)

    def live(self, subject: Subject, field: str, offer: str, params: Mapping[str, Any]) -> None:
        """Let a Module live that uses an offer; say where that goes wrong."""
        life = f"life-{next(self._numbers)}"
        nodes = (f"{life}-a", f"{life}-b")
        self._furnish(life, nodes)
        catalog = _catalog(subject, field, offer, _Images(self._api, life))
        config = replace(
            Config(), builder=offer, signer=offer, metrics_address="127.0.0.1:0", health_address="127.0.0.1:0"
        )
        app = App(config, catalog, connect(self.kubeconfig), _QUICK)
        app.start()
        try:
            self._lead(life, nodes, _spec(life, field, offer, params), field)
        finally:
            app.stop()

    def _lead(self, life: str, nodes: Sequence[str], spec: Mapping[str, Any], field: str) -> None:
        module = {"apiVersion": MODULE.api_version, "kind": MODULE.kind, "metadata": {"name": "acme"}, "spec": spec}
        label = names.device_plugin_ready_label if field == "device_plugins" else names.ready_label
        ready = label(life, "acme")

        def status() -> Mapping[str, Any]:
            found: Mapping[str, Any] = self._api.ask("GET", path_of(MODULE, life, "acme")).read().get("status") or {}
            return found

        self._api.ask("POST", path_of(MODULE, life), module)

        def is_ready() -> bool:
            found = status()
            for each in (*(found.get("kernels") or ()), *(found.get("conditions") or ())):
                if each["reason"] in _FATAL:
                    broken(f"the Module is not Ready: {each['reason']}: {each['message']}")
            return _has_condition(found, "Ready")

        self._wait("the Module is Ready", is_ready, status)
        self._wait("its nodes are labelled", lambda: all(ready in self._labels(each) for each in nodes), status)
        self._cluster.change_kernel(nodes[0], _KERNELS[1])
        self._wait(
            "a node that came back with another kernel is labelled anew",
            lambda: _kernels(status()) == set(_KERNELS) and is_ready() and ready in self._labels(nodes[0]),
            status,
        )
        self._api.ask("DELETE", path_of(MODULE, life, "acme"))
        self._wait("all is gone that was made for the Module", lambda: not self._left(life), lambda: self._left(life))
        self._wait("its labels are gone", lambda: not any(ready in self._labels(each) for each in nodes), dict)

    def _furnish(self, life: str, nodes: Sequence[str]) -> None:
        privileged = {"pod-security.kubernetes.io/enforce": "privileged"}
        self._api.ask("POST", path_of(NAMESPACE), {"metadata": {"name": life, "labels": privileged}})
        self._api.ask(
            "POST", path_of(CONFIG_MAP, life), {"metadata": {"name": "dockerfile"}, "data": {"dockerfile": "FROM a"}}
        )
        for name, (key, content) in _SECRETS.items():
            data = {key: base64.b64encode(content).decode()}
            kind = "kubernetes.io/dockerconfigjson" if name == "push" else "Opaque"
            self._api.ask("POST", path_of(SECRET, life), {"metadata": {"name": name}, "type": kind, "data": data})
        for each in nodes:
            self._cluster.add_node(each, _KERNELS[0], labels={"life": life})

    def _labels(self, node: str) -> Mapping[str, str]:
        found: Mapping[str, str] = self._api.ask("GET", path_of(NODE, name=node)).read()["metadata"]["labels"]
        return found

    def _left(self, life: str) -> Sequence[str]:
        """Return what a life has left in its namespace."""
        return [
            f"{kind.kind} {each['metadata']['name']}"
            for kind in (DAEMON_SET, JOB, POD)
            for each in self._api.ask("GET", path_of(kind, life)).read()["items"]
        ]

    def _there(self, kind: Kind) -> bool:
        try:
            self._api.ask("GET", path_of(kind, "default"))
        except ApiError:
            return False
        return True

    def _wait(self, what: str, look: Callable[[], bool], seen: Callable[[], object]) -> None:
        until = time.monotonic() + self._patience_s
        while not look():
            if time.monotonic() > until:
                broken(f"this has not come about within {self._patience_s:.0f} s: {what}; last seen: {seen()!s:.600}")
            time.sleep(_LOOK_S)


_SECRETS = {
    "push": (".dockerconfigjson", b'{"auths": {}}'),
    "build-token": ("token", b"a-token"),
    "key": ("key", b"a key"),
    "cert": ("cert", b"a certificate"),
}


def _spec(life: str, field: str, offer: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the specification of a Module that uses an offer, with whatever it may require."""
    task: dict[str, Any] = {}
    more: dict[str, Any] = {}
    if field == "builders":
        task["build"] = {
            "builder": offer,
            "dockerfileConfigMap": {"name": "dockerfile"},
            "buildArgs": [{"name": "KERNEL", "value": "${KERNEL_FULL_VERSION}"}],
            "secrets": [{"name": "build-token"}],
            "params": params,
        }
    elif field == "signers":
        task["sign"] = {
            "signer": offer,
            "unsignedImage": f"{_HOST}/acme/unsigned:1",
            "keySecret": {"name": "key"},
            "certSecret": {"name": "cert"},
            "filesToSign": ["/opt/lib/modules/${KERNEL_FULL_VERSION}/acme.ko"],
            "params": params,
        }
    else:
        container = {"image": f"{_HOST}/acme/device-plugin:1", "command": ["/plugin"]}
        more["devicePlugin"] = {"renderer": offer, "container": container, "params": params}
    mapping = {"regexp": ".", "containerImage": f"{_HOST}/acme/nic:${{KERNEL_FULL_VERSION}}"}
    return {
        "selector": {"life": life},
        "imageRepoSecret": {"name": "push"},
        "moduleLoader": {"container": {"modprobe": {"moduleName": "acme"}, "kernelMappings": [{**mapping, **task}]}},
        **more,
    }


def _catalog(subject: Subject, field: str, offer: str, images: _Images) -> Catalog:
    """Return one offer of the plugin, and where its images are."""
    plugin = subject.plugin
    if plugin is None:
        broken(f"{subject.name} is refused")
    offers: dict[str, Any] = {field: (subject.offered(field, offer),)}
    alone = replace(
        plugin, **{"builders": (), "signers": (), "device_plugins": (), "registries": (), "drivers": (), **offers}
    )
    about = Plugin(name="conformance", distribution="kmm-operator", version="", registries=(images,))
    return build_catalog([alone, about])


class _Images:
    """A registry that has what a life's Jobs have made, each for its kernel, and what none of them makes."""

    name = "conformance"
    hosts = (_HOST,)

    def __init__(self, api: Transport, life: str) -> None:
        self._api, self._life = api, life
        self._made: set[str] = set()
        self._lock = threading.Lock()

    def inspect(
        self, image: str, access: Access, deadline_s: float, files: Sequence[str] = (), annotations: bool = False
    ) -> ImageInfo | None:
        """Say whether a Job that is complete has made it: its tag is the kernel."""
        del access, deadline_s, files, annotations
        jobs = self._api.ask("GET", path_of(JOB, self._life)).read()["items"]
        with self._lock:
            # What has been made stays, and its Job does not.
            self._made |= {each["metadata"]["annotations"][names.VERBATIM_KERNEL] for each in jobs if _is_done(each)}
            tag = image.rpartition(":")[2]
            return ImageInfo(digest=_DIGEST) if tag in self._made or tag not in _KERNELS else None


def _is_done(job: Manifest) -> bool:
    return _has_condition(job.get("status") or {}, "Complete")


def _has_condition(status: Manifest, kind: str) -> bool:
    return any((each["type"], each["status"]) == (kind, "True") for each in status.get("conditions") or ())


def _kernels(status: Manifest) -> set[str]:
    return {each["kernelVersion"] for each in status.get("kernels") or ()}
