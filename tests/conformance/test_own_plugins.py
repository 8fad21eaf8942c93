"""Every plugin of this repository keeps the contract."""

from __future__ import annotations

from importlib.metadata import entry_points

from conformance.running import conformance

from kmm.contract import ENTRY_POINT_GROUP
from kmm.loader import OWN_DISTRIBUTIONS

OWN = sorted(
    each.name
    for each in entry_points(group=ENTRY_POINT_GROUP)
    if each.dist is not None and each.dist.name in OWN_DISTRIBUTIONS
)
# The one asks no address of this machine, whatever its settings say: its own tests ask what it is made of. The other
# has nothing to render for a Module that names no key: its own tests name one.
ASKED_OTHERWISE = ("openshift", "hsm")
# What a plugin needs to be asked here.
OPTIONS = """\
plugins:
  options:
    oci: {allowAddresses: ["127.0.0.0/8"]}
    sign-file: {image: registry.example.com/kmm-operator:1}
"""


def test_they_conform(tmp_path):
    (tmp_path / "config.yaml").write_text(OPTIONS)
    asked = [each for each in OWN if each not in ASKED_OTHERWISE]
    found = conformance(tmp_path, *asked, "--config", "config.yaml", beside=())
    assert found.code == 0, found.out + found.err
    assert {each["result"] for each in found.report["claims"]} <= {"holds", "unjudged"}
    assert {each["plugin"] for each in found.report["claims"]} == set(asked)
    assert {each["result"] for each in found.report["claims"] if each["of"] == "plugin"} == {"holds"}


def test_all_of_them_are_found():
    assert {
        "buildah",
        "daemonset",
        "driver-toolkit",
        "hsm",
        "kaniko",
        "oci",
        "openshift",
        "openshift-build",
        "sign-file",
    } <= set(OWN)
