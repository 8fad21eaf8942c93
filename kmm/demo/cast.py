"""Who plays in the demo: nodes, images, Modules, keys."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from kmm.demo import vendor as vendors
from kmm.demo.builder import compiled
from kmm.demo.keys import Pair
from kmm.demo.vendor import Vendor
from kmm.embedded.registry import Registry
from kmm.oci import reference
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
VENDORS_MODULE = "acme"
_EXECUTOR, _OPERATOR = "tools/kaniko:1", "tools/kmm:1"


def push_images(registry: Registry, pair: Pair, vendor: Vendor | None) -> int:
    """Push an image of each driver for each kernel, signed, but the one that is to be built.

    Return how many there are.
    """
    signer = pair.signer()
    names = {"team/gpu": "gpu", "team/nic": "nic", "team/tired": "tired"}
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
    if vendor:
        for kernel, image in vendor.images.items():
            path = f"{vendor.folder}/lib/modules/{kernel}/{vendor.module}.ko"
            module_bytes = _signed(compiled(vendor.module, kernel), signer)
            registry.push_image(_named(image), {path: module_bytes, vendor.firmware: FIRMWARE_BYTES})
        registry.push_image(_named(vendor.device_plugin), {"/plugin": b"plugin"})
    return len(registry.images())


def configuration(registry: Registry, vendor: Vendor | None) -> dict[str, Any]:
    """Return the operator's configuration file."""
    options: dict[str, Any] = {
        "oci": {"allowAddresses": ["127.0.0.0/8"]},
        "kaniko": {"image": f"{registry.host}/{_EXECUTOR}"},
        "sign-file": {"image": f"{registry.host}/{_OPERATOR}", "caConfigMap": "registry-ca"},
    }
    allow = []
    if vendor:
        options[vendors.PLUGIN] = vendors.options(registry.host)
        allow.append(vendors.DISTRIBUTION)
    return {
        "caFile": str(registry.ca_file),
        "metricsAddress": "127.0.0.1:0",
        "healthAddress": "127.0.0.1:0",
        "plugins": {"allow": allow, "options": options},
    }


def vendors_module() -> dict[str, Any]:
    """Return the Module of a vendor's driver."""
    return _module(VENDORS_MODULE, driver=vendors.DRIVER)


def modules(registry: Registry, vendor: Vendor | None) -> list[dict[str, Any]]:
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
        *([vendors_module()] if vendor else []),
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


def _named(image: str) -> str:
    """Return the repository and tag of an image."""
    found = reference.parse(image)
    return f"{found.path}:{found.tag}"


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
