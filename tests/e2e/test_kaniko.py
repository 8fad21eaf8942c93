"""Builds with kaniko for real: the operator renders a Job, and kaniko's executor runs as its pod says."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from apiserver.client import Api, eventually
from apiserver.samples import a_module, core, jobs, modules
from e2e.executor import Missing, executor
from registry.client import ACCEPTED, Client
from registry.docker_registry import DockerRegistry, program
from registry.docker_registry import Missing as NoRegistry
from registry.running import HTPASSWD, PASSWORDS, ROBOT
from world import NAMESPACE, PREFIX, SELECTED, World

from kmm.config import Config, PluginsConfig, RegistryConfig
from kmm.contract import INPUTS_ANNOTATION
from kmm.embedded.cluster import Cluster
from kmm.embedded.image import digest_of, image
from kmm.embedded.kubelet import Pace
from kmm.embedded.program import Exit, Run, idle, process
from kmm.loader import load_catalog
from kmm.runtime.app import App, Options
from kmm.runtime.transport import connect

pytestmark = pytest.mark.kaniko

KERNEL = "6.1.0-18-amd64"
OWN_ROOT = Path(__file__).with_name("own_root.py")
NAMESPACES = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child")
# What kaniko's image sets, as far as it matters.
IMAGE_ENV = {
    "PATH": "/usr/local/bin:/kaniko",
    "SSL_CERT_DIR": "/kaniko/ssl/certs",
    "DOCKER_CONFIG": "/kaniko/.docker/",
}
# What container runtimes give to whoever asks for nothing.
CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_RAW": 13,
    "SYS_CHROOT": 18,
    "MKNOD": 27,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}
APPLETS = ("cat", "env", "grep", "id", "ls", "mkdir", "sh", "sleep")
TOKEN = "the-licences-own-token"
HOSTILE = 'a\'b "c" $(id) `id` $$ ${HOME} \\'


async def contained(run: Run, program: Path, folder: Path) -> Exit:
    """Run kaniko in a root of its own, with the pod's volumes, capabilities and arguments."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        root = Path(temporary, "root")
        for each in ("kaniko/ssl/certs", "etc", "tmp"):
            (root / each).mkdir(parents=True)
        os.link(program, root / "kaniko/executor")
        asked = run.container["securityContext"]
        assert asked["seccompProfile"] == {"type": "RuntimeDefault"}
        kept = CAPABILITIES.keys() - set(asked["capabilities"]["drop"])
        read_only = {mount["mountPath"] for mount in run.container["volumeMounts"] if mount.get("readOnly")}
        told = {
            "root": str(root),
            "mounts": [[str(real), path, path in read_only] for path, real in run.mounts.items()],
            "capabilities": sorted(CAPABILITIES[each] for each in kept),
            "argv": ["/kaniko/executor", *run.argv],
            "env": IMAGE_ENV | dict(run.env),
        }
        spec = Path(temporary, "spec.json")
        await asyncio.to_thread(spec.write_text, json.dumps(told))
        argv = (*NAMESPACES, sys.executable, str(OWN_ROOT), str(spec))
        return await process(dataclasses.replace(run, argv=argv, env={}, mounts={}))


class Site(World):
    """A cluster whose nodes run builds for real, an operator, and a registry with a password and a CA of its own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._executor = folder, folder / "executor"
        # On the same file system as the roots that it is linked into.
        self._executor.write_bytes(executor().read_bytes())
        self._executor.chmod(0o755)
        authority = trustme.CA(organization_name="kmm tests")
        ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        (folder / "htpasswd").write_text(HTPASSWD)
        auth = {"htpasswd": {"realm": "kmm-tests", "path": str(folder / "htpasswd")}}
        self.host = stack.enter_context(DockerRegistry(folder / "registry", auth=auth, authority=authority)).host
        self.client = Client(f"https://{self.host}", ca_file.read_text(), ROBOT, PASSWORDS[ROBOT])
        assert self.client.push("base/small", "1", image([_busybox()])).status == 201
        cluster = stack.enter_context(
            Cluster(program=self._program, pace=Pace(relist_s=0.05, back_off_s=0.2), folder=folder / "cluster")
        )
        super().__init__(Api(cluster.url, cluster.ca_file, cluster.admin_token))
        self.furnish()
        for name in ("kmm-operator-module-loader", "kmm-operator-device-plugin"):
            self.api.post(core(NAMESPACE, "serviceaccounts"), {"metadata": {"name": name}})
        cluster.add_node("node", KERNEL, labels=SELECTED)
        self.config_map("registry-ca", {"ca.crt": ca_file.read_text()})
        self.secret("push", **{".dockerconfigjson": self._docker_config(PASSWORDS[ROBOT])})
        self.secret("wrong", **{".dockerconfigjson": self._docker_config("another-password")})
        self.secret("licence", token=TOKEN)
        options = {"kaniko": {"caConfigMap": "registry-ca"}, "oci": {"allowAddresses": ["127.0.0.0/8"]}}
        config = dataclasses.replace(
            Config(),
            operator_namespace=NAMESPACE,
            metrics_address="127.0.0.1:0",
            health_address="127.0.0.1:0",
            builder="kaniko",
            plugins=PluginsConfig(options=options),
            registries={self.host: RegistryConfig(ca_file=str(ca_file), denied_means_missing=True)},
        )
        catalog = load_catalog(settings_of=config.settings_of)
        app = App(config, catalog, connect(cluster.kubeconfig()), Options(elect=False))
        app.start()
        stack.callback(app.stop)

    async def _program(self, run: Run) -> Exit:
        if run.pod["metadata"].get("labels", {}).get(f"{PREFIX}job-type") != "build":
            return await idle(run)
        return await contained(run, self._executor, self._folder)

    def _docker_config(self, password: str) -> str:
        auth = base64.b64encode(f"{ROBOT}:{password}".encode()).decode()
        return json.dumps({"auths": {self.host: {"auth": auth}}})

    def secret(self, name: str, **data: str) -> None:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        kind = "kubernetes.io/dockerconfigjson" if ".dockerconfigjson" in data else "Opaque"
        answer = self.api.post(
            core(NAMESPACE, "secrets"), {"metadata": {"name": name}, "type": kind, "data": encoded}
        )
        assert answer.code == 201, answer.body

    def config_map(self, name: str, data: dict[str, str]) -> None:
        answer = self.api.post(core(NAMESPACE, "configmaps"), {"metadata": {"name": name}, "data": data})
        assert answer.code == 201, answer.body

    def apply(self, name: str, dockerfile: str, *, push: str = "push", **build: Any) -> None:
        """Create a Module whose image is built."""
        self.config_map(f"{name}-dockerfile", {"dockerfile": dockerfile})
        spec = self._spec(name, **build)
        body = a_module(name, **spec, imageRepoSecret={"name": push}, selector=SELECTED)
        answer = self.api.post(modules(NAMESPACE), body)
        assert answer.code == 201, answer.body

    def change(self, name: str, **build: Any) -> None:
        answer = self.api.patch(f"{modules(NAMESPACE)}/{name}", {"spec": self._spec(name, **build)})
        assert answer.code == 200, answer.body

    def _spec(self, name: str, **build: Any) -> dict[str, Any]:
        mapping = {
            "literal": KERNEL,
            "containerImage": f"{self.host}/drivers/{name}:${{KERNEL_FULL_VERSION}}",
            "build": {"dockerfileConfigMap": {"name": f"{name}-dockerfile"}, **build},
        }
        return {"moduleLoader": {"container": {"modprobe": {"moduleName": name}, "kernelMappings": [mapping]}}}

    def fails(self, name: str) -> str:
        """Wait until a build has failed; return why."""
        said = lambda: self.kernel(KERNEL, name)  # noqa: E731
        return eventually(lambda: said().get("reason") == "BuildFailed" and said(), name, 180)["message"]

    def loaded(self, name: str) -> dict[str, Any]:
        eventually(lambda: self.ready(name), f"{name} is loaded: {self.kernel(KERNEL, name)}", 180)
        return self.kernel(KERNEL, name)

    def layers(self, name: str) -> list[bytes]:
        """Return the layers of a Module's image, unpacked, the lowest first."""
        found = json.loads(self.manifest(name))["layers"]
        return [_unpacked(self._blob(name, each["digest"])) for each in found]

    def labels(self, name: str) -> dict[str, str]:
        config = json.loads(self.manifest(name))["config"]["digest"]
        return json.loads(self._blob(name, config))["config"]["Labels"]

    def manifest(self, name: str) -> bytes:
        return self.client.ask("GET", f"/v2/drivers/{name}/manifests/{KERNEL}", accept=ACCEPTED).data

    def _blob(self, name: str, digest: str) -> bytes:
        return self.client.ask("GET", f"/v2/drivers/{name}/blobs/{digest}").data


def _unpacked(layer: bytes) -> bytes:
    return gzip.decompress(layer) if layer.startswith(b"\x1f\x8b") else layer


def _files(layers: list[bytes]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            for each in tar:
                if each.isfile():
                    found[each.name.lstrip("./")] = tar.extractfile(each).read()
    return found


def _busybox() -> bytes:
    """Return a layer with this machine's busybox, what it is linked with, and names for it."""
    needs = subprocess.run(["ldd", "/usr/bin/busybox"], check=False, capture_output=True, text=True).stdout
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", dereference=True) as tar:
        tar.add("/usr/bin/busybox", "bin/busybox")
        for library in re.findall(r"(/\S+)", needs):
            tar.add(library, library.lstrip("/"))
        for each in APPLETS:
            link = tarfile.TarInfo(f"bin/{each}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return made.getvalue()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    lacking = "a root of its own needs root here, and busybox for it"
    try:
        if not os.geteuid() and Path("/usr/bin/busybox").exists():
            executor()
            program()
            lacking = ""
    except (Missing, NoRegistry) as missing:
        lacking = str(missing)
    if lacking:
        assert not os.environ.get("CI"), lacking
        pytest.skip(lacking)
    with ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("kaniko"), stack)


def test_what_a_dockerfile_makes_of_arguments_and_secrets_is_pushed_found_and_loaded(site):
    site.apply(
        "driver",
        f"""
        FROM {site.host}/base/small:1 AS build
        ENV PATH=/bin
        ARG KERNEL_VERSION
        ARG MOD_NAME
        ARG ODD
        RUN mkdir -p /out && cat /run/secrets/licence/token | grep -q licence && env | grep ^ODD= >/out/odd
        RUN echo "$MOD_NAME for $KERNEL_VERSION" >/out/driver && id >/out/id
        FROM {site.host}/base/small:1
        ARG KERNEL_VERSION
        COPY --from=build /out /opt/lib/modules/$KERNEL_VERSION
        """,
        secrets=[{"name": "licence"}],
        buildArgs=[{"name": "ODD", "value": HOSTILE.replace("$", "$$")}, {"name": "KERNEL_VERSION", "value": "5"}],
    )
    said = site.loaded("driver")
    assert said["digest"] == digest_of(site.manifest("driver"))
    assert re.fullmatch("[0-9a-f]{64}", site.labels("driver")[INPUTS_ANNOTATION])
    layers = site.layers("driver")
    found = _files(layers)
    folder = f"opt/lib/modules/{KERNEL}"
    assert found[f"{folder}/driver"] == f"driver for {KERNEL}\n".encode()
    assert found[f"{folder}/odd"].decode() == f"ODD={HOSTILE}\n"
    assert not any(TOKEN.encode() in each for each in layers), "secrets are in no layer"
    assert not any(name.startswith(("run/secrets/licence", "kaniko", "workspace")) for name in found)
    eventually(lambda: not site.api.get(jobs(NAMESPACE)).body["items"], "the Job is gone")


def test_a_run_that_fails_is_told_without_secrets_and_a_changed_argument_builds_at_once(site):
    site.apply(
        "fails",
        f"""
        FROM {site.host}/base/small:1
        ENV PATH=/bin
        ARG CODE
        RUN echo "no rule to make target" && cat /run/secrets/licence/token && exit $CODE
        """,
        secrets=[{"name": "licence"}],
        buildArgs=[{"name": "CODE", "value": "7"}],
    )
    message = site.fails("fails")
    assert message.startswith("kaniko ended with exit code 7: ")
    assert "no rule to make target" in message
    assert "exit status 7" in message
    assert TOKEN not in message
    assert "***" in message
    site.change("fails", secrets=[{"name": "licence"}], buildArgs=[{"name": "CODE", "value": "0"}])
    site.loaded("fails")


def test_a_wrong_password_is_told(site):
    site.apply("refused", f"FROM {site.host}/base/small:1", push="wrong")
    message = site.fails("refused")
    assert "error checking push permissions" in message
    assert "another-password" not in message


def test_a_base_image_that_is_missing_is_told(site):
    site.apply("baseless", f"FROM {site.host}/base/none:1\nRUN true")
    assert "base/none" in site.fails("baseless")
