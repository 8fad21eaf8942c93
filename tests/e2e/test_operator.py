"""`kmm run` on a real control plane, as its own process, with the rights of `kmm manifests rbac` and no others."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from apiserver.client import eventually
from apiserver.samples import a_module, core, modules
from controlplane.controlplane import ControlPlane
from world import NAMESPACE, PREFIX, RealWorld

pytestmark = pytest.mark.e2e

KMM = Path(sys.executable).parent / "kmm"
DEVICE_PLUGIN = {"container": {"image": "registry.example.com/dp:1"}}


class Operators(RealWorld):
    """A control plane, and operators that run against it as processes."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        super().__init__(plane, folder)
        self.running: list[subprocess.Popen] = []
        for number in range(6):
            self.add_node(f"n{number}", f"6.{number % 2}.0")
        self.kubeconfig = self.credentials("operator")

    def run(self, kubeconfig: Path | None = None, **more: str) -> subprocess.Popen:
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
                [KMM, "run", "--kubeconfig", kubeconfig or self.kubeconfig], env=environment, stdout=log, stderr=log
            )
        self.running.append(process)
        return process

    def supervised(self, look: Callable[[], object]) -> Callable[[], object]:
        """Look, and start an operator that has ended again, as a kubelet would."""

        def supervise() -> object:
            for process in [each for each in self.running if each.poll() is not None]:
                self.running.remove(process)
                self.run()
            return look()

        return supervise

    def log(self) -> str:
        return (self.folder / "operator.log").read_text()

    def leader(self) -> str:
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/kmm.sigs.x-k8s.io"
        answer = self.api.get(lease)
        return answer.body["spec"]["holderIdentity"] if answer.code == 200 else ""

    def exactly(self, *names: str, device_plugin: bool = False) -> bool:
        """Whether there is a loader for each kernel and Module, and nothing else."""
        kernels = {
            each["status"]["nodeInfo"]["kernelVersion"] for each in self.api.get("/api/v1/nodes").body["items"]
        }
        wanted = [(name, "module-loader", kernel) for name in names for kernel in kernels]
        wanted += [(name, "device-plugin", "") for name in names if device_plugin]
        return sorted(wanted) == sorted(
            (
                each["metadata"]["labels"][f"{PREFIX}module.name"],
                each["metadata"]["labels"][f"{PREFIX}role"],
                each["metadata"]["annotations"][f"{PREFIX}kernel"],
            )
            for each in self.sets()
        )

    def asked(self, kubeconfig: Path | None = None) -> list[dict]:
        """Return the operator's requests that have ended, those of one kubeconfig where it is given."""
        made = [each for each in self.audit() if each["stage"] == "ResponseComplete"]
        if kubeconfig is None:
            return made
        token = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]["token"].split(".")[1]
        mine = [f"JTI={json.loads(base64.urlsafe_b64decode(token + '==='))['jti']}"]
        return [each for each in made if each["user"]["extra"]["authentication.kubernetes.io/credential-id"] == mine]


@pytest.fixture(scope="module")
def world(tmp_path_factory, programs):
    folder = tmp_path_factory.mktemp("operator")
    with ControlPlane(folder / "plane") as plane:
        made = Operators(plane, folder)
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
            # One that was started a moment ago is still the command, which has nothing to end well.
            eventually(lambda each=each: b"kmm.runtime" in Path(f"/proc/{each.pid}/cmdline").read_bytes())
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
    said = world.asked()
    denied = [each for each in said if each["responseStatus"]["code"] in (401, 403)]
    assert not denied, denied[:3]
    assert {"create", "patch", "delete", "list", "get"} <= {each["verb"] for each in said}


def test_a_quiet_operator_asks_for_nothing(world, operator):
    world.api.post(modules(NAMESPACE), a_module(devicePlugin=DEVICE_PLUGIN))
    eventually(world.ready, "ready", within_s=90)

    def quiet():
        before = len(world.asked())
        time.sleep(3)
        return not [each for each in world.asked()[before:] if each["objectRef"]["resource"] != "leases"]

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

    wanted = partial(world.exactly, *names, device_plugin=True)
    eventually(wanted, "exactly what is wanted, none twice", within_s=90)
    assert world.api.get(f"{core(NAMESPACE, 'configmaps')}/foreign").version == made.version
    world.api.patch("/api/v1/nodes/n5/status", {"status": {"nodeInfo": {"kernelVersion": "6.1.0"}}})


WRITES = ("create", "patch", "delete", "update")


def test_a_leader_that_was_frozen_writes_nothing_after_its_deadline(world, operator):
    eventually(world.leader, "the first leads", within_s=60)
    other = world.credentials("other")
    holder = world.leader()
    for number in range(5):  # it is frozen in the midst of its work
        world.api.post(modules(NAMESPACE), a_module(f"m{number}", devicePlugin=DEVICE_PLUGIN))
    operator.send_signal(signal.SIGSTOP)
    try:
        second = world.run(other)
        eventually(lambda: world.leader() not in (holder, ""), "the other leads", within_s=60)
        for number in range(5):
            eventually(lambda name=f"m{number}": world.ready(name), within_s=90)
        # What was on the wire has arrived long ago.
        written = len([each for each in world.asked(world.kubeconfig) if each["verb"] in WRITES])
    finally:
        operator.send_signal(signal.SIGCONT)
    assert operator.wait(30) == 1, "it says that it has lost the lease"
    world.running.remove(operator)
    after = [each for each in world.asked(world.kubeconfig) if each["verb"] in WRITES][written:]
    # Events are guarded too, but are not worth a fence; one cut off before its body has done nothing.
    done = [each for each in after if each["objectRef"]["resource"] != "events"]
    assert [each for each in done if each["responseStatus"]["code"] < 400] == []
    assert second.poll() is None
    assert world.exactly(*(f"m{number}" for number in range(5)), device_plugin=True)


def test_it_survives_an_api_server_that_is_killed_and_an_etcd_that_forgets(world, operator):
    world.api.post(modules(NAMESPACE), a_module(devicePlugin=DEVICE_PLUGIN))
    eventually(world.ready, "ready", within_s=90)
    operator.terminate()
    assert operator.wait(15) == 0
    world.running.remove(operator)
    patient = world.run(KMM_LEASE_DURATION_SECONDS="60")  # its watches are to resume, not to begin anew
    eventually(lambda: world.log().count("successfully acquired lease") and world.has_kernel("n2", "6.4.0"))
    eventually(lambda: world.exactly("m", device_plugin=True), within_s=90)
    uids = {each["metadata"]["uid"] for each in world.sets()}
    patient.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: world.has_kernel("n3", "6.5.0"))
        world.plane.compact()
        world.plane.kill("kube-apiserver", signal.SIGKILL)
        world.plane.restart("kube-apiserver")
    finally:
        patient.send_signal(signal.SIGCONT)
    settled = lambda: world.has_kernel("n3", "6.5.0") and world.exactly("m", device_plugin=True)  # noqa: E731
    eventually(world.supervised(settled), within_s=180)
    assert uids <= {each["metadata"]["uid"] for each in world.sets()}, "nothing was made anew"
    assert patient.poll() is None, "it lived through it"
    assert "too old resource version" in world.log(), "what its watches went on from was forgotten"
    for node, kernel in (("n2", "6.0.0"), ("n3", "6.1.0")):
        eventually(lambda node=node, kernel=kernel: world.has_kernel(node, kernel))
    eventually(lambda: world.exactly("m", device_plugin=True), within_s=180)


def test_it_survives_an_api_server_that_hangs_for_a_minute(world, operator):
    world.api.post(modules(NAMESPACE), a_module())
    eventually(world.ready, "ready", within_s=90)
    uids = {each["metadata"]["uid"] for each in world.sets()}
    world.plane.kill("kube-apiserver", signal.SIGSTOP)
    time.sleep(60)
    world.plane.kill("kube-apiserver", signal.SIGCONT)
    eventually(lambda: world.api.get("/readyz").code == 200, within_s=60)
    settled = lambda: world.has_kernel("n2", "6.4.0") and world.exactly("m")  # noqa: E731
    eventually(world.supervised(settled), within_s=180)
    assert uids <= {each["metadata"]["uid"] for each in world.sets()}
    eventually(world.supervised(lambda: world.has_kernel("n2", "6.0.0") and world.exactly("m")), within_s=180)
