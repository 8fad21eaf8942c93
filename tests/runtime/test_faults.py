"""No fault makes it double, lose or flap anything."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from apiserver.client import Api, eventually
from apiserver.samples import a_module, core, modules
from runtime.conftest import ALONE, NAMESPACE, QUICK

from kmm.catalog import Plugin, build_catalog
from kmm.contract import Kind as KubernetesKind
from kmm.contract import Progress, State
from kmm.embedded.fault import Fault, Kind
from kmm.loader import load_catalog
from kmm.runtime.transport import Unreachable

pytestmark = pytest.mark.embedded_only("faults are made in the embedded server; a plane of one's own is in tests/e2e")

DEVICE_PLUGIN = {"container": {"image": "registry.example.com/dp:1"}}


def image_of(each):
    return each["spec"]["template"]["spec"]["containers"][0]["image"]


def state(world):
    """Return what there is, without names and uids that differ from run to run."""
    loaders = sorted((kernel, image_of(each)) for kernel, each in world.loaders().items())
    every = sorted(each["metadata"]["labels"]["kmm.node.kubernetes.io/role"] for each in world.sets())
    return loaders, every, {node: sorted(world.labels(node)) for node in ("n0", "n1")}


def put_through(world):
    """Let a Module come, change, and its nodes change; whoever carries it out."""
    made = world.api.post(modules(NAMESPACE), a_module(devicePlugin=DEVICE_PLUGIN))
    assert made.code == 201, made.body
    yield
    world.cluster.change_kernel("n0", "6.7.0")
    yield
    container = {
        "modprobe": {"moduleName": "m"},
        "kernelMappings": [{"regexp": ".*", "containerImage": "registry.example.com/m:2"}],
    }
    changed = world.api.patch(f"{modules(NAMESPACE)}/m", {"spec": {"moduleLoader": {"container": container}}})
    assert changed.code == 200, changed.body
    yield


WANTED = (
    [("6.1.0", "registry.example.com/m:2"), ("6.7.0", "registry.example.com/m:2")],
    ["device-plugin", "module-loader", "module-loader"],
    {
        node: sorted(
            [
                "kernel-version.full", "kmm-system.m.device-plugin-ready", "kmm-system.m.ready",
                "m.device-plugin-ready", "m.ready",
            ]
        )
        for node in ("n0", "n1")
    },
)  # fmt: skip


def settled(world):
    return state(world) == WANTED and world.ready()


def dies_at(app, count):
    """Let an operator die with its n-th request but those that only look; return what tells that it is dead."""
    dead = threading.Event()
    asked = []

    def sent(method, path):
        if dead.is_set():
            raise Unreachable("it is dead")
        if method in ("GET", "WATCH"):
            return
        asked.append((method, path))
        if len(asked) >= count:
            dead.set()
            raise Unreachable("it dies here")

    app.transport.sent = sent
    return dead


def die_and_go_on(world, count):
    first = world.operator(ALONE, user="first", start=False)
    dead = dies_at(first, count)
    first.start()
    for _ in put_through(world):
        eventually(lambda: dead.is_set() or not first.controller.queue.depth())
        until = time.monotonic() + 0.4
        while not dead.is_set() and time.monotonic() < until:
            time.sleep(0.01)
    first.stop()
    world.operator(ALONE, user="second")
    eventually(lambda: settled(world), f"died at request {count}")
    world.api.delete(f"{modules(NAMESPACE)}/m")
    eventually(lambda: not world.sets())
    eventually(lambda: world.labels("n0") == world.labels("n1") == {"kernel-version.full"})
    return dead.is_set()


@pytest.mark.parametrize("count", [1, 3, 4, 5, 6, 9, 14])
def test_one_that_dies_is_followed_by_one_that_ends_in_the_same_state(world, count):
    die_and_go_on(world(nodes=2, kernels=2), count)


@pytest.mark.e2e
def test_it_may_die_at_every_request_of_a_modules_life(world):
    count = 0
    while True:
        count += 1
        made = world(nodes=2, kernels=2)
        if not die_and_go_on(made, count):
            break
        for app in made.apps:
            if not app.ended.is_set():
                app.stop()
        made.cluster.__exit__(None, None, None)
    print(f"it died at each of {count - 1} requests")
    assert count > 10


FAULTS = {
    "creates refused": [Fault(kind=Kind.REFUSE, verbs=("create",), resource="daemonsets", code=500, times=3)],
    "too many requests": [Fault(kind=Kind.REFUSE, code=429, retry_after_s=1, times=5, user="operator", skip=12)],
    "conflicts": [Fault(kind=Kind.REFUSE, verbs=("patch",), code=409, times=6, user="operator")],
    "answers to creates lost": [Fault(kind=Kind.LOSE, verbs=("create",), resource="daemonsets", times=3)],
    "answers to patches lost": [Fault(kind=Kind.LOSE, verbs=("patch",), times=6, user="operator")],
    "answers to deletes lost": [Fault(kind=Kind.LOSE, verbs=("delete",), times=3, user="operator")],
    "watches cut": [
        Fault(kind=Kind.CUT, resource=resource, times=3) for resource in ("pods", "daemonsets", "nodes", "modules")
    ],
    "watches behind": [
        Fault(kind=Kind.LAG, resource=resource, delay_s=0.3, times=None)
        for resource in ("daemonsets", "pods", "nodes")
    ],
    "forgotten versions": [Fault(kind=Kind.REFUSE, verbs=("watch",), code=410, times=6)],
    "slow writes": [Fault(kind=Kind.DELAY, verbs=("create", "patch"), delay_s=0.3, times=8, user="operator")],
    "a black hole": [Fault(kind=Kind.HANG, verbs=("patch", "create"), times=2, user="operator")],
}


@pytest.mark.parametrize("name", FAULTS)
def test_whatever_goes_wrong_the_end_is_the_same(world, name):
    found = world(nodes=2, kernels=2)
    app = found.operator(ALONE)
    app.transport.write_timeout_s = 2
    for fault in FAULTS[name]:
        found.cluster.faults.add(replace(fault))
    for _ in put_through(found):
        time.sleep(0.2)
    eventually(lambda: settled(found))
    found.cluster.faults.clear()
    names = [each["metadata"]["name"] for each in found.sets()]
    assert len(names) == len(set(names)) == 3
    found.quiet()
    before = len(found.cluster.log)
    found.quiet()
    assert not found.asked(before), "nothing flaps"


def test_a_restart_of_the_api_server_loses_nothing(world):
    found = world(nodes=2, kernels=2)
    found.operator(ALONE)
    for step, _ in enumerate(put_through(found)):
        found.cluster.restart()
        if step == 1:
            found.cluster.compact()
        found.api = Api(found.cluster.url, found.cluster.ca_file, found.cluster.admin_token)
    eventually(lambda: settled(found))


def test_while_the_api_server_is_away_nothing_is_undone(world):
    found = world(nodes=2, kernels=2)
    found.operator(ALONE)
    for _ in put_through(found):
        pass
    eventually(lambda: settled(found))
    found.quiet()
    uids = {each["metadata"]["uid"] for each in found.sets()}
    found.cluster.faults.add(Fault(kind=Kind.REFUSE, user="operator", code=503, times=None))
    found.cluster.restart()
    time.sleep(1)
    found.cluster.faults.clear()
    found.api = Api(found.cluster.url, found.cluster.ca_file, found.cluster.admin_token)
    found.quiet()
    assert {each["metadata"]["uid"] for each in found.sets()} == uids
    assert settled(found)


def test_nothing_is_made_again_for_a_module_whose_end_is_told_late(world):
    found = world(nodes=2, kernels=2)
    found.cluster.faults.add(Fault(kind=Kind.LAG, verbs=("watch",), resource="modules", delay_s=2, times=None))
    found.operator(ALONE)
    found.api.post(modules(NAMESPACE), a_module(devicePlugin=DEVICE_PLUGIN))
    eventually(found.ready)
    before = found.mark()
    found.api.delete(f"{modules(NAMESPACE)}/m")
    eventually(lambda: not found.sets())
    eventually(lambda: not found.apps[0].cluster.modules.items(), "its end is told")
    found.quiet()
    assert ("create", "daemonsets") not in found.asked(before)


def test_two_operators_do_no_harm_where_one_leads(world):
    found = world(nodes=2, kernels=2)
    found.operator(QUICK, user="first")
    found.operator(QUICK, user="second")
    for _ in put_through(found):
        pass
    eventually(lambda: settled(found))
    writers = {
        each.user
        for each in found.entries()
        if each.user in ("first", "second")
        and each.verb not in ("get", "list", "watch")
        and each.resource != "leases"
    }
    assert len(writers) == 1


def test_modules_that_come_and_go_leave_nothing(world):
    found = world(nodes=2, kernels=2)
    found.operator(ALONE)
    for number in range(25):
        found.api.post(modules(NAMESPACE), a_module(f"m{number}", devicePlugin=DEVICE_PLUGIN))
        if number >= 2:
            found.api.delete(f"{modules(NAMESPACE)}/m{number - 2}")
        time.sleep(0.03)
    for number in (23, 24):
        found.api.delete(f"{modules(NAMESPACE)}/m{number}")
    eventually(lambda: not found.sets())
    eventually(lambda: not found.api.get(core(NAMESPACE, "pods")).body["items"])
    eventually(lambda: found.labels("n0") == found.labels("n1") == {"kernel-version.full"})
    found.quiet()


class Renderer:
    owns = (KubernetesKind(api_version="apps/v1", kind="DaemonSet", plural="daemonsets"),)
    requires = ()

    def __init__(self, name, act):
        self.name, self._act = name, act

    def render(self, request):
        self._act()
        raise RuntimeError("never got there")

    def observe(self, objects, pods):
        return Progress(state=State.RUNNING)


def test_a_plugin_that_sleeps_or_raises_delays_its_own_modules_only(world):
    wake = threading.Event()
    bad = Plugin(
        name="bad",
        distribution="bad",
        version="1",
        device_plugins=(Renderer("sleepy", lambda: wake.wait(600)), Renderer("raiser", lambda: 1 / 0)),
    )
    catalog = build_catalog([*load_catalog().plugins, bad])
    found = world(nodes=2, kernels=2, catalog=catalog)
    found.operator(ALONE)
    try:
        for number in range(6):
            found.api.post(
                modules(NAMESPACE), a_module(f"sleepy{number}", devicePlugin={**DEVICE_PLUGIN, "renderer": "sleepy"})
            )
        found.api.post(modules(NAMESPACE), a_module("raiser", devicePlugin={**DEVICE_PLUGIN, "renderer": "raiser"}))
        found.api.post(modules(NAMESPACE), a_module("good", devicePlugin=DEVICE_PLUGIN))
        eventually(lambda: found.ready("good"))
    finally:
        wake.set()
    eventually(lambda: found.condition("DevicePluginReady", "raiser").get("reason") == "RendererFailed")
    assert found.condition("Ready", "raiser")["status"] == "False"


def test_it_stops_in_time_though_the_api_server_is_a_black_hole(world):
    found = world(nodes=2, kernels=2)
    app = found.operator()
    found.api.post(modules(NAMESPACE), a_module())
    eventually(found.ready)
    found.cluster.faults.add(Fault(kind=Kind.HANG, user="operator", times=None))
    found.cluster.change_kernel("n0", "6.8.0")
    time.sleep(0.3)
    began = time.monotonic()
    app.stop()
    assert time.monotonic() - began < 30, "10 s where the machine has nothing else to do"


def test_odd_objects_end_nothing(world):
    """What the API server lets through is not all well-formed."""
    found = world(nodes=1, kernels=1)
    found.operator(ALONE)
    found.api.post("/api/v1/nodes", {"metadata": {"name": "bare"}})
    pod = {
        "metadata": {"name": "odd", "labels": {"kmm.node.kubernetes.io/module.name": "m"}},
        "spec": {"containers": [{"name": "c", "image": "c"}]},
    }
    assert found.api.post(core(NAMESPACE, "pods"), pod).code == 201
    found.api.post(modules(NAMESPACE), a_module())
    eventually(found.ready)
    assert all(watch._thread.is_alive() for watch in found.apps[0]._watches)
