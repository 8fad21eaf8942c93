"""A cluster that builds and signs for real, an operator, and a registry with a password and its own CA."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
import re
import sys
import tarfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import trustme
from apiserver.client import Api, eventually
from apiserver.samples import a_module, core, modules
from e2e.program_layer import program_layer
from registry.client import ACCEPTED, Client
from registry.docker_registry import DockerRegistry
from registry.running import HTPASSWD, PASSWORDS, ROBOT
from world import NAMESPACE, PREFIX, SELECTED, World

from kmm.config import Config, PluginsConfig, RegistryConfig
from kmm.embedded.cluster import Cluster
from kmm.embedded.image import image
from kmm.embedded.kubelet import Pace
from kmm.embedded.program import Exit, Run, idle, process
from kmm.loader import load_catalog
from kmm.runtime.app import App, Options
from kmm.runtime.transport import connect

APPLETS = (
    *("cat", "chroot", "cp", "env", "find", "grep", "id", "ls", "mkdir", "modprobe", "rm", "rmdir", "sh", "sleep"),
    *("tr", "uname"),
)
MIXED = {"fleet": "mixed"}  # of two nodes that say they are of different architectures
WITHIN_S = 900.0  # only what never comes is waited for that long


class Site(World):
    """`release`: the kernel of its node; `builder`: who builds, empty where the cluster decides.

    `container`: runs what it made; `loader`: runs loaders. `prepare` is called before the operator starts. `more`:
    options of plugins.
    Images to begin from: `base/small:1`, a busybox; further ones are pushed with `client`.
    """

    def __init__(
        self,
        folder: Path,
        stack: ExitStack,
        *,
        release: str,
        busybox: Path,
        builder: str,
        container: Callable[[Run], Awaitable[Exit]],
        loader: Callable[[Run], Awaitable[Exit]] = idle,
        prepare: Callable[[Site], None] = lambda _: None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.release, self._container, self._loader = folder, release, container, loader
        self.said: dict[str, str] = {}
        authority = trustme.CA(organization_name="kmm tests")
        self.ca_file = folder / "ca/ca.crt"
        self.ca_file.parent.mkdir()
        authority.cert_pem.write_to_path(str(self.ca_file))
        (folder / "htpasswd").write_text(HTPASSWD)
        auth = {"htpasswd": {"realm": "kmm-tests", "path": str(folder / "htpasswd")}}
        self._registry = stack.enter_context(
            DockerRegistry(folder / "registry", auth=auth, authority=authority, access_log=True)
        )
        self.host = self._registry.host
        self.client = Client(f"https://{self.host}", self.ca_file.read_text(), ROBOT, PASSWORDS[ROBOT])
        self.programs = program_layer(busybox, APPLETS)
        self.small = image([self.programs])
        assert self.client.push("base/small", "1", self.small).status == 201
        self.cluster = stack.enter_context(
            Cluster(program=self._program, pace=Pace(relist_s=0.05, back_off_s=0.2), folder=folder / "cluster")
        )
        super().__init__(Api(self.cluster.url, self.cluster.ca_file, self.cluster.admin_token))
        self.furnish()
        for name in ("kmm-operator-module-loader", "kmm-operator-device-plugin"):
            self.api.post(core(NAMESPACE, "serviceaccounts"), {"metadata": {"name": name}})
        self.cluster.add_node("node", release, labels=SELECTED)
        self.config_map("registry-ca", {"ca.crt": self.ca_file.read_text()})
        self.secret("push", **{".dockerconfigjson": self.docker_config(PASSWORDS[ROBOT])})
        self.secret("wrong", **{".dockerconfigjson": self.docker_config("another-password")})
        prepare(self)
        options = {
            "oci": {"allowAddresses": ["127.0.0.0/8"]},
            "sign-file": {"caConfigMap": "registry-ca", "image": f"{self.host}/base/kmm:1"},
            **(more or {}),
        }
        if builder:
            options[builder] = {"caConfigMap": "registry-ca"}
        self.config = dataclasses.replace(
            Config(),
            operator_namespace=NAMESPACE,
            metrics_address="127.0.0.1:0",
            health_address="127.0.0.1:0",
            builder=builder or None,
            plugins=PluginsConfig(options=options),
            registries={self.host: RegistryConfig(ca_file=str(self.ca_file), denied_means_missing=True)},
        )
        self.operate(self.cluster.kubeconfig(), stack)

    def add_mixed_nodes(self) -> None:
        for each in ("amd64", "arm64"):
            labels = {**MIXED, "kubernetes.io/arch": each}
            more = lambda node, each=each: node["status"]["nodeInfo"].update(architecture=each)  # noqa: E731
            self.cluster.add_node(f"mixed-{each}", self.release, labels=labels, more=more)

    def operate(self, kubeconfig: Path, stack: ExitStack) -> None:
        """Start an operator, in this cluster or in another."""
        catalog = load_catalog(settings_of=self.config.settings_of)
        app = App(self.config, catalog, connect(kubeconfig), Options(elect=False))
        app.start()
        stack.callback(app.stop)

    async def _program(self, run: Run) -> Exit:
        labels = run.pod["metadata"].get("labels", {})
        if labels.get(f"{PREFIX}role") == "module-loader":
            return await self._loader(run)
        programs = {"build": self._container, "sign": signs}
        program = programs.get(labels.get(f"{PREFIX}job-type"))
        if program is None:
            return await idle(run)
        done = await program(run)
        self.said[f"{run.pod['metadata']['name']}/{run.container['name']}"] = done.output
        return done

    def output(self, name: str, task: str = "build") -> str:
        """Return what the containers of a Module's builds said, without the Secrets' masks of its status."""
        return "\n".join(
            said for container, said in self.said.copy().items() if container.startswith(f"{name}-{task}-")
        )

    def ran(self, name: str, task: str) -> int:
        """Return how many pods of a Module's builds, or signatures, have ended."""
        ended = {container.partition("/")[0] for container in self.said.copy()}
        return len([pod for pod in ended if pod.startswith(f"{name}-{task}-")])

    def pushed(self, name: str) -> list[str]:
        """Return the tags of a Module's images, as often as each was pushed."""
        pattern = rf'"PUT /v2/drivers/{name}/manifests/(\S+) HTTP/[\d.]+" 201'
        return [each for each in re.findall(pattern, self._registry.log_file.read_text()) if ":" not in each]

    def access(self, end: str = "") -> list[str]:
        """Return skopeo's options for the registry. `end`: `src-` or `dest-`, for commands with two."""
        return [f"--{end}cert-dir={self.ca_file.parent}", f"--{end}creds={ROBOT}:{PASSWORDS[ROBOT]}"]

    def docker_config(self, password: str = PASSWORDS[ROBOT]) -> str:
        auth = base64.b64encode(f"{ROBOT}:{password}".encode()).decode()
        return json.dumps({"auths": {self.host: {"auth": auth}}})

    def secret(self, name: str, **data: str) -> None:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        kind = "kubernetes.io/dockerconfigjson" if ".dockerconfigjson" in data else "Opaque"
        body = {"metadata": {"name": name}, "type": kind, "data": encoded}
        answer = self.api.post(core(NAMESPACE, "secrets"), body)
        assert answer.code == 201, answer.body

    def change_secret(self, name: str, **data: str) -> None:
        """Give a Secret other contents."""
        body = {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}
        answer = self.api.patch(f"{core(NAMESPACE, 'secrets')}/{name}", body)
        assert answer.code == 200, answer.body

    def config_map(self, name: str, data: dict[str, str]) -> None:
        answer = self.api.post(core(NAMESPACE, "configmaps"), {"metadata": {"name": name}, "data": data})
        assert answer.code == 201, answer.body

    def apply(
        self,
        name: str,
        dockerfile: str,
        *,
        push: str = "push",
        nodes: Mapping[str, str] = SELECTED,
        sign: Mapping[str, Any] | None = None,
        loads: Mapping[str, Any] | None = None,
        **build: Any,
    ) -> None:
        """Create a Module whose image is built. `nodes`: the labels of those where it is to be loaded.

        `loads`: what else its container says, of how it is loaded.
        """
        self.config_map(f"{name}-dockerfile", {"dockerfile": dockerfile})
        spec = self._spec(name, **{"selector": nodes, **build})
        spec["moduleLoader"]["container"] |= loads or {}
        if sign:
            spec["moduleLoader"]["container"]["sign"] = sign
        self._post(name, spec, push, nodes)

    def apply_unbuilt(
        self, name: str, *, push: str = "push", loads: Mapping[str, Any] | None = None, **mapping: Any
    ) -> None:
        """Create a Module whose mapping has what is given, and no build. `loads`: as of `apply`."""
        spec = self._mapped(name, mapping)
        spec["moduleLoader"]["container"] |= loads or {}
        self._post(name, spec, push, SELECTED)

    def _post(self, name: str, spec: Mapping[str, Any], push: str, nodes: Mapping[str, str]) -> None:
        body = a_module(name, **spec, imageRepoSecret={"name": push}, selector=nodes)
        answer = self.api.post(modules(NAMESPACE), body)
        assert answer.code == 201, answer.body

    def change(self, name: str, **build: Any) -> None:
        """Change how a Module's image is built, after a build of it has failed."""
        before = self.kernel(self.release, name)["inputsHash"]
        answer = self.api.patch(f"{modules(NAMESPACE)}/{name}", {"spec": self._spec(name, **build)})
        assert answer.code == 200, answer.body
        eventually(
            lambda: self.kernel(self.release, name).get("inputsHash") != before, f"{name} begins anew", WITHIN_S
        )

    def remove(self, name: str) -> None:
        """Delete a Module, so that what failed is not tried again."""
        assert self.api.delete(f"{modules(NAMESPACE)}/{name}").code == 200

    def _spec(self, name: str, **build: Any) -> dict[str, Any]:
        build = {"dockerfileConfigMap": {"name": f"{name}-dockerfile"}, "selector": SELECTED, **build}
        return self._mapped(name, {"build": build})

    def _mapped(self, name: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
        image = f"{self.host}/drivers/{name}:${{KERNEL_FULL_VERSION}}"
        mapping = {"literal": self.release, "containerImage": image, **mapping}
        return {"moduleLoader": {"container": {"modprobe": {"moduleName": name}, "kernelMappings": [mapping]}}}

    def fails(self, name: str, reason: str = "BuildFailed") -> str:
        """Wait until a build has failed, or what `reason` says; return why."""

        def why() -> str:
            said = self.kernel(self.release, name)
            return said["message"] if said.get("reason") == reason else ""

        return eventually(why, f"{name} fails", WITHIN_S)

    def loaded(self, name: str) -> dict[str, Any]:
        """Wait until a Module is loaded; return what its status says of the kernel."""
        failed = lambda: self.kernel(self.release, name).get("reason") in ("BuildFailed", "SignFailed")  # noqa: E731
        eventually(lambda: self.ready(name) or failed(), f"{name} is loaded", WITHIN_S)
        said = self.kernel(self.release, name)
        assert said["reason"] == "Loaded", (said["message"], self.output(name), self.output(name, "sign"))
        return said

    def loaders_image(self, name: str) -> str:
        """Return the image that a Module's loader runs."""
        (found,) = [each for each in self.sets() if each["metadata"]["labels"][f"{PREFIX}module.name"] == name]
        return found["spec"]["template"]["spec"]["containers"][0]["image"]

    def manifest(self, name: str, reference: str = "") -> bytes:
        path = f"/v2/drivers/{name}/manifests/{reference or self.release}"
        return self.client.ask("GET", path, accept=ACCEPTED).data

    def layers(self, name: str, reference: str = "") -> list[bytes]:
        """Return the layers of a Module's image, unpacked, the lowest first. `reference`: a tag or a digest."""
        found = json.loads(self.manifest(name, reference))["layers"]
        return [_unpacked(self._blob(name, each["digest"])) for each in found]

    def files(self, name: str, reference: str = "") -> dict[str, bytes]:
        """Return the files of a Module's image. `reference`: a tag or a digest."""
        return files_of(self.layers(name, reference))

    def labels(self, name: str) -> dict[str, str]:
        config = json.loads(self.manifest(name))["config"]["digest"]
        return json.loads(self._blob(name, config))["config"]["Labels"]

    def _blob(self, name: str, digest: str) -> bytes:
        return self.client.ask("GET", f"/v2/drivers/{name}/blobs/{digest}").data


async def signs(run: Run) -> Exit:
    """Run `kmm sign-image` of this virtualenv, in the place of the one in the operator's image."""
    python = {sys.executable: Path(sys.executable)}  # which may be below a folder that is mounted, and stays itself
    argv = (sys.executable, "-m", "kmm.cli", *run.argv[1:])
    return await process(dataclasses.replace(run, argv=argv, mounts={**run.mounts, **python}))


def files_of(layers: Iterable[bytes]) -> dict[str, bytes]:
    """Return the files of layers, the lowest first."""
    found: dict[str, bytes] = {}
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            for each in tar:
                if each.isfile():
                    found[each.name.lstrip("./")] = tar.extractfile(each).read()
    return found


def _unpacked(layer: bytes) -> bytes:
    return gzip.decompress(layer) if layer.startswith(b"\x1f\x8b") else layer
