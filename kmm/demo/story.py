"""The demo itself: what is done, what has to come of it, and how long that may take."""

from __future__ import annotations

import base64
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import urllib3
import yaml

from kmm.api.crd import custom_resource_definition
from kmm.api.kinds import KINDS
from kmm.contract import Access
from kmm.core import names
from kmm.demo import cast, keys
from kmm.demo import vendor as vendors
from kmm.demo.builder import compiled, text_of
from kmm.demo.node import Nodes
from kmm.demo.operator import OperatorProcess
from kmm.demo.screen import Screen
from kmm.demo.vendor import Vendor
from kmm.embedded.cluster import Cluster
from kmm.embedded.kubelet import Pace
from kmm.embedded.pull import from_registry
from kmm.embedded.registry import Registry
from kmm.errors import KmmError, PluginError
from kmm.oci.address import Addresses, parse_networks
from kmm.oci.session import Session
from kmm.runtime.kinds import MODULE, path_of
from kmm.runtime.transport import MERGE_PATCH, Transport, connect
from kmm.signing import verification

_PATIENCE_S = 60.0  # a machine may be slow; what is shown is how long it took
_LOOK_S = 0.05
_ANSWER_S = 5.0
_SPEED = "25G"  # what the card does with the arguments of its Module
_ACTIONS = ("Create", "Replace", "Delete")
_DAEMON_SETS = f"/apis/apps/v1/namespaces/{cast.NAMESPACE}/daemonsets"


class StoryError(KmmError):
    """Something that should have happened has not: the demo has failed, and says what."""


class Story:
    """A cluster, a registry and an operator, and what an administrator does with them."""

    def __init__(self, screen: Screen, stack: ExitStack, plugins: Path | None) -> None:
        self.screen = screen
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kmm-demo-")))
        session = Session(Addresses(allowed=parse_networks(["127.0.0.0/8"])), environ={})
        stack.callback(session.close)
        self.registry = stack.enter_context(Registry(auth="bearer", users={"robot": "s3cret"}, public=("*",)))
        access = Access(ca_pem=self.registry.ca_pem)
        self.pair = keys.make()
        self._lacking = ""
        self.vendor = self._find_vendor(needed=plugins is not None)
        firmware = [cast.FIRMWARE, *([self.vendor.firmware] if self.vendor else [])]
        self.nodes = Nodes(session, access, firmware, self.pair.certificate(), self._of_node)
        pull = from_registry({self.registry.host: access})
        self.cluster = stack.enter_context(
            Cluster(program=self.nodes.run, pull=pull, pace=Pace(relist_s=0.05, back_off_s=0.5))
        )
        self.kubeconfig = self.cluster.kubeconfig()
        self.api: Transport = connect(self.kubeconfig)
        self.counts: Counter[str] = Counter()
        self._furnish()
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(cast.configuration(self.registry, self.vendor)))
        self.operator = OperatorProcess(
            self.cluster.kubeconfig(self.cluster.token("operator")),
            config,
            cast.NAMESPACE,
            plugins,
            self._of_operator,
        )
        stack.callback(self.operator.stop)

    def _find_vendor(self, *, needed: bool) -> Vendor | None:
        try:
            return vendors.find(self.registry.host, cast.vendors_module(), (*cast.KERNELS, cast.NEW_KERNEL))
        except PluginError as error:
            if needed:
                raise StoryError(f"there is no driver of a vendor: {error}") from None
            self._lacking = str(error)
            return None

    # ── What is done ──────────────────────────────────────────────────────────────────────────────────────────

    def play(self) -> None:
        """Play all of it. Raises StoryError where something does not happen."""
        self._apply()
        self._upgrade_while_the_registry_is_away()
        self._mend_the_mistake()
        self._delete()

    def _furnish(self) -> None:
        images = cast.push_images(self.registry, self.pair, self.vendor)
        create, resource = self.cluster.objects.create, self.cluster.objects.resource
        for kind in KINDS:
            self.cluster.call(create, resource("CustomResourceDefinition"), "", custom_resource_definition(kind))
        self._post("/api/v1/namespaces", {"metadata": {"name": cast.NAMESPACE}})
        core = f"/api/v1/namespaces/{cast.NAMESPACE}"
        for account in ("kmm-operator-module-loader", "kmm-operator-device-plugin"):
            self._post(f"{core}/serviceaccounts", {"metadata": {"name": account}})
        self._post(f"{core}/configmaps", {"metadata": {"name": "nic"}, "data": {"dockerfile": cast.DOCKERFILE}})
        authority = {"ca.crt": self.registry.ca_pem}
        self._post(f"{core}/configmaps", {"metadata": {"name": "registry-ca"}, "data": authority})
        self._secret("nic-firmware", Path(cast.FIRMWARE).name, cast.FIRMWARE_BYTES)
        self._secret("signing-key", "key", self.pair.key_pem)
        self._secret("signing-cert", "cert", self.pair.certificate_pem)
        login = self.registry.docker_config("robot").encode()
        self._secret("registry", ".dockerconfigjson", login, "kubernetes.io/dockerconfigjson")
        for node, kernel in cast.NODES.items():
            self.cluster.add_node(node, kernel, labels=cast.WORKERS)
        self.screen.chapter("A cluster, and a registry, in this process")
        self.screen.line("cluster", f"API server at {self.cluster.url}, {len(cast.NODES)} nodes on 3 kernels")
        self.screen.line("registry", f"{self.registry.url}, with Bearer tokens and an own CA: {images} images")
        if self.vendor:
            self.screen.line("vendor", f"{vendors.DISTRIBUTION} {self.vendor.version}: its driver takes part")
        else:
            self.screen.line("vendor", f"none takes part: {self._lacking}")
        self.screen.line("nodes", f"their kernels load only what is signed: they trust {self.pair.certificate()}")

    def _apply(self) -> None:
        self.screen.chapter(f"An administrator applies {'four' if self.vendor else 'three'} Modules")
        path = path_of(MODULE, cast.NAMESPACE)
        for module in cast.modules(self.registry, self.vendor):
            self._post(path, module)
            name = module["metadata"]["name"]
            self.screen.line("apply", f"Module {name}: {_TOLD[name]}")
        self._wait("every driver is loaded on its six nodes", lambda: self._loaded(*self._drivers))
        self._wait("the card's firmware is on the nodes", lambda: self._has_firmware(cast.FIRMWARE))
        self._wait(
            "its device plugin runs where the driver is loaded", lambda: self._available("nic") == len(cast.NODES)
        )
        self._wait("these Modules are Ready", lambda: all(map(self._ready, self._right)))
        if self.vendor:
            self._look_at_the_vendors(self.vendor)
        self._wait(
            "the one with a mistake says so", lambda: "did you mean" in self._said("tired", "PluginsAvailable")
        )
        self.screen.line("tired", self._said("tired", "PluginsAvailable"), "yellow")

    def _look_at_the_vendors(self, vendor: Vendor) -> None:
        """Look at what only a vendor's own package can do."""
        name, who = cast.VENDORS_MODULE, f"{vendors.DISTRIBUTION} {vendor.version}"
        self._wait(f"the firmware that {who} brings is on the nodes", lambda: self._has_firmware(vendor.firmware))
        self._wait("so is its device plugin", lambda: self._available(name) == len(cast.NODES))
        (made,) = (each for each in self._daemon_sets() if _of(each, names.DEVICE_PLUGIN) == name)
        pod = made["spec"]["template"]["spec"]
        probes = [key for key in pod["containers"][0] if key.endswith("Probe")]
        if not probes:
            raise StoryError(
                "the vendor's device plugin has no probe: it is not as the vendor's own renderer makes it"
            )
        self.screen.line(name, f"by a renderer of its own: {', '.join(probes)}")
        self.screen.line(name, f"volumes {', '.join(each['name'] for each in pod['volumes'])}")
        self._wait("the operator serves the metrics that it counts", lambda: vendors.METRIC in self._metrics())
        self.screen.line(name, next(each for each in self._metrics().splitlines() if vendors.METRIC in each))

    def _upgrade_while_the_registry_is_away(self) -> None:
        node = "node-1"
        self.screen.chapter(f"The registry breaks down, and {node} comes back with another kernel")
        uids = {each["metadata"]["uid"] for each in self._daemon_sets()}
        with self.registry.down():
            self.nodes.restarted(node)
            self.cluster.change_kernel(node, cast.NEW_KERNEL)
            self.screen.line(node, f"now runs {cast.NEW_KERNEL}")
            reason = lambda: self._kernel("nic", cast.NEW_KERNEL).get("reason") == "RegistryUnavailable"  # noqa: E731
            self._wait("an image that cannot be asked for is unknown, and starts nothing", reason)
            self.screen.line("nic", self._kernel("nic", cast.NEW_KERNEL)["message"], "yellow")
            others = [each for each in cast.NODES if each != node]
            if not all("nic" in self.nodes.loaded.get(each, {}) for each in others):
                raise StoryError("a node has lost its driver while the registry was away")
            self.screen.good("what runs on the other nodes keeps running")
        self.screen.line("registry", "is back")
        tag = f"{self.registry.host}/team/nic:{cast.NEW_KERNEL}"
        self._wait(
            "the image that is missing for it is built and signed",
            lambda: "digest" in self._kernel("nic", cast.NEW_KERNEL),
        )
        self.screen.line("nic", f"{tag}, from its Dockerfile, its arguments and a Secret")
        self._wait(f"the drivers are loaded on {node} too", lambda: self._loaded(*self._drivers))
        wanted = text_of(compiled("nic", cast.NEW_KERNEL, _SPEED))
        if (found := self.nodes.loaded[node]["nic"]) != wanted:
            raise StoryError(f'what was built is not what was asked for: "{found}", and not "{wanted}"')
        if self.nodes.firmware[node].get(cast.FIRMWARE) != cast.FIRMWARE_BYTES:
            raise StoryError("the firmware of the image that was built is not the Secret's")
        self.screen.good("it is built with the Module's arguments and the Secret's firmware")
        self._verify(tag)
        self._wait("all is Ready again", lambda: all(map(self._ready, self._right)))
        # Each kernel's two nodes had one loader; node-4 still runs the old kernel of node-1.
        if not uids <= {each["metadata"]["uid"] for each in self._daemon_sets()}:
            raise StoryError("a loader that was to stay was made anew")
        self.screen.good("no loader of another kernel was touched")

    def _verify(self, image: str) -> None:
        """Look at the signature in the image itself, and at what was pushed under its name."""
        path = f"/opt/lib/modules/{cast.NEW_KERNEL}/nic.ko"
        found = self.nodes.inspect(image, path)
        if found is None or path not in found.files:
            raise StoryError(f"there is no {path} in {image}")
        verified = verification.verify(BytesIO(found.files[path]), self.pair.certificate())
        if not verified.verified or verified.signer is None:
            raise StoryError(f"{path} in {image} {verified.problem}")
        by = f"{verified.signer.hash_name} by {verification.who(verified.signer)}"
        self.screen.good(f"its module's signature verifies: {by}")
        manifest = f"/v2/team/nic/manifests/{cast.NEW_KERNEL}"
        pushed = [each for each in self.registry.log if (each.method, each.path) == ("PUT", manifest)]
        if len(pushed) != 1:
            raise StoryError(f"{image} was pushed {len(pushed)} times: it is to be once, signed")
        self.screen.good("what was not signed never had that name")

    def _mend_the_mistake(self) -> None:
        self.screen.chapter("The mistake is mended")
        path = path_of(MODULE, cast.NAMESPACE, "tired")
        self.api.ask("PATCH", path, {"spec": {"devicePlugin": {"renderer": "daemonset"}}}, MERGE_PATCH)
        self._wait("the Module is Ready", lambda: self._ready("tired"))

    def _delete(self) -> None:
        self.screen.chapter("A Module is deleted")
        self.api.ask("DELETE", path_of(MODULE, cast.NAMESPACE, "nic"))
        gone = lambda: not any("nic" in modules for modules in self.nodes.loaded.values())  # noqa: E731
        self._wait("its driver is unloaded on every node", gone)
        gone = lambda: not any(cast.FIRMWARE in each for each in self.nodes.firmware.values())  # noqa: E731
        self._wait("and the firmware that it brought is taken away", gone)
        self._wait("its objects are gone", lambda: not [each for each in self._daemon_sets() if _of(each) == "nic"])
        ready = names.ready_label(cast.NAMESPACE, "nic")
        self._wait("and so are its labels on the nodes", lambda: not any(ready in each for each in self._labels()))

    # ── What has to be so ─────────────────────────────────────────────────────────────────────────────────────

    def _wait(self, what: str, look: Callable[[], bool]) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not look():
            if not self.operator.running:
                said = "\n".join(self.operator.said)
                raise StoryError(f"the operator has ended while this was awaited: {what}\n{said}")
            if time.monotonic() > until:
                raise StoryError(f"this has not happened within {_PATIENCE_S:.0f} s: {what}")
            time.sleep(_LOOK_S)
        self.screen.good(what)

    @property
    def _right(self) -> Sequence[str]:
        """The Modules without a mistake."""
        return ("gpu", "nic", *([cast.VENDORS_MODULE] if self.vendor else []))

    @property
    def _drivers(self) -> Sequence[str]:
        """What they load."""
        return ("gpu", "nic", *([self.vendor.module] if self.vendor else []))

    def _has_firmware(self, path: str) -> bool:
        return all(self.nodes.firmware.get(node, {}).get(path) == cast.FIRMWARE_BYTES for node in cast.NODES)

    def _metrics(self) -> str:
        """Return what Prometheus would be told; nothing where that cannot be asked for."""
        try:
            url = f"http://{self.operator.metrics}/metrics"
            return urllib3.request("GET", url, timeout=_ANSWER_S, retries=False).data.decode()
        except urllib3.exceptions.HTTPError:
            return ""

    def _loaded(self, *modules: str) -> bool:
        return all(set(modules) <= self.nodes.loaded.get(node, {}).keys() for node in cast.NODES)

    def _module(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.ask("GET", path_of(MODULE, cast.NAMESPACE, name)).read()
        return found.get("status") or {}

    def _ready(self, name: str) -> bool:
        status = self._module(name)
        return any((each["type"], each["status"]) == ("Ready", "True") for each in status.get("conditions", ()))

    def _said(self, name: str, condition: str) -> str:
        conditions = self._module(name).get("conditions", ())
        return next((str(each["message"]) for each in conditions if each["type"] == condition), "")

    def _kernel(self, name: str, kernel: str) -> dict[str, Any]:
        return next((each for each in self._module(name).get("kernels", ()) if each["kernelVersion"] == kernel), {})

    def _available(self, name: str) -> int:
        return int(self._module(name).get("devicePlugin", {}).get("availableNumber", 0))

    def _daemon_sets(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.ask("GET", _DAEMON_SETS).read()["items"]
        return found

    def _labels(self) -> list[dict[str, str]]:
        return [each["metadata"]["labels"] for each in self.api.ask("GET", "/api/v1/nodes").read()["items"]]

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self.api.ask("POST", path, body)

    def _secret(self, name: str, key: str, value: bytes, kind: str = "Opaque") -> None:
        data = {key: base64.b64encode(value).decode()}
        self._post(
            f"/api/v1/namespaces/{cast.NAMESPACE}/secrets", {"metadata": {"name": name}, "type": kind, "data": data}
        )

    # ── What is seen of it ────────────────────────────────────────────────────────────────────────────────────

    def _of_operator(self, said: dict[str, Any]) -> None:
        if said.get("msg") in _ACTIONS:
            self.counts[said["msg"]] += 1
            self.screen.line("operator", f"{said['msg']} {said.get('name', '')}  for Module {said.get('object', '')}")
        elif said.get("level") in ("warning", "error") or "lease" in str(said.get("msg")):
            self.screen.line("operator", str(said.get("msg")), "" if said.get("level") == "info" else "yellow")

    def _of_node(self, node: str, what: str) -> None:
        self.screen.line(node, what)

    def summary(self) -> None:
        """Show what it came to."""
        rows = []
        for name in (*(each for each in self._right if each != "nic"), "tired"):
            loader = self._module(name)["moduleLoader"]
            rows.append(
                [name, f"{loader['availableNumber']} of {loader['desiredNumber']}", str(len(cast.KERNELS) + 1)]
            )
        rows.append(["nic", "deleted: unloaded everywhere", ""])
        self.screen.table("What it came to", ("Module", "nodes loaded", "kernels"), rows)
        asked = Counter(
            each.verb for each in self.cluster.log if each.user == "operator" and each.resource != "leases"
        )
        registry = Counter(each.kind for each in self.registry.log if each.user == "robot")
        writes = ", ".join(f"{count} {verb}" for verb, count in sorted(asked.items()))
        did = ", ".join(f"{self.counts[each]} {each}" for each in _ACTIONS)
        self.screen.table(
            "What it took",
            ("", ""),
            [
                ["the operator did", did],
                ["its requests to the API server", writes],
                ["questions to the registry", ", ".join(f"{n} {kind}" for kind, n in sorted(registry.items()))],
                ["its memory at most", f"{self.operator.memory_mib():.0f} MiB"],
                ["time", f"{self.screen.past_s:.1f} s"],
            ],
        )


_TOLD = {
    "gpu": "its images are there",
    "nic": "an image that is built and signed where it is missing, with firmware and a device plugin",
    cast.VENDORS_MODULE: f"driver: {vendors.DRIVER}, which the installed package {vendors.DISTRIBUTION} brings",
    "tired": "with a mistake in it",
}


def _of(daemon_set: dict[str, Any], role: str = "") -> str:
    """Return which Module a DaemonSet is of; with a role, only if it has that."""
    labels = daemon_set["metadata"].get("labels", {})
    return str(labels.get(names.MODULE_NAME, "")) if role in ("", labels.get(names.ROLE)) else ""


def run(*, keep: bool, svg: Path | None, plugins: Path | None) -> int:
    """Play the demo; return 0 if all of it happened. `plugins`: a folder that has to hold a vendor's."""
    screen = Screen(record=svg is not None)
    with ExitStack() as stack:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # to clean up all the same
        try:
            story = Story(screen, stack, plugins)
            story.play()
            story.summary()
            if keep:
                _keep(screen, story.kubeconfig)
            if code := story.operator.stop():
                raise StoryError(f"the operator ended with {code} when it was told to stop")
        except KeyboardInterrupt:
            screen.line("demo", "stopped: everything is cleaned up", "yellow")
            return 130
        except KmmError as error:
            screen.line("✗", str(error), "red")
            return 1
        if svg:
            screen.save(svg, "kmm demo")
    return 0


def _keep(screen: Screen, kubeconfig: Path) -> None:
    screen.chapter("It goes on until you press Ctrl-C. In another terminal:")
    screen.line("", f"export KUBECONFIG={kubeconfig}")
    screen.line("", "kmm status        # and kubectl get modules,daemonsets,nodes -A")
    try:
        signal.pause()
    except KeyboardInterrupt:
        screen.line("demo", "cleaned up")
