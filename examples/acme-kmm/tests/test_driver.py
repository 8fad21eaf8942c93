from __future__ import annotations

import re

import pytest

from acme_kmm.driver import SUPPORTED, of
from acme_kmm.options import Options


@pytest.mark.parametrize(
    ("kernel", "in_tree"),
    [
        ("5.14.0-427.13.1.el9_4.x86_64", ("acme_legacy",)),
        ("5.14.0-427.el9.x86_64", ("acme_legacy",)),
        ("6.1.0-21-amd64", ()),
    ],
)
def test_each_supported_kernel_has_one_entry(kernel: str, in_tree: tuple[str, ...]) -> None:
    (found,) = (each for each in SUPPORTED if re.search(each.pattern, kernel))
    assert found.in_tree == in_tree


@pytest.mark.parametrize(
    "kernel",
    [
        "5.14.0-427.el9.aarch64",
        "5.14.0-427.el10.x86_64",
        "6.1.0-21-cloud-amd64",
        "6.1.0-21-rt-amd64",
        "16.1.0-2-amd64",
    ],
)
def test_others_are_not_promised(kernel: str) -> None:
    assert not [each for each in SUPPORTED if re.search(each.pattern, kernel)]


def test_images_are_where_the_options_say() -> None:
    spec = of(Options(registry="mirror.example.com/acme", release="2.3.0")).spec
    images = {each["containerImage"] for each in spec["moduleLoader"]["container"]["kernelMappings"]}
    assert images == {"mirror.example.com/acme/acme-nic:2.3.0-${KERNEL_FULL_VERSION}"}
    assert spec["devicePlugin"]["container"]["image"] == "mirror.example.com/acme/acme-device-plugin:2.3.0"


def test_the_firmware_and_the_device_plugin_come_with_it() -> None:
    spec = of(Options()).spec
    assert spec["moduleLoader"]["container"]["modprobe"]["firmwarePath"] == "/firmware"
    assert spec["devicePlugin"]["renderer"] == "acme"
