"""Who plays in the demo: nodes, images, Modules, keys, and a vendor's plugin package."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from kmm.demo.builder import compiled
from kmm.demo.keys import Pair
from kmm.embedded.registry import Registry
from kmm.signing.signer import Signer

NAMESPACE = "kmm-demo"
KERNELS = ("5.14.0-427.el9.x86_64", "6.1.0-18-amd64", "6.1.0-21-amd64")
NEW_KERNEL = "6.1.0-25-amd64"
NODES = {f"node-{number}": KERNELS[number % len(KERNELS)] for number in range(6)}
WORKERS = {"node-role.kubernetes.io/worker": ""}
FIRMWARE = "/firmware/nic.bin"
FIRMWARE_BYTES = b"firmware of the card"
SPEED = "25G"
DOCKERFILE = f"""\
FROM registry.example.com/team/toolkit
ARG KERNEL_FULL_VERSION
ARG SPEED=1G
RUN make MODULE=nic KERNEL=$KERNEL_FULL_VERSION SPEED=$SPEED
RUN cp /run/secrets/nic-firmware/nic.bin {FIRMWARE}
"""
MODULES = ("gpu", "nic", "acme", "tired")
VENDOR = "acme-kmm"
_EXECUTOR, _OPERATOR = "tools/kaniko:1", "tools/kmm:1"

_VENDORS_PLUGIN = '''\
"""What Acme ships: its driver's Module, so that a user's own is three lines."""

from kmm.contract import Driver


def kmm_drivers(settings):
    mapping = {"regexp": ".", "containerImage": settings.options["mirror"] + "/acme/card:${KERNEL_FULL_VERSION}"}
    container = {"modprobe": {"moduleName": "acme_card"}, "kernelMappings": [mapping]}
    return [Driver(name="acme-card", description="Acme cards", spec={"moduleLoader": {"container": container}})]
'''


def push_images(registry: Registry, pair: Pair) -> int:
    """Push an image of each driver for each kernel, signed, but the one that is to be built.

    Return how many there are.
    """
    signer = pair.signer()
    names = {"team/gpu": "gpu", "team/nic": "nic", "acme/card": "acme_card", "team/tired": "tired"}
    for repository, module in names.items():
        built = module == "nic"
        for kernel in (*KERNELS, *(() if built else (NEW_KERNEL,))):
            module_bytes = _signed(compiled(module, kernel, SPEED if built else ""), signer)
            files = {f"/opt/lib/modules/{kernel}/{module}.ko": module_bytes}
            if built:
                files[FIRMWARE] = FIRMWARE_BYTES
            registry.push_image(f"{repository}:{kernel}", files)
    registry.push_image("team/nic-device-plugin:1", {"/plugin": b"plugin"})
    registry.push_image("team/tired-device-plugin:1", {"/plugin": b"plugin"})
    registry.push_image(_EXECUTOR, {"/kaniko/executor": b"executor"})
    registry.push_image(_OPERATOR, {"/usr/bin/kmm": b"kmm"})
    return len(names) * (len(KERNELS) + 1) + 3


def install_vendor(folder: Path) -> Path:
    """Install a vendor's plugin package, as pip would, into a folder of its own; return that for PYTHONPATH."""
    (folder / "acme_kmm.py").write_text(_VENDORS_PLUGIN)
    info = folder / "acme_kmm-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {VENDOR}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kmm.v1]\nacme = acme_kmm\n")
    return folder


def configuration(registry: Registry) -> dict[str, Any]:
    """Return the operator's configuration file."""
    options = {
        "oci": {"allowAddresses": ["127.0.0.0/8"]},
        "kaniko": {"image": f"{registry.host}/{_EXECUTOR}"},
        "sign-file": {"image": f"{registry.host}/{_OPERATOR}", "caConfigMap": "registry-ca"},
        "acme": {"mirror": registry.host},
    }
    return {
        "caFile": str(registry.ca_file),
        "metricsAddress": "127.0.0.1:0",
        "healthAddress": "127.0.0.1:0",
        "plugins": {"allow": [VENDOR], "options": options},
    }


def modules(registry: Registry) -> list[dict[str, Any]]:
    """Return the Modules: pre-built; built and signed where missing, with firmware; a vendor's; a wrong one."""
    built = {
        "build": {
            "builder": "kaniko",
            "dockerfileConfigMap": {"name": "nic"},
            "buildArgs": [{"name": "SPEED", "value": SPEED}],
            "secrets": [{"name": "nic-firmware"}],
        },
        "sign": {"keySecret": {"name": "signing-key"}, "certSecret": {"name": "signing-cert"}},
        **_container(registry, "team/nic", moduleName="nic", firmwarePath="/firmware"),
    }
    return [
        _module("gpu", moduleLoader={"container": _container(registry, "team/gpu", moduleName="gpu")}),
        _module(
            "nic",
            imageRepoSecret={"name": "registry"},
            moduleLoader={"container": built},
            devicePlugin={"container": {"image": f"{registry.host}/team/nic-device-plugin:1"}},
        ),
        _module("acme", driver="acme-card"),
        _module(
            "tired",
            moduleLoader={"container": _container(registry, "team/tired", moduleName="tired")},
            devicePlugin={
                "renderer": "deamonset",
                "container": {"image": f"{registry.host}/team/tired-device-plugin:1"},
            },
        ),
    ]


def _container(registry: Registry, repository: str, **modprobe: str) -> dict[str, Any]:
    image = f"{registry.host}/{repository}:${{KERNEL_FULL_VERSION}}"
    return {"modprobe": modprobe, "kernelMappings": [{"regexp": ".", "containerImage": image}]}


def _signed(module: bytes, signer: Signer) -> bytes:
    made = BytesIO()
    signer.sign(BytesIO(module), made)
    return made.getvalue()


def _module(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
        "kind": "Module",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": WORKERS, **spec},
    }
