"""`kmm run` on a real control plane, as its own process, with the rights of `kmm manifests rbac` and no others."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from apiserver.client import Api, eventually
from apiserver.samples import a_module, a_node, core, modules
from controlplane.controlplane import ControlPlane, Missing, binaries
from world import NAMESPACE, World

from kmm.loader import load_catalog
from kmm.runtime.rbac import OPERATOR, manifests

pytestmark = pytest.mark.e2e

USER = f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"
KMM = Path(sys.executable).parent / "kmm"
DEVICE_PLUGIN = {"container": {"image": "registry.example.com/dp:1"}}
ROLES = "/apis/rbac.authorization.k8s.io/v1"
WHERE = {
    "ServiceAccount": core(NAMESPACE, "serviceaccounts"),
    "ClusterRole": f"{ROLES}/clusterroles",
    "ClusterRoleBinding": f"{ROLES}/clusterrolebindings",
    "Role": f"{ROLES}/namespaces/{NAMESPACE}/roles",
    "RoleBinding": f"{ROLES}/namespaces/{NAMESPACE}/rolebindings",
}


class RealWorld(World):
    """A control plane, and operators that run against it as processes."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        super().__init__(Api(plane.url, plane.ca_file, plane.admin_token))
        self.plane, self.folder = plane, folder
        self.running: list[subprocess.Popen] = []
        self.furnish()
        for manifest in manifests(load_catalog(), NAMESPACE):
            answer = self.api.post(WHERE[manifest["kind"]], manifest)
            assert answer.code == 201, answer.body
        for number in range(6):
            body = a_node(f"n{number}", {"a": "b"}, f"6.{number % 2}.0")
            assert self.api.post("/api/v1/nodes", body).code == 201
        eventually(lambda: all("taints" not in each["spec"] for each in self.api.get("/api/v1/nodes").body["items"]))
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
        token = self.api.post(f"{core(NAMESPACE, 'serviceaccounts')}/{OPERATOR}/token", body).body["status"]["token"]
        config = yaml.safe_load(plane.kubeconfig().read_text())
        config["users"][0]["user"] = {"token": token}
        self.kubeconfig = folder / "operator.kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def run(self, **more: str) -> subprocess.Popen:
        """Start an operator."""
        environment = {
            **os.environ,
            "OPERATOR_NAMESPACE": NAMESPACE,
            "KMM_METRICS_ADDRESS": "127.0.0.1:0",
            "KMM_HEALTH_ADDRESS": "127.0.0.1:0",
            "KMM_LEASE_DURATION_SECONDS": "3",
            **more,
        }
        with (self.folder / "operator.log").open("ab") as log:
            process = subprocess.Popen(
                [KMM, "run", "--kubeconfig", self.kubeconfig], env=environment, stdout=log, stderr=log
            )
        self.running.append(process)
        return process

    def audit(self) -> list[dict]:
        """Return the operator's requests, as the API server has them on record."""
        lines = (json.loads(line) for line in self.plane.audit_log.read_text().splitlines())
        return [each for each in lines if each["user"]["username"] == USER and each["stage"] == "ResponseComplete"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    try:
        binaries()
    except Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("operator")
    with ControlPlane(folder / "plane") as plane:
        made = RealWorld(plane, folder)
        yield made
        for process in made.running:
            process.kill()
            process.wait(10)


@pytest.fixture
def operator(world):
    """An operator that runs; it is stopped when the test is over, and everything is gone."""
    process = world.run()
    yield process
    for each in world.api.get(modules(NAMESPACE)).body["items"]:
        world.api.delete(f"{modules(NAMESPACE)}/{each['metadata']['name']}")
    eventually(lambda: not world.sets(), "nothing is left", within_s=90)
    for each in world.running:
        if each.poll() is None:
            each.send_signal(signal.SIGCONT)
            each.terminate()
            assert each.wait(15) == 0, (world.folder / "operator.log").read_text()[-3000:]
    world.running.clear()


def test_the_whole_life_of_a_module_with_the_generated_rights_alone(world, operator):
    world.api.post(modules(NAMESPACE), a_module(devicePlugin=DEVICE_PLUGIN))
    eventually(world.ready, "ready", within_s=90)
    assert set(world.loaders()) == {"6.0.0", "6.1.0"}
    eventually(lambda: f"{NAMESPACE}.m.device-plugin-ready" in world.labels("n0"))
    patch = {"status": {"nodeInfo": {"kernelVersion": "6.9.0"}}}
    assert world.api.patch("/api/v1/nodes/n0/status", patch).code == 200
    eventually(lambda: world.loaders().get("6.9.0", {}).get("status", {}).get("numberAvailable") == 1, within_s=60)
    name = world.loaders()["6.9.0"]["metadata"]["name"]
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{name}"
    edit = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil.example.com/x:1"}]
    assert world.api.patch(path, edit, "json").code == 200
    eventually(
        lambda: (
            world.api.get(path).body["spec"]["template"]["spec"]["containers"][0]["image"]
            == "registry.example.com/m:1"
        )
    )
    dockerfile = {"metadata": {"name": "d"}, "data": {"dockerfile": "FROM scratch"}}
    world.api.post(core(NAMESPACE, "configmaps"), dockerfile)
    built = a_module("built")
    built["spec"]["moduleLoader"]["container"]["build"] = {
        "dockerfileConfigMap": {"name": "d"},
        "secrets": [{"name": "s"}],
    }
    assert world.api.post(modules(NAMESPACE), built).code == 201
    eventually(
        lambda: (
            {
                each["reason"]
                for each in world.api.get(f"{modules(NAMESPACE)}/built").body.get("status", {}).get("kernels", ())
            }
            == {"RegistryUnavailable"}
        )
    )
    assert (
        world.api.patch("/api/v1/nodes/n0/status", {"status": {"nodeInfo": {"kernelVersion": "6.0.0"}}}).code == 200
    )
    eventually(lambda: set(world.loaders()) == {"6.0.0", "6.1.0"}, within_s=60)
    world.api.delete(f"{modules(NAMESPACE)}/m")
    eventually(lambda: world.labels("n1") == {"kernel-version.full"}, within_s=90)
    said = world.audit()
    denied = [each for each in said if each["responseStatus"]["code"] in (401, 403)]
    assert not denied, denied[:3]
    assert {"create", "patch", "delete", "list", "get"} <= {each["verb"] for each in said}


def test_a_quiet_operator_asks_for_nothing(world, operator):
    world.api.post(modules(NAMESPACE), a_module(devicePlugin=DEVICE_PLUGIN))
    eventually(world.ready, "ready", within_s=90)

    def quiet():
        before = len(world.audit())
        time.sleep(3)
        return not [each for each in world.audit()[before:] if each["objectRef"]["resource"] != "leases"]

    eventually(quiet, "no request but the lease's", within_s=60)


def test_an_operator_that_is_killed_again_and_again_ends_where_it_should(world, operator):
    operator.kill()
    operator.wait(10)
    world.running.clear()
    generator = random.Random(20_261_122)  # noqa: S311 -- the same instants each time
    foreign = {"metadata": {"name": "foreign"}, "data": {"k": "v"}}
    made = world.api.post(core(NAMESPACE, "configmaps"), foreign)
    for number in range(50):
        process = world.run(KMM_LEASE_DURATION_SECONDS="3")
        name = f"m{number % 5}"
        if number % 10 < 5:
            world.api.post(modules(NAMESPACE), a_module(name, devicePlugin=DEVICE_PLUGIN))
        elif number % 3 == 0:
            world.api.delete(f"{modules(NAMESPACE)}/{name}")
        kernel = f"6.{2 + number % 3}.0"
        world.api.patch("/api/v1/nodes/n5/status", {"status": {"nodeInfo": {"kernelVersion": kernel}}})
        time.sleep(generator.uniform(0.7, 1.6))
        process.kill()
        process.wait(10)
        # The one after it need not wait for the lease's end.
        world.api.delete(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/kmm.sigs.x-k8s.io")
    world.running.clear()
    world.run()
    names = [each["metadata"]["name"] for each in world.api.get(modules(NAMESPACE)).body["items"]]
    assert names
    for name in names:
        eventually(lambda name=name: world.ready(name), f"{name} is ready", within_s=120)

    def exact():
        found = [
            (
                each["metadata"]["labels"]["kmm.node.kubernetes.io/module.name"],
                each["metadata"]["labels"]["kmm.node.kubernetes.io/role"],
                each["metadata"]["annotations"]["kmm.node.kubernetes.io/kernel"],
            )
            for each in world.sets()
        ]
        kernels = {
            each["status"]["nodeInfo"]["kernelVersion"] for each in world.api.get("/api/v1/nodes").body["items"]
        }
        wanted = [(name, "module-loader", kernel) for name in names for kernel in kernels]
        wanted += [(name, "device-plugin", "") for name in names]
        return sorted(found) == sorted(wanted)

    eventually(exact, "exactly what is wanted, none twice", within_s=90)
    assert world.api.get(f"{core(NAMESPACE, 'configmaps')}/foreign").version == made.version
    world.api.patch("/api/v1/nodes/n5/status", {"status": {"nodeInfo": {"kernelVersion": "6.1.0"}}})
