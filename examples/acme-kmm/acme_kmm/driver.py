"""The driver's Module as Acme ships it. A user adds which nodes have a card; whatever else a user sets wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kmm.contract import Driver

from acme_kmm.options import Options

NAME = "acme"
MODULE = "acme_nic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """Kernels that Acme builds and tests the driver for. `pattern`: RE2, of what `uname -r` says there.

    `in_tree`: modules of the kernel's own that hold the card, and have to go first.
    """

    pattern: str
    in_tree: tuple[str, ...] = ()


SUPPORTED = (
    # Red Hat Enterprise Linux 9 and OpenShift, whose kernels bring a driver for Acme's older cards.
    Kernels(pattern=r"^5\.14\.0-[0-9.]+\.el9(_[0-9]+)?\.x86_64$", in_tree=("acme_legacy",)),
    # Debian 12.
    Kernels(pattern=r"^6\.1\.0-[0-9]+-amd64$"),
)


def of(options: Options) -> Driver:
    """Return the driver, with its images where the options say they are."""
    image = f"{options.registry}/acme-nic:{options.release}-${{KERNEL_FULL_VERSION}}"
    return Driver(
        name=NAME,
        description=f"Acme network cards, release {options.release}",
        spec={
            "moduleLoader": {
                "container": {
                    # The images hold the card's firmware beside the module: the loader copies it to the node.
                    "modprobe": {"moduleName": MODULE, "firmwarePath": "/firmware", "parameters": ["queues=8"]},
                    "kernelMappings": [_mapping(kernels, image) for kernels in SUPPORTED],
                }
            },
            "devicePlugin": {
                "renderer": NAME,
                "container": {
                    "image": f"{options.registry}/acme-device-plugin:{options.release}",
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                },
            },
        },
    )


def _mapping(kernels: Kernels, image: str) -> dict[str, Any]:
    mapping: dict[str, Any] = {"regexp": kernels.pattern, "containerImage": image}
    return mapping | ({"inTreeModulesToRemove": list(kernels.in_tree)} if kernels.in_tree else {})
