"""The whole chain: a Dockerfile is built, signed and pulled, and a kernel under Secure Boot loads what came of it."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
from apiserver.client import eventually
from apiserver.samples import core
from e2e.debian import SUITE
from e2e.driver import FIRMWARE, GREETING, IN_TREE, LOADS, dockerfile
from e2e.loader import KILLED, Loader, loading_site
from e2e.machine import Machine
from e2e.site import WITHIN_S, Site
from e2e.verdict import USED, new_pair, own_signer, reason_of
from signing.golden import golden
from world import NAMESPACE, PREFIX

from kmm.core.reasons import Reason
from kmm.embedded.program import Exit

pytestmark = pytest.mark.e2e

SELF = {"key": golden("self.key.pem").decode(), "cert": golden("self.pem").decode()}


@pytest.fixture(scope="module")
def machine(tmp_path_factory, tools, kernels):
    """The node."""
    enrolled = [own_signer("self").certificate.der]
    arguments = "firmware_class.path=/var/lib/firmware"
    folder = tmp_path_factory.mktemp("node") / "machine"
    with Machine(folder, kernels[SUITE], tools.busybox, certificates=enrolled, arguments=arguments) as machine:
        print(f"the machine booted within {machine.boot_s:.1f} s")
        yield machine


@pytest.fixture(scope="module")
def loader(machine):
    return Loader(machine)


@pytest.fixture(scope="module")
def site(tmp_path_factory, tools, loader):
    with ExitStack() as stack:
        yield loading_site(tmp_path_factory.mktemp("loading"), stack, tools, loader)


def sign(site: Site, name: str, key: str, cert: str) -> dict:
    site.secret(name, key=key, cert=cert)
    return {"keySecret": {"name": name}, "certSecret": {"name": name}}


def loaded(machine: Machine, name: str) -> bool:
    return machine.run(f"[ -e /sys/module/{name} ]").code == 0


def parameter(machine: Machine, name: str) -> str:
    return machine.said("cat", f"/sys/module/acme/parameters/{name}").removesuffix("\n")


def copied(machine: Machine) -> list[str]:
    return machine.said("find", "/var/lib/firmware", "-type", "f").split()


def gone(site: Site, loader: Loader, name: str) -> Exit:
    """Delete a Module, and wait until its loader has ended; return how unloading did."""
    site.remove(name)
    labels = lambda: [each["metadata"]["labels"].get(f"{PREFIX}module.name") for each in site.pods()]  # noqa: E731
    eventually(lambda: name not in labels(), f"{name}'s loader is gone", WITHIN_S)
    return eventually(lambda: loader.said.pop((name, "preStop")), f"{name} was unloaded, or could not be", WITHIN_S)


def test_a_driver_is_built_signed_pulled_loaded_and_unloaded(site, machine, loader):
    machine.said("modprobe", IN_TREE)
    machine.said("sh", "-c", "echo another >/var/lib/firmware/another.bin")
    began = time.monotonic()
    site.apply("acme", dockerfile(site.host), sign=sign(site, "pair", **SELF), loads=LOADS)
    site.loaded("acme")
    print(f"built, signed, pulled and loaded within {time.monotonic() - began:.1f} s")
    assert loaded(machine, "acme_core"), "what it needs"
    assert not loaded(machine, IN_TREE)
    assert parameter(machine, "greeting") == GREETING
    assert parameter(machine, "answer") == "42"
    assert parameter(machine, "firmware") == FIRMWARE
    assert sorted(copied(machine)) == ["/var/lib/firmware/acme/acme.bin", "/var/lib/firmware/another.bin"]
    unloaded = gone(site, loader, "acme")
    assert unloaded.code == 0, unloaded
    ended = eventually(lambda: loader.said["acme", ""], "its container has ended", WITHIN_S)
    assert ended.code == KILLED, "until then it slept"
    assert not loaded(machine, "acme")
    assert not loaded(machine, "acme_core")
    assert copied(machine) == ["/var/lib/firmware/another.bin"]
    assert not machine.said("find", "/var/lib/firmware", "-name", "acme"), "nor the folder"


def test_a_driver_that_is_in_use_stays_loaded_and_that_is_said(site, machine, loader):
    site.apply_unbuilt("acme", loads=LOADS)
    site.loaded("acme")
    user = machine.said("sh", "-c", "sleep 1000 </dev/acme >/dev/null 2>&1 & echo $!").strip()
    said = gone(site, loader, "acme")
    assert said.code == 1
    assert "Module acme is in use" in said.output
    assert reason_of(said.output) is Reason.MODULE_IN_USE
    assert loaded(machine, "acme")
    assert copied(machine) == ["/var/lib/firmware/another.bin"], "which it no longer needs"
    found = site.api.get(core(NAMESPACE, "events")).body["items"]
    assert "FailedPreStopHook" in {each["reason"] for each in found}
    machine.said("kill", user)
    eventually(lambda: machine.run("rmmod acme").code == 0, "nobody uses it", WITHIN_S)


def test_an_in_tree_module_that_is_in_use_is_told_and_removed_once_it_is_not(site, machine, loader):
    machine.said("modprobe", IN_TREE)
    user = machine.said("sh", "-c", f"sleep 1000 <{USED} >/dev/null 2>&1 & echo $!").strip()
    site.apply_unbuilt("later", containerImage=f"{site.host}/drivers/acme:{site.release}", loads=LOADS)
    assert f"Module {IN_TREE} is in use" in site.fails("later", Reason.MODULE_IN_USE)
    assert not loaded(machine, "acme")
    machine.said("kill", user)
    site.loaded("later")
    assert not loaded(machine, IN_TREE)
    gone(site, loader, "later")


def test_a_driver_that_is_not_signed_or_by_a_stranger_is_refused_and_the_operator_says_why(site, machine, loader):
    unsigned = f"{site.host}/drivers/acme:{site.release}-{NAMESPACE}_acme_kmm_unsigned"
    key, cert = (each.decode() for each in new_pair("stranger"))
    site.apply_unbuilt("unsigned", containerImage=unsigned, loads=LOADS)
    site.apply_unbuilt("strange", sign={**sign(site, "strangers", key, cert), "unsignedImage": unsigned}, loads=LOADS)
    for name in ("unsigned", "strange"):
        assert "Key was rejected by service" in site.fails(name, Reason.KEY_REJECTED)
        failed = lambda name=name: site.condition("Ready", name).get("reason") == Reason.KEY_REJECTED  # noqa: E731
        eventually(failed, "Ready says so", WITHIN_S)
        gone(site, loader, name)
    assert not loaded(machine, "acme")


def test_a_driver_that_does_not_find_its_firmware_is_told(site, machine, loader):
    loads = {"modprobe": {"moduleName": "acme"}}
    site.apply_unbuilt("bare", containerImage=f"{site.host}/drivers/acme:{site.release}", loads=loads)
    # modprobe has these words for whatever was not found, also by the driver itself.
    assert "Unknown symbol in module, or unknown parameter" in site.fails("bare", Reason.UNKNOWN_SYMBOL)
    assert not loaded(machine, "acme")
    gone(site, loader, "bare")
